"""How the demo's classifiers are trained: repeatably, on photographs that fade in."""

import pytest
import torch

import ttame_book as tb
from ttame_book.demo import classifiers, training
from ttame_book.demo.training import BackboneRecipe


@pytest.mark.slow
def test_training_is_repeatable_and_leaves_the_random_state_alone():
    before = torch.get_rng_state()
    first, second = (
        training.train_demo_backbone("demo_resnet", count=64, epochs=2).state_dict()
        for _ in range(2)
    )
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(first[k], second[k]) for k in first)
    fresh = classifiers.load_demo_backbone("demo_resnet", weights=None).state_dict()
    assert not torch.equal(first["conv1.weight"], fresh["conv1.weight"])


def test_photographs_fade_in_over_a_part_of_the_training():
    recipe = BackboneRecipe(epochs=1, max_lr=1e-3, fade=0.4, fade_power=2.0)
    shown = [recipe.visible(done) for done in (0, 0.2, 0.4, 1)]
    assert shown == pytest.approx([0, 0.25, 1, 1])


def test_a_batch_has_blank_images_that_belong_to_no_class():
    data = tb.DigitsInPhotographs("train", 20)
    chosen = torch.arange(16)
    images, targets = training._batch(data, chosen, 1.0)
    assert len(images) == len(targets) == 16 + 2
    assert torch.equal(targets[:16].argmax(1), data.labels[:16])
    assert torch.allclose(targets.sum(1), torch.ones(18))
    assert torch.allclose(targets[16:], torch.full((2, 10), 0.1))
    assert images.min() >= 0 and images.max() <= 1
    hidden, _ = training._batch(data, chosen, 0.0)  # before any photograph is seen
    outside = data.opacity[:16] == 0
    for image, where in zip(hidden[:16], outside, strict=True):
        assert image[:, where].std(1).max() < 1e-6  # a plain ground
    assert max(image[:, where].std() for image, where in zip(images, outside, strict=False)) > 0.05


def test_augmentation_shifts_by_up_to_six_pixels_and_changes_the_contrast():
    images = torch.full((200, 3, 64, 64), 0.5)
    images[:, :, 32, 32] = 0.8
    found = (training.augment(images) - 0.5)[:, 0]
    image, down, right = found.nonzero().T
    assert image.tolist() == list(range(200))  # one spot each
    assert {*down.tolist()} == {*right.tolist()} == set(range(26, 39))
    contrast = found[image, down, right] / 0.3
    assert 0.7 <= contrast.min() < 0.75 and 1.25 < contrast.max() < 1.3001
    assert training.augment(torch.rand(20, 3, 64, 64)).aminmax() == (0, 1)  # clipped
