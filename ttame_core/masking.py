"""Maps into masks: scaling, upsampling, top-v selection, the two masking orders (Eq. 13, 14)."""

import math
from collections.abc import Callable, Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from ttame_core.errors import TTAMEError, check_known
from ttame_core.recipes import ORDERS

SOFTNESS = 0.2
"""How wide the edge of a soft selection is, in standard deviations of the map."""


def minmax(maps: Tensor) -> Tensor:
    """Scale each map ``(..., h, w)`` of any range to [0, 1].

    A constant map becomes all zeros, and one that holds a NaN all NaN.
    """
    low = maps.amin((-2, -1), keepdim=True)
    span = maps.amax((-2, -1), keepdim=True) - low
    constant = span == 0  # no NaN, which is not 0
    return torch.where(constant, 0.0, (maps - low) / torch.where(constant, 1, span))


def upsample(maps: Tensor, size: Sequence[int]) -> Tensor:
    """Resize maps ``(B, h, w)`` or ``(B, k, h, w)`` to height and width, bilinearly."""
    if maps.shape[-2:] == tuple(size):
        return maps
    if maps.ndim == 3:
        return upsample(maps[:, None], size)[:, 0]
    return F.interpolate(maps, size=tuple(size), mode="bilinear", align_corners=False)


def enlarged(maps: Tensor, size: Sequence[int]) -> Tensor:
    """Upsample maps ``(B, h, w)``; scale each that varies to [0, 1] again, to judge all alike."""
    large = upsample(maps, size)
    constant = large.amax((1, 2)) == large.amin((1, 2))
    return torch.where(constant[:, None, None], large, minmax(large))


def ranks(maps: Tensor, seed: int = 0) -> Tensor:
    """Rank the pixels of each map from the most (0) to the least relevant, ties in a seeded order.

    Takes ``(B, H, W)``; gives ``(B, H, W)`` int64, a permutation of ``0 .. H*W - 1`` each.
    """
    flat = maps.flatten(1)
    generator = torch.Generator().manual_seed(seed)
    # one permutation for all maps: ranks depend on neither the rest of the batch nor the device
    shuffled = torch.randperm(flat.shape[1], generator=generator).to(flat.device)
    order = shuffled[flat[:, shuffled].argsort(dim=1, descending=True, stable=True)]  # (B, HW)
    places = torch.arange(flat.shape[1], device=flat.device).expand_as(order)
    return torch.empty_like(order).scatter_(1, order, places).view(maps.shape)


def select_top(maps: Tensor, v: float, seed: int = 0) -> Tensor:
    """Select exactly ``round(v / 100 * H * W)`` most relevant pixels of each map.

    Takes maps ``(B, H, W)``, a percentage - a TTAMEError is raised outside 0 to 100 - and the seed
    of the order among equal values; gives ``(B, H, W)`` bool. A threshold at a percentile would not
    do: a rectified map may be zero on most pixels.
    """
    check_percentage(v)
    return ranks(maps, seed) < round(v / 100 * maps[0].numel())


def check_percentage(v: float) -> None:
    """Raise a TTAMEError unless v is a percentage."""
    if not 0 <= v <= 100:
        raise TTAMEError(f"v is {v!r}; expected a percentage from 0 to 100")


def keep_top(maps: Tensor, v: float, seed: int = 0) -> Tensor:
    """Keep the top v % of maps ``(B, H, W)`` at their soft values, zero the rest (Sec. IV-B)."""
    return maps if v == 100 else maps * select_top(maps, v, seed)


def soften_top(maps: Tensor, v: Tensor) -> Tensor:
    """Weigh each map's cells by whether they are of its top v %, so that gradients pass the edge.

    Takes maps ``(B, h, w)`` of any range and percentages ``(B,)``; gives ``(B, h, w)`` in [0, 1]:
    0.5 at the percentile, and all but 0 or 1 a standard deviation from it.
    """
    flat = maps.detach().flatten(1)
    last = flat.shape[1] - 1
    places = ((1 - v / 100) * last).round().long()
    edges = flat.sort(1).values.gather(1, places[:, None])
    spread = flat.std(1, keepdim=True).clamp_min(1e-6)
    return torch.sigmoid((maps.flatten(1) - edges) / (SOFTNESS * spread)).view_as(maps)


def mask_images(
    images: Tensor, masks: Tensor, standardise: Callable[[Tensor], Tensor], order: str
) -> Tensor:
    """Apply soft masks to images, before or after standardisation (Eq. 13, 14).

    Parameters
    ----------
    images, masks : Tensor
        ``(B, 3, H, W)`` and ``(B, h, w)`` in [0, 1]; masks are upsampled to the images' size.
    standardise : callable
        Channel-wise standardisation of the backbone.
    order : {"image", "standardised"}
        ``image``: ``|E * I|``. ``standardised``: ``E * |I|``.

    Returns
    -------
    Tensor
        ``(B, 3, H, W)``, standardised. A TTAMEError is raised for masks of another number.
    """
    check_known("masking order", order, ORDERS)
    if masks.ndim != 3 or len(masks) != len(images):
        raise TTAMEError(
            f"masks have shape {tuple(masks.shape)}; expected ({len(images)}, h, w), one an image"
        )
    masks = upsample(masks, images.shape[-2:])[:, None]  # (B, 1, H, W)
    return standardise(masks * images) if order == "image" else masks * standardise(images)


def smooth_masks(
    grids: Tensor, shifts: Tensor, size: tuple[int, int] | torch.Size, chunk: int
) -> Iterator[Tensor]:
    """Yield masks ``(n, H, W)`` in [0, 1], ``chunk`` at a time: grids upsampled, shifted, cropped.

    Takes grids ``(N, s, s)`` of 0 and 1, shifts ``(N, 2)`` in shares of a cell, and H and W.
    """
    cells = grids.shape[-1]
    cell = [math.ceil(side / cells) for side in size]
    # one cell more than the image, cropped at a random place within that cell: where the edges of
    # the cells lie is another thing in each mask, so that their mean shows no grid
    enlarged = [(cells + 1) * side for side in cell]
    corners = (shifts * torch.tensor(cell)).long().tolist()
    for first in range(0, len(grids), chunk):
        large = F.interpolate(grids[first : first + chunk, None], enlarged, mode="bilinear")[:, 0]
        offsets = corners[first : first + chunk]
        yield torch.stack(
            [m[y : y + size[0], x : x + size[1]] for m, (y, x) in zip(large, offsets, strict=True)]
        )
