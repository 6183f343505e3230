"""Layers of a frozen classifier on a CPU, with weights laid out once as oneDNN wants them.

PyTorch lays weights out anew in every call, and multiplies tokens by MKL, which runs at two thirds
of oneDNN's speed on processors that are not Intel's. Gradients reach inputs alone.
"""

import math
import platform
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from ttame_core.classifiers import winograd

FEW = 4
"""Channels of an image, or so: the gradient of a strided convolution is slow there."""
TOKENS = 600
"""So many are attended to in plain products, whose memory grows with their square: in bfloat16
PyTorch's own kernel takes twice as long there and back on a CPU."""


def pack(model: nn.Module) -> None:
    """Turn convolutions, linear layers and self-attention of a twin into packed ones, in place.

    What they are given may be of any size; what oneDNN does not take runs as it always did.
    """
    if not at_hand():
        return
    for module in model.modules():
        kind = PACKED.get(type(module))
        if kind is not None and not hasattr(module, "parametrizations"):
            module.__class__ = kind  # names, weights and hooks stay
            module._packed = {}  # type: ignore[assignment]


class PackedConv2d(nn.Conv2d):
    """A convolution of ``(B, C, H, W)``."""

    _packed: dict[str, Tensor]

    def forward(self, x: Tensor) -> Tensor:
        """Convolve."""
        named = self.padding_mode != "zeros" or isinstance(self.padding, str)
        if named or x.ndim != 4 or not served(x, self.weight):
            return super().forward(x)
        return Packed.apply(x, self) if wants_gradient(x) else self.run(x)

    def run(self, x: Tensor) -> Tensor:
        """Convolve where no gradient is wanted."""
        how = self.padding, self.stride, self.dilation, self.groups
        return self.convolved("forward", x, lambda: self.weight, self.bias, *how)

    def gradient(self, grad: Tensor, shape: Sequence[int]) -> Tensor:
        """Compute the gradient of an input of a shape."""
        reach = [d * (k - 1) for d, k in zip(self.dilation, self.kernel_size, strict=True)]
        rest = [r - p for r, p in zip(reach, self.sides, strict=True)]
        down, across = self.stride
        if min(rest) >= 0 and (down == across == 1 or self.kernel_size == (1, 1)):
            # a convolution with kernels turned round; of 1 x 1, strides leave pixels out
            turned = rest, (1, 1), self.dilation, self.groups
            seen = self.convolved("gradient", grad, self.turned, None, *turned)
            if down == across == 1:
                return seen
            made = torch.empty(shape, dtype=grad.dtype, memory_format=torch.channels_last).zero_()
            made[..., ::down, ::across] = seen
            return made
        square = len({*self.kernel_size}) == len({*self.stride}) == len({*self.sides}) == 1
        if square and self.in_channels <= FEW and self.groups == self.dilation[0] == 1:
            return self.gradient_by_phases(grad, shape)
        blank = grad.new_empty(1).expand(shape)  # only its shape is looked at
        how = self.stride, self.padding, self.dilation, False, [0, 0], self.groups
        wanted = [True, False, False]
        return torch.ops.aten.convolution_backward(grad, blank, self.weight, None, *how, wanted)[0]

    @property
    def sides(self) -> tuple[int, ...]:
        """How many rows and columns of zeros are put at each side."""
        return tuple(int(p) for p in self.padding)

    def turned(self) -> Tensor:
        """Swap inputs and outputs of the kernels, and turn them by half a circle."""
        grouped = self.weight.unflatten(0, (self.groups, -1)).transpose(1, 2)
        return grouped.flatten(0, 1).flip(2, 3)

    def gradient_by_phases(self, grad: Tensor, shape: Sequence[int]) -> Tensor:
        """Compute every s-th pixel of the gradient, from each of the s x s first ones, at once.

        Each is a convolution of stride 1 with the part of the kernel that reaches it.
        """
        (s, _), p, k = self.stride, self.sides[0], self.kernel_size[0]
        low, high = math.ceil((p - k + 1) / s), (s - 1 + p) // s

        def kernels() -> Tensor:
            n = high - low + 1
            parts = self.weight.new_zeros(self.in_channels, s, s, self.out_channels, n, n)
            # pixel s * q + f meets the output q + d through the kernel's place f + p - s * d
            places = [(f, d, f + p - s * d) for f in range(s) for d in range(low, high + 1)]
            places = [place for place in places if 0 <= place[2] < k]
            for f, d, y in places:
                for g, e, x in places:
                    parts[:, f, g, :, d - low, e - low] = self.weight[:, :, y, x].t()
            return parts.flatten(0, 2)

        height, width = shape[-2:]
        rows, columns = math.ceil(height / s), math.ceil(width / s)
        margins = [-low, columns - 1 + high - (grad.shape[-1] - 1)]
        margins += [-low, rows - 1 + high - (grad.shape[-2] - 1)]
        grad = F.pad(grad, margins)
        each = self.convolved("gradient", grad, kernels, None, [0, 0], (1, 1), (1, 1), 1)
        return F.pixel_shuffle(each, s)[..., :height, :width]

    def convolved(
        self, key: str, x: Tensor, kernels: Callable[[], Tensor], bias: Tensor | None, *how: Any
    ) -> Tensor:
        """Convolve with kernels that are packed when they are first asked for."""
        padding, *rest = how  # stride, dilation, groups
        quick = winograd.pays(self.weight, *rest)
        x = x.contiguous(memory_format=torch.channels_last)
        if key not in self._packed:
            dense = kernels().detach().contiguous(memory_format=torch.channels_last)
            pack_kernel = torch.ops.mkldnn._reorder_convolution_weight
            self._packed[key] = (
                winograd.transformed(dense) if quick else pack_kernel(dense, *how, list(x.shape))
            )
        if quick:
            return winograd.convolve(x, self._packed[key], bias, padding)
        convolve = torch.ops.mkldnn._convolution_pointwise
        return convolve(x, self._packed[key], bias, *how, "none", [], "")


class PackedLinear(nn.Linear):
    """A linear layer of ``(..., D)``."""

    _packed: dict[str, Tensor]

    def forward(self, x: Tensor) -> Tensor:
        """Multiply and add."""
        if x.ndim < 2 or not served(x, self.weight) or (x.dtype == torch.float32 and by_mkl()):
            return super().forward(x)
        rows = x.reshape(-1, x.shape[-1])
        product = Packed.apply(rows, self) if wants_gradient(x) else self.run(rows)
        return product.view(*x.shape[:-1], -1)

    def run(self, x: Tensor) -> Tensor:
        """Multiply and add where no gradient is wanted."""
        return self.multiplied("forward", x, self.weight, self.bias)

    def gradient(self, grad: Tensor, shape: Sequence[int]) -> Tensor:
        """Compute the gradient of an input of a shape."""
        return self.multiplied("gradient", grad, self.weight.t(), None)

    def multiplied(self, key: str, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """Multiply rows by a matrix that is packed when it is first asked for."""
        if key not in self._packed:
            dense = weight.detach().contiguous()
            self._packed[key] = torch.ops.mkldnn._reorder_linear_weight(dense, len(x))
        return torch.ops.mkldnn._linear_pointwise(x, self._packed[key], bias, "none", [], "")


class PackedAttention(nn.MultiheadAttention):
    """Self-attention of ``(B, N, D)``, where its weights are asked for by nobody."""

    _packed: dict[str, PackedLinear]

    def forward(self, query: Tensor, key: Tensor, value: Tensor, *args: Any, **options: Any) -> Any:
        """Attend."""
        own = query is key is value and not args and options == {"need_weights": False}
        plain = self._qkv_same_embed_dim and self.bias_k is None and not self.add_zero_attn
        if not (own and plain and self.batch_first and query.ndim == 3):
            return super().forward(query, key, value, *args, **options)
        if not self._packed:
            self._packed["in"] = linear(self.in_proj_weight, self.in_proj_bias)
            self._packed["out"] = linear(self.out_proj.weight, self.out_proj.bias)
        heads = self._packed["in"](query).unflatten(-1, (3, self.num_heads, -1))
        q, k, v = heads.transpose(1, 3).unbind(2)  # (B, heads, N, D / heads) each
        if q.is_cpu and q.dtype == torch.bfloat16 and wants_gradient(q) and q.shape[2] <= TOKENS:
            attended = (q * q.shape[-1] ** -0.5 @ k.mT).softmax(-1) @ v
        else:
            attended = F.scaled_dot_product_attention(q, k, v)
        return self._packed["out"](attended.transpose(1, 2).flatten(2)), None


class Packed(torch.autograd.Function):
    """A packed layer that gradients of its input are asked of."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, layer: Any) -> Tensor:
        ctx.layer, ctx.shape = layer, x.shape
        return layer.run(x)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return ctx.layer.gradient(grad, ctx.shape), None


PACKED: dict[type, type] = {
    nn.Conv2d: PackedConv2d,
    nn.Linear: PackedLinear,
    nn.MultiheadAttention: PackedAttention,
}


@cache
def at_hand() -> bool:
    """Say whether this torch has oneDNN; its functions are private, and may be others one day."""
    conv, rows = nn.Conv2d(1, 1, 1), torch.zeros(1, 1)
    dense: Any = nn.Linear(1, 1)
    for layer, kind in ((conv, PackedConv2d), (dense, PackedLinear)):
        layer.__class__, layer._packed = kind, {}  # type: ignore[assignment]
    try:
        with torch.no_grad():
            conv(rows[..., None, None]), dense.run(rows)
    except (AttributeError, RuntimeError, TypeError):
        return False
    return torch.backends.mkldnn.is_available()


@cache
def by_mkl() -> bool:
    """Say whether PyTorch's own product of tokens is the faster: by MKL, on Intel's processors."""
    told = platform.processor()
    with suppress(OSError):  # where Linux tells it
        told += Path("/proc/cpuinfo").read_text()
    return "GenuineIntel" in told and torch.backends.mkl.is_available()


def linear(weight: Any, bias: Any) -> PackedLinear:
    """Make a packed linear layer of weights that are there."""
    layer: Any = nn.Linear(1, 1)
    layer.weight, layer.bias = weight, bias
    pack(layer)
    return layer


def served(x: Tensor, weight: Tensor) -> bool:
    """Say whether oneDNN takes an input as it comes."""
    same = x.is_cpu and x.dtype == weight.dtype and x.dtype in (torch.float32, torch.bfloat16)
    # who follows operations, to count their products, knows PyTorch's alone
    followed = torch._C._len_torch_dispatch_stack() > 0 or torch.is_autocast_enabled("cpu")
    return same and x.numel() > 0 and not followed


def wants_gradient(x: Tensor) -> bool:
    """Say whether a gradient is to go through a call."""
    return torch.is_grad_enabled() and x.requires_grad
