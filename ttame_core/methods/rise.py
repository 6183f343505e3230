"""RISE: the mean of random masks, weighted by the confidence each leaves."""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from ttame_core.classifiers.backbone import Backbone
from ttame_core.classifiers.checks import check_chunk
from ttame_core.classifiers.fast import batch_that_suits
from ttame_core.errors import (
    TTAMEError,
    check_kind,
    check_known,
    check_number,
    check_seed,
    check_whole,
)
from ttame_core.masking import mask_images, minmax, smooth_masks
from ttame_core.methods import Method
from ttame_core.progress import Tell
from ttame_core.recipes import ORDERS


def rise(
    backbone: Backbone,
    masks: int = 4000,
    cells: int = 7,
    p: float = 0.5,
    seed: int = 0,
    chunk: int | None = None,
    progress: Tell | None = None,
    masking: str | None = None,
    logits: bool = False,
) -> Method:
    """RISE (Petsiuk et al., BMVC 2018), maps ``(B, H, W)``; the backbone's own procedure masks.

    Two departures are on purpose. RISE's own code masks the standardised image, of any classifier:
    ``masking="standardised"``. By a CNN's own procedure what is hidden is black, not the mean
    colour. T-TAME's authors weigh masks by logits, ``logits=True``, and the paper by confidences.

    ``masks`` is N, in the paper 4000 for VGG-16 and 8000 for ResNet-50 and ViT-B/16; ``cells`` the
    side s of their grids; ``p`` the probability that a cell shows, 0 to 1. All images get the same
    masks. Raises a TTAMEError if there are none, p is not between 0 and 1, or the masking order is
    unknown.
    """
    check_whole("masks", masks, 1)
    check_whole("cells", cells, 1)
    check_seed(seed)
    check_chunk(chunk)
    check_number("p", p, 0, 1)
    if p in (0, 1):
        raise TTAMEError(f"p is {p}; expected a probability between 0 and 1, neither of them")
    check_kind("logits", logits, bool, "True or False")
    check_known("masking", masking, (None, *ORDERS))
    generator = torch.Generator().manual_seed(seed)
    grids = (torch.rand(masks, cells, cells, generator=generator) < p).float()
    shifts = torch.rand(masks, 2, generator=generator)

    def explain(images: Tensor, classes: Tensor) -> Tensor:
        at_once = chunk or batch_that_suits(images)
        masked = partial(answers, backbone, masking=masking, logits=logits)
        return minmax(weighted_masks(masked, images, classes, grids, shifts, p, at_once, progress))

    return explain


def answers(
    backbone: Backbone, images: Tensor, masks: Tensor, masking: str | None, logits: bool
) -> Tensor:
    """Compute softmax scores, or logits, ``(B, K)`` of images masked in an order."""
    order = masking or backbone.masking
    found = backbone.logits(mask_images(images, masks, backbone.standardise, order))
    return found if logits else found.softmax(1)


@torch.no_grad()
def weighted_masks(
    ask: Callable[[Tensor, Tensor], Tensor],
    images: Tensor,
    classes: Tensor,
    grids: Tensor,
    shifts: Tensor,
    p: float,
    chunk: int,
    progress: Tell | None = None,
) -> Tensor:
    """Compute ``sum f_y(m * I) m / (N p)``, ``(B, H, W)``, over the masks of `smooth_masks`.

    ``ask`` gives f of images and masks, ``(n, K)``; y are the classes, and p is the mean of a mask.
    """
    size = images.shape[-2:]
    maps = images.new_zeros(len(images), size[0] * size[1])
    done, chosen = 0, classes.tolist()  # a GPU is waited for once, not for each chunk
    for masks in smooth_masks(grids.to(images), shifts, size, chunk):
        for total, image, c in zip(maps, images, chosen, strict=True):
            scores = ask(image.expand(len(masks), -1, -1, -1), masks)[:, c]
            total += scores @ masks.flatten(1)  # (n,) x (n, HW)
        done += len(masks)
        if progress:
            progress(done, len(grids))
    return maps.view(len(images), *size) / (len(grids) * p)
