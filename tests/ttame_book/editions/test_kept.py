"""Maps and answers that an edition keeps."""

import pytest
import torch

from tests.ttame_book.smoke import read
from ttame_book.editions import keys
from ttame_book.editions.kept import kept_answers
from ttame_book.studies.comparison import compared_methods


def test_costly_maps_are_found_by_runs_of_other_settings(tmp_path):
    images = torch.rand(1, 3, 64, 64)
    files = []
    for methods in (["rise"], ["rise", "random"]):
        edition = read(tmp_path, methods=methods)
        backbone = edition.backbone("demo_resnet")
        ready, _ = compared_methods(edition, backbone, keep=True)
        ready["rise"](images, torch.tensor([1]))
        files.append(list(tmp_path.rglob("*.npy")))
    assert files[0] == files[1] and len(files[0]) == 1


@pytest.fixture
def scored(tmp_path):
    """Score a map of the edition's classifier; returns the scores and the images it was shown."""

    def scored(settings=None, change=None, masking=None):
        edition = read(tmp_path, **(settings or {}))
        backbone = edition.backbone("demo_resnet", masking=masking)
        if change:
            with torch.no_grad():
                backbone.model.fc.bias[0] += (
                    change  # of one class: all of them would change no answer
                )
        answers, shown = kept_answers(edition, backbone), []
        hook = backbone.model.register_forward_pre_hook(lambda m, args: shown.append(len(args[0])))
        generator = torch.Generator().manual_seed(0)
        images = torch.rand(2, 3, 64, 64, generator=generator)
        maps = torch.rand(2, 8, 8, generator=generator)
        found = answers(images, torch.tensor([1, 2]), maps, [("masked", 50), ("morf", 20)])
        hook.remove()
        return found, sum(shown)

    return scored


def test_a_classifiers_answers_are_asked_for_once_in_all_runs_of_an_edition(scored, tmp_path):
    first, shown = scored()
    assert shown == 2 * 2
    again, none = scored({"images": 3})
    assert none == 0 and again.keys() == first.keys() == {("masked", 50), ("morf", 20)}
    assert all(torch.equal(again[key], first[key]) for key in first)
    folder = tmp_path / "smoke" / "demo_resnet" / "answers"
    assert [file.parent for file in tmp_path.rglob("*.npy")] == [folder]


@pytest.mark.parametrize("options", [{"change": 0.5}, {"masking": "standardised"}])
def test_another_classifier_or_masking_is_asked_anew(options, scored):
    first, _ = scored()
    other, shown = scored(**options)
    assert shown == 2 * 2 and not torch.equal(other["masked", 50], first["masked", 50])


def test_other_code_of_what_changes_images_is_asked_anew(scored, monkeypatch):
    scored()
    asked = []
    with monkeypatch.context() as patch:
        patch.setattr(keys, "result_key", lambda code, settings: asked.extend(code) or "another")
        assert scored()[1] == 2 * 2
    builders = ["ttame_core.classifiers.loading", "ttame_book.demo.classifiers"]
    assert asked == ["ttame_core.metrics.perturbations", *builders]
    assert scored()[1] == 0
