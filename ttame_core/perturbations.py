"""One path for every measure that asks the classifier: change images by their maps, score, in chunks."""

from collections.abc import Iterable

import torch
from torch import Tensor
from torchvision.transforms.functional import gaussian_blur

from ttame_core.backbones import Backbone
from ttame_core.errors import TTAMEError, nearest
from ttame_core.imputation import impute
from ttame_core.layers import batch_that_suits
from ttame_core.masking import check_percentage, enlarged, mask_images, ranks

KINDS = ("masked", "morf", "lerf", "insertion", "deletion")
"""Ways to change an image by its map; see `perturb`."""


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

    Parameters
    ----------
    backbone : Backbone
        The classifier.
    images : Tensor
        ``(B, 3, H, W)`` in [0, 1].
    classes : Tensor
        ``(B,)`` int64, or ``(B, K)`` for K classes of each image.
    maps : Tensor
        ``(B, h, w)`` in [0, 1].
    perturbations : iterable of (str, float)
        Kind and percentage v; see `perturb`.
    seed : int
        Of the order among equal map values, and of the imputation's noise.
    chunk : int, optional
        Images a forward pass; bounds the memory, changes the scores by rounding only. By default what suits the device.

    Returns
    -------
    dict of (str, float) to Tensor
        Kind and v to scores in [0, 1], in the shape of ``classes``.

    Raises
    ------
    TTAMEError
        For an unknown kind, a percentage out of range, or maps that are not one an image.
    """
    wanted = list(dict.fromkeys(perturbations))
    for kind, v in wanted:
        if kind not in KINDS:
            raise TTAMEError(f"perturbation {kind!r} is unknown; {nearest(kind, KINDS)}")
        check_percentage(v)
    if maps.ndim != 3 or len(maps) != len(images):
        raise TTAMEError(f"maps are {tuple(maps.shape)}; expected ({len(images)}, h, w)")
    scores: dict[tuple[str, float], list[Tensor]] = {key: [] for key in wanted}
    for part in torch.arange(len(images)).split(chunk or batch_that_suits(images)):
        some, chosen = images[part], classes[part].reshape(len(part), -1)
        large = enlarged(maps[part], images.shape[-2:])
        rank = ranks(large, seed) if any(key != ("masked", 100) for key in wanted) else None
        for key in wanted:
            logits = backbone.logits(perturb(backbone, some, large, rank, *key, seed))
            scores[key].append(logits.softmax(1).gather(1, chosen))
    return {key: torch.cat(parts).reshape(classes.shape) for key, parts in scores.items()}


def perturb(
    backbone: Backbone,
    images: Tensor,
    maps: Tensor,
    rank: Tensor | None,
    kind: str,
    v: float,
    seed: int = 0,
) -> Tensor:
    """Change images by their maps.

    Parameters
    ----------
    backbone : Backbone
        Gives standardisation and masking order.
    images : Tensor
        ``(B, 3, H, W)`` in [0, 1].
    maps : Tensor
        ``(B, H, W)`` in [0, 1].
    rank : Tensor or None
        ``(B, H, W)`` int64, the pixels' `ranks`; not needed to mask by whole maps.
    kind : {"masked", "morf", "lerf", "insertion", "deletion"}
        ``masked``: the top v % of the map, at its soft values, masks the image (AD, IC; Sec. IV-B).
        ``morf``, ``lerf``: the v % most or least relevant pixels are imputed (ROAD, Eq. 22, 23).
        ``deletion``: the top v % become the mean colour. ``insertion``: all but the top v % is blurred
        (both Petsiuk et al., BMVC 2018; sigma 5 px).
    v : float
        Percentage of the pixels, 0 to 100.
    seed : int
        Of the imputation's noise.

    Returns
    -------
    Tensor
        ``(B, 3, H, W)``, standardised.
    """
    if rank is None:
        return mask_images(images, maps, backbone.standardise, backbone.masking)
    pixels = rank[0].numel()
    count = round(v / 100 * pixels)
    top = rank < count
    if kind == "masked":
        return mask_images(images, maps * top, backbone.standardise, backbone.masking)
    if kind == "deletion":
        return backbone.standardise(images) * ~top[:, None]
    if kind == "insertion":
        blurred = gaussian_blur(images, [11, 11], [5.0, 5.0])
        return backbone.standardise(torch.where(top[:, None], images, blurred))
    removed = top if kind == "morf" else rank >= pixels - count
    return backbone.standardise(impute(images, removed, seed=seed))
