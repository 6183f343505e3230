"""IIA of a CNN, by hand."""

import itertools

import pytest
import torch
from torch import nn

import ttame_core as tt
from tests.ttame_core.methods.written_out import HEAD, by_hand
from ttame_core.errors import NotServedError
from ttame_core.images.reading import Preprocessing
from ttame_core.masking import minmax
from ttame_core.methods import iia
from ttame_core.methods.iia import summed_gradients


def test_gradients_are_taken_and_weighed_at_each_step_from_the_minimum(quadratic):
    maps = torch.rand(2, 3, 4, 4, dtype=torch.float64)  # which are the images
    scales = torch.tensor([0, 0.25, 1], dtype=torch.float64)
    low = maps.amin((2, 3), keepdim=True)
    rise = maps - low
    # sum over s of weight x (1 + low + s rise) x s rise
    expected = quadratic.model.weight[[1, 0]] * rise * (1.25 * (1 + low) + 1.0625 * rise)
    found = summed_gradients(quadratic, "tap", maps, torch.tensor([1, 0]), scales)
    assert torch.allclose(found, expected.sum(1), rtol=1e-10, atol=1e-10)


def test_iia_of_a_cnn_by_hand(quadratic):
    image = torch.rand(1, 3, 4, 4, dtype=torch.float64)
    low = image.amin((2, 3), keepdim=True)
    rise = image - low
    expected = torch.zeros(1, 4, 4)
    for i, j in itertools.product(range(11), range(11)):
        step = i / 10 * j / 10 * rise
        expected = expected + (quadratic.model.weight[1] * (1 + i / 10 * low + step) * step).sum(1)
    found = tt.method("iia", quadratic)(image, torch.tensor([1]))
    assert torch.allclose(found, minmax(expected), atol=1e-6)  # tenths are in single precision


@pytest.mark.parametrize(
    ("chunk", "suits", "most"), [(1, 8, 1), (3, 8, 3), (11, 8, 11), (25, 8, 22), (None, 1, 4)]
)
def test_no_more_steps_pass_at_once_than_fit_down_to_one(
    quadratic, images, chunk, suits, most, monkeypatch
):
    classes, passed = torch.tensor([1, 0]), []
    whole = tt.method("iia", quadratic, chunk=1000)(images, classes)
    monkeypatch.setattr(iia, "batch_that_suits", lambda images, each: suits)
    quadratic.model.register_forward_hook(lambda model, given, logits: passed.append(len(logits)))
    found = tt.method("iia", quadratic, chunk=chunk)(images, classes)
    assert max(passed) == most and sum(passed) == 2 * 11 * 11
    assert torch.allclose(found, whole, rtol=1e-10, atol=1e-10)


def test_iia_says_when_a_connection_goes_round_the_last_tap():
    class Round(nn.Module):
        def __init__(self):
            super().__init__()
            self.tap = nn.Conv2d(3, 3, 1)

        def forward(self, x):
            return (self.tap(x) + x).mean((2, 3))

    small = Preprocessing(4, 4)
    backbone = tt.Backbone(Round(), ["tap"], name="round", preprocessing=small)
    with pytest.raises(NotServedError, match="goes round the last tap of round"):
        tt.method("iia", backbone)(torch.rand(2, 3, 4, 4), torch.tensor([0, 1]))


@pytest.mark.parametrize("c", [0, 1])
def test_iia_of_a_vit_by_hand(one_block, pixels, c):
    mean = torch.zeros(5)
    for i, j in itertools.product(range(6), range(6)):
        tokens, attention = by_hand(pixels[0], i / 5)
        gradient = tokens @ HEAD[c]  # of the logit w.r.t. the class token's row of the attention
        mean += (gradient * attention * j / 5).relu() / 36
    expected = minmax((mean[1:] / (1 + mean.sum())).view(2, 2))
    found = tt.method("iia", one_block)(pixels, torch.tensor([c]))
    assert torch.allclose(found[0], expected, atol=1e-5)
