"""Scaling, selection with ties, and the two masking orders."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import ttame_core as tt
from ttame_core.masking import ranks


def standardise(x):
    return (x - 0.5) / 0.25


def test_both_orders():
    images = torch.full((1, 3, 4, 4), 0.75)  # standardised: 1
    masks = torch.zeros(1, 4, 4)
    masks[0, 0, 0] = 0.5
    first = tt.mask_images(images, masks, standardise, "image")
    assert first[0, 0, 0, 0] == (0.375 - 0.5) / 0.25
    assert first[0, 0, 1, 1] == -2  # black, standardised
    second = tt.mask_images(images, masks, standardise, "standardised")
    assert second[0, 0, 0, 0] == 0.5
    assert second[0, 0, 1, 1] == 0  # the mean colour
    assert torch.equal(images, torch.full((1, 3, 4, 4), 0.75))


def test_unknown_order_and_wrong_masks():
    with pytest.raises(tt.TTAMEError, match="did you mean 'image'"):
        tt.mask_images(torch.rand(1, 3, 4, 4), torch.rand(1, 4, 4), standardise, "imag")
    with pytest.raises(tt.TTAMEError, match="one an image"):
        tt.mask_images(torch.rand(2, 3, 4, 4), torch.rand(1, 4, 4), standardise, "image")


def test_minmax():
    maps = torch.tensor([[[1.0, 3.0], [2.0, 1.0]], [[5.0, 5.0], [5.0, 5.0]]])
    assert torch.equal(tt.minmax(maps)[0], torch.tensor([[0, 1.0], [0.5, 0]]))
    assert torch.equal(tt.minmax(maps)[1], torch.zeros(2, 2))


@pytest.mark.happens("Training and explaining", "a map with a value that is no number", "stays so")
def test_a_map_that_is_no_number_is_not_made_one_of_zeros():
    maps = torch.rand(2, 4, 4)
    maps[1, 2, 3] = torch.nan
    assert tt.minmax(maps)[1].isnan().all() and not tt.minmax(maps)[0].isnan().any()
    constant = torch.full((1, 4, 4), 0.5, requires_grad=True)
    tt.minmax(constant).sum().backward()
    assert constant.grad.isfinite().all()


@settings(max_examples=40, deadline=None)
@given(
    v=st.floats(0, 100), side=st.integers(2, 20), levels=st.integers(1, 5), seed=st.integers(0, 9)
)
def test_exactly_v_percent_whatever_the_ties(v, side, levels, seed):
    maps = torch.randint(0, levels, (3, side, side), generator=torch.Generator().manual_seed(seed))
    chosen = tt.select_top(maps.float(), v, seed)
    assert (chosen.sum((1, 2)) == round(v / 100 * side * side)).all()
    for one, taken in zip(maps, chosen, strict=True):
        if taken.any() and not taken.all():
            assert one[taken].min() >= one[~taken].max()


def test_a_map_that_is_60_percent_zeros_loses_no_more_than_asked():
    maps = (torch.rand(1, 50, 50) - 0.6).clamp(min=0)
    for v in range(10, 100, 10):
        assert tt.select_top(maps, v).sum() == v * 25


def test_ranks_do_not_depend_on_the_batch():
    maps = torch.randint(0, 3, (4, 6, 6)).float()
    assert torch.equal(ranks(maps)[2], ranks(maps[2:3])[0])
    assert not torch.equal(ranks(torch.zeros(1, 6, 6), 0), ranks(torch.zeros(1, 6, 6), 1))


def test_keep_top_keeps_soft_values():
    maps = torch.rand(2, 10, 10)
    kept = tt.keep_top(maps, 15)
    assert ((kept == 0) | (kept == maps)).all()
    assert (kept > 0).sum() == 30


@pytest.mark.parametrize("v", [-1, 101])
def test_percentages_out_of_range(v):
    with pytest.raises(tt.TTAMEError, match=str(v)):
        tt.select_top(torch.rand(1, 4, 4), v)
