"""Winograd's convolution: kernels of 3 x 3 with a quarter of the multiplications, on a CPU.

F(4 x 4, 3 x 3) of Lavin & Gray (CVPR 2016): tiles of 6 x 6 pixels and kernels are transformed, all
channels of a place are multiplied as matrices, and what comes out is transformed into tiles of 4 x
4. oneDNN has it for some processors only. Rounding is some five times a direct convolution's.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

CHANNELS = 128
"""With fewer, of input or output, the transforms take what the multiplications save."""
CACHED = 2**21
"""Numbers of transformed tiles at a time, 8 MB: more leave a processor's cache."""
# the transforms of a line, for interpolation at 0, 1, -1, 2, -2 and infinity
_TILE = [
    [4, 0, -5, 0, 1, 0],
    [0, -4, -4, 1, 1, 0],
    [0, 4, -4, -1, 1, 0],
    [0, -2, -1, 2, 1, 0],
    [0, 2, -1, -2, 1, 0],
    [0, 4, 0, -5, 0, 1],
]
_KERNEL = [[6, 0, 0], [-4, -4, -4], [-4, 4, -4], [1, 2, 4], [1, -2, 4], [0, 0, 24]]  # / 24
_RESULT = [[1, 1, 1, 1, 1, 0], [0, 1, -1, 2, -2, 0], [0, 1, 1, 4, 4, 0], [0, 1, -1, 8, -8, 1]]


def pays(weight: Tensor, stride: tuple, dilation: tuple, groups: int) -> bool:
    """Say whether a convolution with weights ``(O, C, h, w)`` is one that this is faster for."""
    plain = tuple(stride) == tuple(dilation) == (1, 1) and groups == 1
    fits = weight.shape[2:] == (3, 3) and min(weight.shape[:2]) >= CHANNELS
    return plain and fits and weight.dtype == torch.float32


def transformed(weight: Tensor) -> Tensor:
    """Transform kernels ``(O, C, 3, 3)`` to ``(36, C, O)``."""
    line = torch.tensor(_KERNEL, dtype=torch.float64) / 24
    places = torch.einsum("ai,ocij,bj->abco", line, weight.double(), line)
    return places.flatten(0, 1).to(weight.dtype).contiguous()


def convolve(x: Tensor, kernels: Tensor, bias: Tensor | None, padding: tuple[int, int]) -> Tensor:
    """Convolve ``(B, C, H, W)`` with transformed kernels, zeros put at each side."""
    below, beside = padding
    channels, outputs = kernels.shape[1:]
    height, width = x.shape[2] + 2 * below - 2, x.shape[3] + 2 * beside - 2
    down, across = -(-height // 4), -(-width // 4)  # tiles
    margins = [0, 0, beside, 4 * across + 2 - beside - x.shape[3]]
    margins += [below, 4 * down + 2 - below - x.shape[2]]
    x = F.pad(x.permute(0, 2, 3, 1), margins)  # (B, 4 * down + 2, 4 * across + 2, C)
    tile, result = (torch.tensor(line, dtype=x.dtype) for line in (_TILE, _RESULT))
    tile, result = torch.kron(tile, tile), torch.kron(result, result)  # (36, 36), (16, 36)
    shape = len(x), outputs, 4 * down, 4 * across
    made = torch.empty(shape, dtype=x.dtype, memory_format=torch.channels_last)
    tiled = made.permute(0, 2, 3, 1).view(len(x), down, 4, across, 4, outputs)
    tiles = CACHED // (36 * max(channels, outputs))
    images, lines = max(1, tiles // (down * across)), max(1, min(down, tiles // across))
    for i in range(0, len(x), images):
        for y in range(0, down, lines):
            part = x[i : i + images, 4 * y : 4 * (y + lines) + 2]
            n, m = len(part), part.shape[1] // 4
            image, row, column, channel = part.stride()
            windows = 6, 6, n, m, across, channels
            steps = row, column, image, 4 * row, 4 * column, channel  # tiles overlap by two pixels
            places = part.as_strided(windows, steps).reshape(36, -1)
            places = (tile @ places).view(36, -1, channels)
            products = torch.bmm(places, kernels).view(36, -1)  # (36, n * m * across * O)
            whole = (result @ products).view(4, 4, n, m, across, outputs)
            if bias is not None:
                whole += bias  # while a cache has it
            tiled[i : i + images, y : y + lines] = whole.permute(2, 3, 0, 4, 1, 5)
    exact = made.shape[2:] == (height, width)  # else a copy: no view may be changed in place
    return made if exact else made[:, :, :height, :width].clone(memory_format=torch.channels_last)
