"""Packed layers: the same outputs and the same gradients of inputs as the layers that they replace."""

import copy

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from ttame_core.classifiers import packed as packed_layers
from ttame_core.classifiers.packed import pack

CONVOLUTIONS = {
    "3 x 3": dict(kernel_size=3, padding=1),
    "1 x 1 without a bias": dict(kernel_size=1, bias=False),
    "even kernel": dict(kernel_size=4, padding=1),
    "oblong": dict(kernel_size=(1, 5), padding=(0, 2)),
    "grouped": dict(kernel_size=3, padding=1, groups=2),
    "depthwise": dict(kernel_size=5, padding=2, groups=6),
    "dilated": dict(kernel_size=3, padding=2, dilation=2),
    "padded by more than its reach": dict(kernel_size=1, padding=2),
    "strided": dict(kernel_size=3, padding=1, stride=2),
    "strided, of one pixel": dict(kernel_size=1, stride=2),
    "strided, of one pixel, grouped": dict(kernel_size=1, stride=(1, 3), groups=2),
    "strided, not square": dict(kernel_size=3, padding=(1, 0), stride=(2, 1)),
    "padding by name": dict(kernel_size=3, padding="same"),
    "padded round": dict(kernel_size=3, padding=1, padding_mode="circular"),
}
STEMS = [(7, 2, 3), (3, 2, 1), (3, 2, 0), (11, 4, 2), (16, 16, 0), (4, 4, 0), (2, 3, 0), (1, 2, 0)]
"""Kernel, stride and padding of what stands in front of classifiers."""


def frozen(layer):
    return layer.eval().requires_grad_(False)


def assert_the_same(layer, *shape, dtype=torch.float32, close=1e-5):
    """Compare a layer with itself packed: outputs, and gradients of inputs, for two batch sizes."""
    frozen(layer).to(dtype)
    packed = copy.deepcopy(layer)
    pack(packed)
    for count in (2, 3):
        x = torch.randn(count, *shape, dtype=dtype)
        ours, theirs = x.clone().requires_grad_(), x.clone().requires_grad_()
        expected, found = layer(theirs), packed(ours)
        weights = torch.randn_like(expected)
        (expected * weights).sum().backward()
        (found * weights).sum().backward()
        for a, b in ((found, expected), (ours.grad, theirs.grad), (packed(x), expected)):
            assert a.dtype == dtype and a.shape == b.shape
            assert (a - b).abs().max() <= close * b.abs().max()
    return packed


@pytest.mark.parametrize("options", CONVOLUTIONS.values(), ids=CONVOLUTIONS)
def test_a_convolution_is_the_same_packed(options):
    torch.manual_seed(0)
    packed = assert_the_same(nn.Conv2d(6, 6, **options), 6, 15, 12)
    by_torch = isinstance(options.get("padding"), str) or "padding_mode" in options
    assert bool(packed._packed) == (not by_torch)


@pytest.mark.parametrize(("kernel", "stride", "padding"), STEMS)
@pytest.mark.parametrize("size", [(32, 32), (35, 50)])
def test_the_gradient_of_an_image_is_the_same_by_phases(kernel, stride, padding, size):
    torch.manual_seed(0)
    stem = nn.Conv2d(3, 8, kernel, stride, padding)
    assert set(assert_the_same(stem, 3, *size)._packed) == {"forward", "gradient"}


@pytest.mark.parametrize("intel", [False, True])
@pytest.mark.parametrize("shape", [(6,), (5, 6), (2, 5, 6)])
def test_a_linear_layer_is_the_same_packed_or_by_mkl(shape, intel, monkeypatch):
    monkeypatch.setattr(packed_layers, "by_mkl", lambda: intel)
    torch.manual_seed(0)
    used = set(assert_the_same(nn.Linear(6, 9), *shape)._packed)
    assert used == (set() if intel else {"forward", "gradient"})


class SelfAttention(nn.Module):
    """As torchvision's transformers call it, and otherwise."""

    def __init__(self, need_weights=False, **options):
        super().__init__()
        self.attention = nn.MultiheadAttention(12, 3, **{"batch_first": True} | options)
        self.need_weights = need_weights

    def forward(self, x):
        out, weights = self.attention(x, x, x, need_weights=self.need_weights)
        return out if weights is None else out + weights.mean()


@pytest.mark.parametrize(
    "options",
    [{}, {"bias": False}, {"need_weights": True}, {"batch_first": False}, {"add_zero_attn": True}],
)
def test_attention_is_the_same_packed(options):
    torch.manual_seed(0)
    packed = assert_the_same(SelfAttention(**options), 7, 12)
    assert bool(packed.attention._packed) == (options in ({}, {"bias": False}))


@pytest.mark.parametrize("layer", [nn.Conv2d(3, 6, 3), nn.Linear(8, 6)], ids=["conv", "linear"])
def test_what_onednn_does_not_take_runs_as_it_did(layer):
    assert assert_the_same(copy.deepcopy(layer), 3, 8, 8, dtype=torch.float64)._packed == {}
    packed = copy.deepcopy(frozen(layer))
    pack(packed)
    x = torch.randn(2, 3, 8, 8)
    with torch.autocast("cpu", torch.bfloat16):
        assert packed(x).dtype == layer(x).dtype == torch.bfloat16
    assert torch.equal(packed(x[0]), layer(x[0])) or packed._packed  # an image without a batch
    assert packed(x[:0]).shape == layer(x[:0]).shape


def test_a_counter_of_operations_sees_all_of_them():
    layer = frozen(nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(4 * 36, 5)))
    pack(layer)
    x = torch.randn(2, 3, 8, 8, requires_grad=True)
    with FlopCounterMode(display=False) as counter:
        layer(x)
    forward = counter.get_total_flops()
    with counter:
        layer(x).sum().backward()
    assert (
        forward == 2 * 2 * (4 * 27 * 36 + 4 * 36 * 5) and counter.get_total_flops() == 2 * forward
    )


def test_bfloat16_is_served():
    torch.manual_seed(0)
    assert assert_the_same(nn.Conv2d(6, 6, 3), 6, 8, 8, dtype=torch.bfloat16, close=0.02)._packed
    assert assert_the_same(nn.Linear(6, 6), 4, 6, dtype=torch.bfloat16, close=0.02)._packed


@pytest.mark.parametrize("most", [6, 7], ids=["by PyTorch's kernel", "in plain products"])
def test_attention_is_the_same_in_bfloat16(most, monkeypatch):
    monkeypatch.setattr("ttame_core.classifiers.packed.TOKENS", most)
    torch.manual_seed(0)
    assert_the_same(SelfAttention(), 7, 12, dtype=torch.bfloat16, close=0.05)


def test_what_changes_a_packed_output_in_place_does_not_hurt_the_gradient():
    torch.manual_seed(0)
    assert_the_same(nn.Sequential(nn.Linear(6, 6), nn.ReLU(inplace=True), nn.Linear(6, 6)), 6)
    assert_the_same(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(inplace=True)), 3, 8, 8)


def test_other_kinds_of_layers_are_left():
    class Own(nn.Linear):
        pass

    layers = nn.Sequential(Own(3, 3), nn.Conv1d(3, 3, 1), nn.LayerNorm(3))
    pack(layers)
    assert [type(layer) for layer in layers] == [Own, nn.Conv1d, nn.LayerNorm]
