"""Maps that are kept are made once, and never taken for others."""

import pytest
import torch

from ttame_core.remembered import Remembered


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
    first = Remembered(counted, tmp_path, "a")(images[:2], classes[:2])
    again = Remembered(counted, tmp_path, "a")(images, classes)
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
        found = Remembered(counted, tmp_path, about)(other, wanted)
        assert torch.equal(found, other[:, 0] * wanted[:, None, None])
    assert counted.explained == 4


def test_what_was_made_before_a_kill_is_not_made_again(counted, tmp_path):
    images, classes = torch.rand(3, 3, 4, 4), torch.tensor([1, 2, 3])

    def killed(some, wanted):
        if wanted[0] == 3:
            raise KeyboardInterrupt
        return counted(some, wanted)

    with pytest.raises(KeyboardInterrupt):
        Remembered(killed, tmp_path, "a")(images, classes)
    assert counted.explained == 2
    Remembered(counted, tmp_path, "a")(images, classes)
    assert counted.explained == 3
    assert len(list(tmp_path.iterdir())) == 3
