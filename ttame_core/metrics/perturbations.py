"""One path for all measures that ask the classifier: change images by maps, score, in chunks."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from torchvision.transforms.functional import gaussian_blur

from ttame_core.classifiers.backbone import Backbone
from ttame_core.classifiers.fast import batch_that_suits
from ttame_core.errors import check_known
from ttame_core.masking import check_percentage, enlarged, mask_images, ranks
from ttame_core.metrics.imputation import impute
from ttame_core.metrics.measures import check_maps

KINDS = ("masked", "morf", "lerf", "insertion", "deletion")
"""Ways to change an image by its map; see `perturb`."""
REMOVING = ("morf", "lerf")
"""Those whose removed pixels are imputed (ROAD, Eq. 22, 23)."""


@torch.no_grad()
def perturbed_confidences(
    backbone: Backbone,
    images: Tensor,
    classes: Tensor,
    maps: Tensor,
    perturbations: Iterable[tuple[str, float]],
    seed: int = 0,
    chunk: int | None = None,
) -> dict[tuple[str, float], Tensor]:
    """Compute softmax scores of given classes for images changed by their maps.

    Takes images ``(B, 3, H, W)`` and maps ``(B, h, w)`` in [0, 1], classes ``(B,)`` or ``(B, K)``
    for K of each image, and pairs of kind and percentage v (see `perturb`). Gives scores in [0, 1],
    in the shape of the classes, for each pair.

    ``seed`` decides the order among equal map values and the imputation's noise; ``chunk``, images
    a forward pass, changes the scores by rounding only. Raises a TTAMEError for an unknown kind, a
    percentage out of range, or maps that are not one an image.
    """
    wanted = list(dict.fromkeys(perturbations))
    for kind, v in wanted:
        check_known("perturbation", kind, KINDS)
        check_percentage(v)
    check_maps(maps, len(images))
    scores: dict[tuple[str, float], list[Tensor]] = {key: [] for key in wanted}
    for part in torch.arange(len(images)).split(chunk or batch_that_suits(images)):
        some, chosen = images[part], classes[part].reshape(len(part), -1)
        large = enlarged(maps[part], images.shape[-2:])
        # to mask by whole maps needs no order of the pixels, so that nothing is sorted for it
        rank = ranks(large, seed) if any(key != ("masked", 100) for key in wanted) else None
        # all holes of all images at once: on a GPU what costs is to start, not to solve
        imputed = _imputed(some, rank, [key for key in wanted if key[0] in REMOVING], seed)
        for key in wanted:
            if key in imputed:
                changed = backbone.standardise(imputed[key])
            else:
                changed = perturb(backbone, some, large, rank, *key)
            scores[key].append(backbone.logits(changed).softmax(1).gather(1, chosen))
    return {key: torch.cat(parts).reshape(classes.shape) for key, parts in scores.items()}


def perturb(
    backbone: Backbone, images: Tensor, maps: Tensor, rank: Tensor | None, kind: str, v: float
) -> Tensor:
    """Change images ``(B, 3, H, W)`` by their maps ``(B, H, W)``; the result is standardised.

    ``masked``: the top v % of the map, at its soft values, masks the image (AD, IC; Sec. IV-B).
    ``deletion``: the top v % become the mean colour. ``insertion``: all but the top v % is blurred
    (both Petsiuk et al., BMVC 2018; sigma 5 px). ``rank`` holds the pixels' `ranks`, ``(B, H, W)``
    int64; without it whole maps mask.
    """
    if rank is None:
        return mask_images(images, maps, backbone.standardise, backbone.masking)
    top = removed(rank, "morf", v)
    if kind == "masked":
        return mask_images(images, maps * top, backbone.standardise, backbone.masking)
    if kind == "deletion":
        return backbone.standardise(images) * ~top[:, None]  # 0 here is the mean colour
    blurred = gaussian_blur(images, [11, 11], [5.0, 5.0])
    return backbone.standardise(torch.where(top[:, None], images, blurred))


def _imputed(images: Tensor, rank: Any, keys: list, seed: int) -> dict[tuple, Tensor]:
    """Impute what pairs of kind and percentage remove, images ``(B, 3, H, W)`` of each."""
    if not keys:
        return {}
    holes = torch.cat([removed(rank, *key) for key in keys])
    filled = impute(images.repeat(len(keys), 1, 1, 1), holes, seed=seed)
    return dict(zip(keys, filled.split(len(images)), strict=True))


def removed(rank: Tensor, kind: str, v: float) -> Tensor:
    """Select the v % most (``morf``) or least (``lerf``) relevant pixels, ``(B, H, W)`` bool."""
    pixels = rank[0].numel()
    count = round(v / 100 * pixels)  # exactly, where a threshold would take all ties or none
    return rank < count if kind == "morf" else rank >= pixels - count
