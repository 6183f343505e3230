"""The measures, one row an image: AD, IC (Sec. IV-B) and localisation against ground truth."""

from collections.abc import Callable, Iterable, Sequence

import pandas as pd
import torch
from torch import Tensor

from ttame_core.backbones import Backbone
from ttame_core.errors import TTAMEError
from ttame_core.masking import keep_top, minmax, upsample

PERCENTAGES = (100, 50, 15)
"""v of AD(v) and IC(v) in Tables II and III."""


@torch.no_grad()
def confidences(
    backbone: Backbone,
    images: Tensor,
    classes: Tensor,
    masks: Tensor | None = None,
    chunk: int = 64,
) -> Tensor:
    """Compute softmax scores of given classes for images, masked or as they are.

    Parameters
    ----------
    backbone : Backbone
        The classifier; masks are applied in its order (Eq. 13, 14).
    images : Tensor
        ``(B, 3, H, W)`` in [0, 1].
    classes : Tensor
        ``(B,)`` int64.
    masks : Tensor, optional
        ``(B, h, w)`` in [0, 1].
    chunk : int
        Images a forward pass; bounds the memory, does not change the scores.

    Returns
    -------
    Tensor
        ``(B,)`` in [0, 1].
    """
    scores = []
    for start in range(0, len(images), chunk):
        part = slice(start, start + chunk)
        logits = backbone(images[part], None if masks is None else masks[part])
        scores.append(logits.softmax(1).gather(1, classes[part, None])[:, 0])
    return torch.cat(scores)


def average_drop(full: Tensor, masked: Tensor) -> Tensor:
    """Drop of confidence of each image; their mean is AD.

    Parameters
    ----------
    full, masked : Tensor
        ``(B,)`` confidences of the model truth for the image and for the masked image.

    Returns
    -------
    Tensor
        ``(B,)`` in per cent, 0 to 100.
    """
    return 100 * (full - masked).clamp(min=0) / full


def increase_in_confidence(full: Tensor, masked: Tensor) -> Tensor:
    """Whether the confidence of each image rose; their mean is IC.

    Parameters
    ----------
    full, masked : Tensor
        ``(B,)`` confidences of the model truth for the image and for the masked image.

    Returns
    -------
    Tensor
        ``(B,)``, 100 where it rose and 0 elsewhere.
    """
    return 100.0 * (masked > full)


def pointing_game(maps: Tensor, truth: Tensor) -> Tensor:
    """Whether a map's maximum lies on the object.

    Parameters
    ----------
    maps : Tensor
        ``(B, H, W)`` at the size of the ground truth.
    truth : Tensor
        ``(B, H, W)`` bool, the object's pixels.

    Returns
    -------
    Tensor
        ``(B,)`` in per cent: the share of the pixels at the maximum that are on the object, so that
        a constant map scores what a blind guess would.
    """
    at_maximum = maps == maps.amax((1, 2), keepdim=True)
    return 100 * (at_maximum & truth).sum((1, 2)) / at_maximum.sum((1, 2))


def energy_inside(maps: Tensor, truth: Tensor) -> Tensor:
    """Share of a map's sum that lies on the object (energy-based pointing game).

    Parameters
    ----------
    maps : Tensor
        ``(B, H, W)``, not negative, at the size of the ground truth.
    truth : Tensor
        ``(B, H, W)`` bool, the object's pixels.

    Returns
    -------
    Tensor
        ``(B,)`` in per cent; NaN for a map that is zero everywhere.
    """
    return 100 * (maps * truth).sum((1, 2)) / maps.sum((1, 2))


def invalid_maps(maps: Tensor) -> Tensor:
    """Find maps that explain nothing: not finite, or the same value everywhere.

    Parameters
    ----------
    maps : Tensor
        ``(B, h, w)``.

    Returns
    -------
    Tensor
        ``(B,)`` bool.
    """
    low, high = maps.amin((1, 2)), maps.amax((1, 2))
    return ~torch.isfinite(maps).all(2).all(1) | (low == high)


@torch.no_grad()
def score_batch(
    backbone: Backbone,
    images: Tensor,
    classes: Tensor,
    maps: Tensor,
    percentages: Sequence[float] = PERCENTAGES,
    truth: Tensor | None = None,
    seed: int = 0,
) -> dict[tuple[str, float], Tensor]:
    """Compute all measures of a batch of maps.

    Parameters
    ----------
    backbone : Backbone
        The classifier explained.
    images : Tensor
        ``(B, 3, H, W)`` in [0, 1].
    classes : Tensor
        ``(B,)`` int64, model truth.
    maps : Tensor
        ``(B, h, w)`` in [0, 1].
    percentages : sequence of float
        v of AD and IC.
    truth : Tensor, optional
        ``(B, H, W)`` bool, pixels of the object.
    seed : int
        Of the order among equal map values.

    Returns
    -------
    dict of (str, float) to Tensor
        ``(measure, v)`` to ``(B,)`` values: ``ad``, ``ic``, and with ground truth ``pointing`` and
        ``energy`` (v = 100).

    Raises
    ------
    TTAMEError
        If the maps are not one an image.
    """
    if maps.ndim != 3 or len(maps) != len(images):
        raise TTAMEError(f"maps are {tuple(maps.shape)}; expected ({len(images)}, h, w)")
    full = confidences(backbone, images, classes)
    large = upsample(maps, images.shape[-2:])
    values: dict[tuple[str, float], Tensor] = {("confidence", 100): 100 * full}
    for v in percentages:
        masked = confidences(backbone, images, classes, keep_top(large, v, seed))
        values["ad", v] = average_drop(full, masked)
        values["ic", v] = increase_in_confidence(full, masked)
    if truth is not None:
        values["pointing", 100] = pointing_game(large, truth)
        values["energy", 100] = energy_inside(large, truth)
    return values


def evaluate(
    backbone: Backbone,
    methods: dict[str, Callable[[Tensor, Tensor], Tensor]],
    batches: Iterable[dict],
    percentages: Sequence[float] = PERCENTAGES,
    seed: int = 0,
    progress: Callable[[int], None] | None = None,
) -> pd.DataFrame:
    """Score methods on the same images, one row an image, method, measure and v.

    Parameters
    ----------
    backbone : Backbone
        The classifier explained.
    methods : dict of str to callable
        ``(images, classes) -> maps`` in [0, 1].
    batches : iterable of dict
        With ``image``, ``id`` and, where there is ground truth, ``mask`` ``(B, H, W)``.
    percentages : sequence of float
        v of AD and IC.
    seed : int
        Of the order among equal map values.
    progress : callable, optional
        Called with the number of images done.

    Returns
    -------
    DataFrame
        Columns method, measure, v, image_id, value. A map that explains nothing gets a row with
        measure ``invalid`` and no scores, except for the all-ones control, constant by definition.
    """
    rows = []
    done = 0
    for batch in batches:
        images = batch["image"].to(backbone.mean.device)
        truth = batch["mask"].to(images.device) if "mask" in batch else None
        with torch.no_grad():
            classes = backbone(images).argmax(1)
        for name, method in methods.items():
            maps = method(images, classes)
            bad = invalid_maps(maps) if name != "all-ones" else torch.zeros_like(classes).bool()
            values = score_batch(backbone, images, classes, maps, percentages, truth, seed)
            values["invalid", 100] = bad.float()
            for (measure, v), column in values.items():
                for image_id, value, skip in zip(
                    batch["id"], column.tolist(), bad.tolist(), strict=True
                ):
                    if not skip or measure == "invalid":
                        rows.append((name, measure, v, image_id, value))
        done += len(images)
        if progress:
            progress(done)
    return pd.DataFrame(rows, columns=["method", "measure", "v", "image_id", "value"])


def scaled(method: Callable[[Tensor, Tensor], Tensor]) -> Callable[[Tensor, Tensor], Tensor]:
    """Wrap a method so that each of its maps is min-max scaled, as T-TAME's are."""

    def call(images: Tensor, classes: Tensor) -> Tensor:
        return minmax(method(images, classes))

    return call
