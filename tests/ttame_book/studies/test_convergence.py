"""The lengths of training: what is trained, and what each starts from."""

import itertools

import pytest
import torch

import ttame_core as tt
from ttame_book.studies.convergence import rise_for_as_much, training_lengths
from ttame_core.metrics.costs import counted_passes
from ttame_core.recipes import OURS


@pytest.mark.slow
def test_each_that_is_compared_is_shown_before_and_after_its_trainings(edition):
    edition.config["converge"] = {"steps": [2], "images": 4}
    edition.config["evaluate"]["methods"] = ["l-cam-img", *OURS]
    edition.config["trained"] = {"t-tame-matched": {"steps": 1}}
    model = edition.backbone("demo_resnet", ["layer2", "layer3", "layer4"])
    found = {(method, steps): e for method, _, steps, e in training_lengths(edition, model)}
    kinds = ("matched", "warm-matched", "rise", "top")
    methods = ["t-tame", *(f"t-tame-{kind}" for kind in kinds)]
    own = edition.recipe("demo_resnet").steps
    lengths = {method: (0, 2, own) for method in methods} | {"t-tame-matched": (0, 1, 2)}
    assert list(found) == [(method, steps) for method in methods for steps in lengths[method]]
    weights = {key: e.attention.fusion.weight for key, e in found.items()}
    assert (weights["t-tame-warm-matched", 0][:, :-80] == 0).all()
    assert (weights["t-tame", 0] != 0).all()
    for method in methods:
        assert not torch.equal(weights[method, 0], weights[method, 2])
    assert found["t-tame", 0].attention.scales is None
    assert (found["t-tame-rise", 0].attention.scales != 1).all()
    edition.config["train"]["steps"], edition.config["converge"] = 1, {"steps": [1], "images": 4}
    vgg = tt.load_backbone("demo_vgg")  # its head is no one layer on the last tap
    edition.config["backbones"]["demo_vgg"] = {"data": "digits"}
    of_tokens = edition.backbone("demo_vit")
    assert "t-tame-warm-matched" not in {name for name, *_ in training_lengths(edition, of_tokens)}
    assert {name for name, *_ in training_lengths(edition, vgg)} == {
        "t-tame",
        "t-tame-matched",
        "t-tame-rise",
    }


def test_a_method_is_trained_anew_for_each_length_and_its_own_is_found(edition):
    edition.config["evaluate"]["methods"] = ["rise", "t-tame", "t-tame-warm-matched"]
    edition.config["converge"] = {"steps": [1, 2], "images": 4}
    vit, told = edition.backbone("demo_vit"), []
    edition.explainer(vit)  # as its own notebook trains it, for three steps

    def progress(label):
        return lambda done, total: told.append((label, done, total))

    found = list(training_lengths(edition, vit, progress))
    assert [point for *point, _ in found] == [["t-tame", "", n] for n in range(4)]
    both = "2 trainings together"
    assert told == [(both, 1, 2), (both, 2, 2)]
    images = torch.rand(2, 3, 64, 64)
    maps = [explainer.explain(images) for *_, explainer in found]
    assert torch.equal(maps[0], tt.TTAME(vit).explain(images))  # its start
    assert torch.equal(maps[3], edition.explainer(vit).explain(images))
    assert not any(torch.equal(a, b) for a, b in itertools.combinations(maps, 2))


def test_what_is_changed_is_trained_for_its_own_steps_and_told_by_its_changes(edition):
    edition.config["evaluate"]["methods"] = ["t-tame-rise"]
    changes = [{"masks": 2}, {"masks": 2, "steps": 1}, {"seed": 1}, {"steps": 2}]
    edition.config["converge"] = {"steps": [1], "images": 4, "changed": {"t-tame-rise": changes}}
    vit, images = edition.backbone("demo_vit"), torch.rand(2, 3, 64, 64)
    found = {tuple(point): e for *point, e in training_lengths(edition, vit)}
    assert list(found)[3:] == [
        ("t-tame-rise", "masks 2", 3),
        ("t-tame-rise", "masks 2", 1),
        ("t-tame-rise", "seed 1", 3),
        ("t-tame-rise", "", 2),
    ]
    maps = [explainer.explain(images) for explainer in found.values()]
    assert not any(torch.equal(a, b) for a, b in itertools.combinations(maps, 2))


@pytest.mark.parametrize("changes", [{"masks": 3}, {"seed": 0}, {"steps": 1}, {"steps": 3}])
def test_what_changes_nothing_is_no_other_recipe(edition, changes):
    edition.config["evaluate"]["methods"] = ["t-tame-rise"]
    changed = {"t-tame-rise": [changes]}
    edition.config["converge"] = {"steps": [1], "images": 4, "changed": changed}
    with pytest.raises(tt.TTAMEError, match=r"converge.changed.t-tame-rise: .* changes nothing"):
        next(training_lengths(edition, edition.backbone("demo_vit")))


def test_rise_spends_a_trainings_forwards_on_the_images_that_it_explains(edition):
    edition.config["evaluate"]["methods"] = ["rise", "t-tame"]
    edition.config["converge"] = {"steps": [1, 2], "images": 4}
    vit = edition.backbone("demo_vit")
    batch = edition.recipe("demo_vit").batch_size
    found = [point for *point, _ in rise_for_as_much(edition, vit, 4)]
    assert found == [["rise", "", 1], ["rise", "", 2], ["rise", "", 3]]  # 3 is the edition's own
    for *_, steps, explainer in rise_for_as_much(edition, vit, 4):
        with counted_passes(vit.model) as passes:
            explainer(torch.rand(1, 3, 64, 64), torch.tensor([0]))
        # a step passes each image, and its masked copy there and back; four images share them
        assert passes.forwards == 3 * steps * batch // 4
    edition.config["evaluate"]["methods"] = ["t-tame"]
    assert not list(rise_for_as_much(edition, vit, 4))
