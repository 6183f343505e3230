"""Maps and scores that are kept are computed once, and never taken for others."""

import pytest
import torch
from torch.utils.data import DataLoader

import ttame_core as tt
from ttame_core.metrics.cache import KeptConfidences, KeptMaps


@pytest.fixture
def counted():
    """A method that counts the images it explains."""

    def method(images, classes):
        method.explained += len(images)
        return images[:, 0] * classes[:, None, None]

    method.explained = 0
    return method


def test_a_map_is_made_once_and_stays_the_same(counted, tmp_path):
    images, classes = torch.rand(3, 3, 4, 4), torch.tensor([1, 2, 3])
    first = KeptMaps(counted, tmp_path, "a")(images[:2], classes[:2])
    again = KeptMaps(counted, tmp_path, "a")(images, classes)
    assert counted.explained == 3
    assert torch.equal(first, again[:2]) and torch.equal(
        again, images[:, 0] * classes[:, None, None]
    )


def test_another_image_class_or_method_has_another_map(counted, tmp_path):
    image, c = torch.rand(1, 3, 4, 4), torch.tensor([1])
    for about, other, wanted in (
        ("a", image, c),
        ("a", image, c + 1),
        ("a", image * 0.5, c),
        ("b", image, c),
    ):
        found = KeptMaps(counted, tmp_path, about)(other, wanted)
        assert torch.equal(found, other[:, 0] * wanted[:, None, None])
    assert counted.explained == 4


def test_what_was_made_before_a_kill_is_not_made_again(counted, tmp_path):
    images, classes = torch.rand(3, 3, 4, 4), torch.tensor([1, 2, 3])

    def killed(some, wanted):
        if wanted[0] == 3:
            raise KeyboardInterrupt
        return counted(some, wanted)

    with pytest.raises(KeyboardInterrupt):
        KeptMaps(killed, tmp_path, "a")(images, classes)
    assert counted.explained == 2
    KeptMaps(counted, tmp_path, "a")(images, classes)
    assert counted.explained == 3
    assert len(list(tmp_path.iterdir())) == 3


@pytest.fixture
def asked(tiny):
    """Counts the images that the classifier is shown."""

    def hook(module, args):
        asked.images += len(args[0])

    def asked():
        count, asked.images = asked.images, 0
        return count

    asked.images = 0
    tiny.model.register_forward_pre_hook(hook)
    return asked


def scored(backbone, noise, folder=None, seed=0, scale=1.0, stop=None, about=""):
    """Score two methods on two batches of four; the second batch of the second may stop it."""

    def left(images, classes):
        return images[:, 0] * scale

    def right(images, classes):
        if stop and images[0, 0, 0, 0] == noise.images[4, 0, 0, 0]:
            raise stop
        return images[:, 1]

    batches = DataLoader(torch.utils.data.Subset(noise, range(8)), batch_size=4)
    measures = {"ad": (50, 15), "morf": (50,)}
    kept = KeptConfidences(backbone, folder, about) if folder else None
    methods = {"left": left, "right": right}
    return tt.evaluate(backbone, methods, batches, measures, seed, confidences=kept)


def test_a_killed_evaluation_goes_on_with_the_same_scores(tiny, noise, asked, tmp_path):
    plain = scored(tiny, noise)
    assert asked() == 8 + 2 * 8 * 3
    with pytest.raises(KeyboardInterrupt):
        scored(tiny, noise, tmp_path, stop=KeyboardInterrupt())
    assert asked() == 8 + 3 * 4 * 3
    assert scored(tiny, noise, tmp_path).equals(plain)
    assert asked() == 8 + 4 * 3  # the images as they are, and what was missing


@pytest.mark.parametrize(
    ("change", "anew"),
    [({"seed": 1}, 2), ({"scale": 0.5}, 1), ({"about": "other code"}, 2)],  # methods
)
def test_scores_of_other_maps_draws_or_code_are_not_found(
    tiny, noise, asked, tmp_path, change, anew
):
    scored(tiny, noise, tmp_path)
    asked()
    assert scored(tiny, noise, tmp_path, **change).equals(scored(tiny, noise, **change))
    assert asked() == (8 + anew * 8 * 3) + (8 + 2 * 8 * 3)


def test_scores_of_another_classifier_are_not_found(tiny, noise, tmp_path):
    first = scored(tiny, noise, tmp_path)
    with torch.no_grad():
        tiny.model.head.weight.mul_(2)
    again = scored(tiny, noise, tmp_path)
    assert again.equals(scored(tiny, noise)) and not again.equals(first)
