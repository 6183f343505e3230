"""Digits in photographs: the same from the same seed, splits apart, masks where the digits are."""

import numpy as np
import torch

import ttame_book as tb
from ttame_book.demo.digits import _digit_indices, _strip, two_digits
from ttame_book.demo.photographs import package_photographs
from ttame_core.images.folders import SPLITS


def test_digits_are_the_same_from_the_same_seed_whatever_the_size():
    small, large = tb.DigitsInPhotographs("val", 5), tb.DigitsInPhotographs("val", 9)
    assert torch.equal(small.compose(slice(0, 5)), large.compose(slice(0, 5)))
    assert torch.equal(small.labels, large.labels[:5])
    other = tb.DigitsInPhotographs("val", 5, seed=1)
    assert not torch.equal(small.compose(slice(0, 5)), other.compose(slice(0, 5)))


def test_splits_share_neither_digits_nor_regions():
    indices = {split: set(_digit_indices(split).tolist()) for split in SPLITS}
    assert sum(map(len, indices.values())) == 1797 == len(set.union(*indices.values()))
    for photograph in package_photographs():
        columns = np.broadcast_to(
            np.arange(photograph.width)[None, :, None], (1, photograph.width, 1)
        )
        strips = [set(_strip(columns, split).flatten().tolist()) for split in SPLITS]
        assert sum(map(len, strips)) == photograph.width == len(set.union(*strips))


def test_the_mask_is_where_the_digit_is():
    digits = tb.DigitsInPhotographs("test", 40)
    images = digits.compose(slice(0, 40))
    backgrounds = digits.backgrounds.float() / 255
    changed = (images - backgrounds).abs().amax(1) > 0.02
    outside = digits.opacity == 0
    assert not changed[outside].any()
    assert changed[digits.masks].float().mean() > 0.95
    share = digits.masks.float().mean((1, 2))
    assert share.min() > 0.01 and share.max() < 0.25
    assert images.min() >= 0 and images.max() <= 1


def test_items_and_the_fade():
    digits = tb.DigitsInPhotographs("train", 3)
    item = digits[1]
    assert item["image"].shape == (3, 64, 64)
    assert item["mask"].dtype == torch.bool
    assert item["id"] == "digits-train-00001"
    flat = digits.compose(slice(0, 3), fade=0.0)
    outside = digits.opacity[0] == 0
    assert flat[0][:, outside].std(1).max() < 1e-6


def test_two_digits_are_both_there_and_apart():
    test = tb.DigitsInPhotographs("test", 40)
    pairs = two_digits(test, 10)
    assert len(pairs) == 10
    for item in pairs:
        first, second = item["masks"]
        assert item["labels"][0] != item["labels"][1]
        assert not (first & second).any() and first.any() and second.any()
        i, j = (int(n) for n in item["id"].removeprefix("digits-test-").split("+"))
        assert (int(test.labels[i]), int(test.labels[j])) == item["labels"]
        assert torch.equal(second, test.masks[j])
        outside = test.opacity[j] == 0
        assert torch.equal(item["image"][:, outside], test[i]["image"][:, outside])
        share = test.opacity[j][None].float() / 255
        expected = test[i]["image"] * (1 - share) + test.colours[j][:, None, None] * share
        assert torch.allclose(item["image"], expected, atol=1e-6)
    again = two_digits(test, 10)
    assert all(torch.equal(a["image"], b["image"]) for a, b in zip(pairs, again, strict=True))
