"""Loss terms against closed forms; the draw of other classes."""

import math

import pytest
import torch

import ttame_core as tt
from ttame_core.losses import (
    area_loss,
    generalized_cross_entropy,
    in_batch_other_classes,
    released_variation_loss,
    sample_other_classes,
    variation_loss,
)


def test_area_of_constant_maps():
    assert area_loss(torch.full((2, 3, 4, 4), 0.25)).item() == pytest.approx(0.2505**0.3)
    maps = torch.tensor([0.0, 1.0]).view(1, 2, 1, 1)
    assert area_loss(maps, power=2).item() == pytest.approx((0.0005**2 + 1.0005**2) / 2)


def test_variation_by_hand():
    maps = torch.tensor(
        [[[[0.0, 1.0], [2.0, 4.0]]]]
    )  # vertical 4 + 9, horizontal 1 + 4, four values
    assert variation_loss(maps).item() == pytest.approx(18 / 8)
    assert variation_loss(torch.ones(2, 2, 5, 5)) == 0


def test_total_is_the_weighted_sum():
    logits = torch.zeros(2, 4)
    maps = torch.zeros(2, 2, 2, 2)
    maps[..., 0, 0] = 1.0
    weights = tt.LossWeights(ce=3.0, area=5.0, variation=7.0, power=1.0)
    terms = tt.ttame_loss(logits, torch.tensor([0, 3]), maps, weights)
    assert terms.ce.item() == pytest.approx(math.log(4))
    assert terms.area.item() == pytest.approx(0.25 + 5e-4)
    assert terms.variation.item() == pytest.approx(2 / 8)
    assert terms.total.item() == pytest.approx(3 * math.log(4) + 5 * (0.2505 + 7 * 0.25))


def test_the_defaults_are_the_papers():
    assert tt.LossWeights() == tt.LossWeights(1.5, 2.0, 0.005, 0.3)


@pytest.mark.parametrize(("count", "drawn"), [(3, 3), (9, 9), (40, 9)])
def test_other_classes_are_distinct_and_never_the_truth(count, drawn):
    truth = torch.arange(10).repeat(20)
    others = sample_other_classes(truth, 10, count, torch.Generator().manual_seed(0))
    assert others.shape == (200, drawn)
    for own, row in zip(truth.tolist(), others.tolist(), strict=True):
        assert own not in row
        assert len(set(row)) == drawn
        assert set(row) <= set(range(10))
    if drawn < 9:
        assert torch.bincount(others.flatten(), minlength=10).min() > 30  # about 60 each


def test_other_classes_in_the_batch():
    others = in_batch_other_classes(torch.tensor([4, 5, 6]))
    assert [sorted(row) for row in others.tolist()] == [[5, 6], [4, 6], [4, 5]]


def test_one_class_has_no_others():
    with pytest.raises(tt.TTAMEError, match="1 class"):
        sample_other_classes(torch.tensor([0]), 1, 1, torch.Generator())


def test_the_confidence_lost_by_hand_and_where_nothing_is_left():
    kept = torch.tensor([1.0, 0.25, 0.0])
    logits = torch.stack([kept, 1 - kept], 1).log().requires_grad_()
    truth = torch.zeros(3, dtype=torch.int64)
    lost = generalized_cross_entropy(logits, truth, 0.5)
    assert lost.item() == pytest.approx((0 + 1 + 2) / 3)
    lost = generalized_cross_entropy(logits, truth, 1.0)
    assert lost.item() == pytest.approx((0 + 0.75 + 1) / 3)
    some = torch.randn(8, 5, generator=torch.Generator().manual_seed(0)).double()
    ends = [generalized_cross_entropy(some, torch.arange(8) % 5, q) for q in (1e-7, 0)]
    torch.testing.assert_close(*ends, rtol=1e-6, atol=0)  # the cross-entropy is its limit
    # where cross-entropy would be infinite, its slope is none
    far = torch.tensor([[-200.0, 200.0], [0.0, 0.0]], requires_grad=True)
    generalized_cross_entropy(far, torch.tensor([0, 0]), 0.5).backward()
    assert not far.grad[0].any() and far.grad[1, 0] == pytest.approx(-(0.5**0.5) * 0.5 / 2)


def test_the_released_variation_term_by_hand():
    # four border lines of four values: 0.3 * 16 * 0.25 / 2
    flat = torch.full((1, 1, 4, 4), 0.5)
    assert released_variation_loss(flat).item() == pytest.approx(0.6)
    # and it adds up over the maps of an image, and is averaged over images
    assert released_variation_loss(flat.expand(3, 5, 4, 4)).item() == pytest.approx(5 * 0.6)
    # a corner is on two lines; its two neighbours differ by 2 from it
    corner = torch.zeros(1, 1, 3, 3)
    corner[..., 0, 2] = 2
    assert released_variation_loss(corner).item() == pytest.approx((2 * 4 + 0.3 * 2 * 4) / 2)
    edge, inside = torch.zeros(2, 1, 1, 3, 3)
    edge[..., 1, 0] = inside[..., 1, 1] = 2
    assert released_variation_loss(edge).item() == pytest.approx((3 * 4 + 0.3 * 4) / 2)
    assert released_variation_loss(inside).item() == pytest.approx(4 * 4 / 2)


def test_the_released_variation_of_equal_shares_averages_to_that_of_the_batch():
    maps = torch.rand(6, 6, 5, 4)
    of_shares = torch.stack([released_variation_loss(share) for share in maps.split(2)])
    assert torch.allclose(of_shares.mean(), released_variation_loss(maps))


def test_the_released_variation_term_stands_in_the_loss_by_its_own_weight():
    maps, logits, truth = torch.rand(2, 3, 5, 4), torch.randn(2, 3), torch.tensor([0, 1])
    terms = tt.ttame_loss(logits, truth, maps, tt.LossWeights(released_variation=True))
    expected = 1.5 * terms.ce + 2 * terms.area + 0.01 * released_variation_loss(maps)
    assert torch.allclose(terms.total, expected)
