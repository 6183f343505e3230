"""Winograd's convolution: what it convolves to, wherever its tiles and chunks end."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from tests.ttame_core.classifiers.test_packed import assert_the_same
from ttame_core.classifiers import winograd

SHAPES = [(1, 4, 4), (2, 7, 7), (3, 14, 9), (2, 1, 5), (1, 17, 30)]


def convolved(x, weight, bias=None, padding=(1, 1)):
    return winograd.convolve(x, winograd.transformed(weight), bias, padding)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("padding", [(1, 1), (2, 1)])
def test_it_is_the_convolution(shape, padding):
    torch.manual_seed(0)
    count, height, width = shape
    x = torch.randn(count, 5, height, width).to(memory_format=torch.channels_last)
    weight, bias = torch.randn(7, 5, 3, 3), torch.randn(7)
    expected = F.conv2d(x.double(), weight.double(), bias.double(), padding=padding)
    found = convolved(x, weight, bias, padding)
    assert found.shape == expected.shape
    assert found.is_contiguous(memory_format=torch.channels_last) and not found._is_view()
    assert (found - expected).abs().max() <= 1e-5 * expected.abs().max()


def test_kernels_of_whole_numbers_are_convolved_exactly():
    """The transforms hold no other fractions than 24ths, whose squares these kernels take up."""
    x = torch.randint(-3, 4, (2, 3, 10, 10)).float()
    weight = 576.0 * torch.randint(-2, 3, (4, 3, 3, 3))
    assert torch.equal(convolved(x, weight), F.conv2d(x, weight, padding=1))


@pytest.mark.parametrize("tiles", [1, 5, 12, 30])
def test_chunks_change_nothing(tiles, monkeypatch):
    torch.manual_seed(0)
    x, weight = torch.randn(3, 4, 15, 11), torch.randn(6, 4, 3, 3)
    whole = convolved(x, weight)
    monkeypatch.setattr(winograd, "CACHED", 36 * 6 * tiles)
    # products of other sizes are rounded otherwise, and the transform adds some of them eightfold;
    # tiles that a chunk left out or moved would differ by as much as the values themselves
    close = 32 * torch.finfo(torch.float32).eps * whole.abs().max().item()
    torch.testing.assert_close(convolved(x, weight), whole, rtol=0, atol=close)
    assert not convolved(x, weight)._is_view()


@pytest.mark.parametrize("width", [winograd.CHANNELS, winograd.CHANNELS - 1])
def test_a_packed_layer_takes_it_where_it_pays(width):
    torch.manual_seed(0)
    layer = nn.Conv2d(winograd.CHANNELS, width, 3, padding=1)
    packed = assert_the_same(layer, winograd.CHANNELS, 9, 6, close=5e-5)  # it rounds more
    by_winograd = [len(kernel) == 36 for kernel in packed._packed.values()]
    assert by_winograd == [width == winograd.CHANNELS] * 2
