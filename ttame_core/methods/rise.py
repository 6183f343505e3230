"""RISE (Petsiuk et al., BMVC 2018): the mean of random masks, weighted by the confidence each leaves."""

import math
from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from ttame_core.backbones import Backbone
from ttame_core.errors import TTAMEError
from ttame_core.layers import batch_that_suits
from ttame_core.masking import minmax
from ttame_core.progress import Tell


def rise(
    backbone: Backbone,
    masks: int = 4000,
    cells: int = 7,
    p: float = 0.5,
    seed: int = 0,
    chunk: int | None = None,
    progress: Tell | None = None,
) -> Callable[[Tensor, Tensor], Tensor]:
    """Make RISE ready for a backbone.

    Parameters
    ----------
    backbone : Backbone
        The classifier to be explained. Its own procedure masks the images.
    masks : int
        N; 4000 for VGG-16 and 8000 for ResNet-50 and ViT-B/16 in the paper.
    cells : int
        Side s of the grids.
    p : float
        Probability that a cell shows, 0 to 1.
    seed : int
        Of the masks, which are the same for every image.
    chunk : int, optional
        Masked images a forward pass; changes memory and speed, not the maps. By default what suits the device.
    progress : callable, optional
        Called with (masks done, masks in all) within a call.

    Returns
    -------
    callable
        ``(images, classes) -> maps`` ``(B, H, W)`` in [0, 1].

    Raises
    ------
    TTAMEError
        If there are no masks, or p is not between 0 and 1.
    """
    if masks < 1 or cells < 1 or not 0 < p < 1:
        raise TTAMEError(
            f"masks {masks}, cells {cells}, p {p}; expected at least 1 of each and p between 0 and 1"
        )
    generator = torch.Generator().manual_seed(seed)
    grids = (torch.rand(masks, cells, cells, generator=generator) < p).float()
    shifts = torch.rand(masks, 2, generator=generator)

    def explain(images: Tensor, classes: Tensor) -> Tensor:
        at_once = chunk or batch_that_suits(images)
        return minmax(
            weighted_masks(backbone, images, classes, grids, shifts, p, at_once, progress)
        )

    return explain


@torch.no_grad()
def weighted_masks(
    backbone: Backbone,
    images: Tensor,
    classes: Tensor,
    grids: Tensor,
    shifts: Tensor,
    p: float,
    chunk: int = 32,
    progress: Tell | None = None,
) -> Tensor:
    """Compute ``sum f_y(m * I) m / (N p)`` over the masks that grids and shifts make.

    Parameters
    ----------
    backbone : Backbone
        The classifier f, softmax scores.
    images : Tensor
        ``(B, 3, H, W)`` in [0, 1].
    classes : Tensor
        ``(B,)`` int64, y.
    grids, shifts : Tensor
        See `smooth_masks`.
    p : float
        Expected value of a mask.
    chunk : int
        Masked images a forward pass.
    progress : callable, optional
        Called with (masks done, masks in all).

    Returns
    -------
    Tensor
        ``(B, H, W)``, not negative.
    """
    size = images.shape[-2:]
    maps = images.new_zeros(len(images), size[0] * size[1])
    done = 0
    for masks in smooth_masks(grids.to(images), shifts, size, chunk):
        for total, image, c in zip(maps, images, classes, strict=True):
            scores = backbone(image.expand(len(masks), -1, -1, -1), masks).softmax(1)[:, c]
            total += scores @ masks.flatten(1)  # (n,) x (n, HW)
        done += len(masks)
        if progress:
            progress(done, len(grids))
    return maps.view(len(images), *size) / (len(grids) * p)


def smooth_masks(
    grids: Tensor, shifts: Tensor, size: tuple[int, int] | torch.Size, chunk: int
) -> Iterator[Tensor]:
    """Yield masks in chunks: grids upsampled to one cell more than the image, shifted, cropped.

    Parameters
    ----------
    grids : Tensor
        ``(N, s, s)``, 0 or 1.
    shifts : Tensor
        ``(N, 2)`` in [0, 1), shares of a cell.
    size : tuple of int
        Height and width of the image.
    chunk : int
        Masks at once.

    Yields
    ------
    Tensor
        ``(n, H, W)`` in [0, 1].
    """
    cells = grids.shape[-1]
    cell = [math.ceil(side / cells) for side in size]
    enlarged = [(cells + 1) * side for side in cell]
    corners = (shifts * torch.tensor(cell)).long().tolist()
    for first in range(0, len(grids), chunk):
        large = F.interpolate(grids[first : first + chunk, None], enlarged, mode="bilinear")[:, 0]
        offsets = corners[first : first + chunk]
        yield torch.stack(
            [m[y : y + size[0], x : x + size[1]] for m, (y, x) in zip(large, offsets, strict=True)]
        )
