"""The measures, one row an image: AD, IC, ROAD (Sec. IV-B), insertion, deletion, localisation."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path

import pandas as pd
import torch
from torch import Tensor

from ttame_core.backbones import Backbone
from ttame_core.errors import TTAMEError, nearest
from ttame_core.explainer import check_images
from ttame_core.masking import enlarged
from ttame_core.perturbations import perturbed_confidences
from ttame_core.remembered import RememberedConfidences

Measures = Mapping[str, Sequence[float]]
"""Measures by name with their percentages v."""


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


def percent(full: Tensor, changed: Tensor) -> Tensor:
    """Confidence of each image once changed; the means are the scores of Eq. 22, 23 and of the curves.

    Parameters
    ----------
    full, changed : Tensor
        ``(B,)`` confidences of the model truth for the image and for the changed image.

    Returns
    -------
    Tensor
        ``(B,)`` in per cent, 0 to 100.
    """
    return 100 * changed


MEASURES: dict[str, tuple[str, Callable[[Tensor, Tensor], Tensor]]] = {
    "ad": ("masked", average_drop),
    "ic": ("masked", increase_in_confidence),
    "morf": ("morf", percent),
    "lerf": ("lerf", percent),
    "insertion": ("insertion", percent),
    "deletion": ("deletion", percent),
}
"""What a measure does to the image, and how it reads the confidence then."""

MASKING: Measures = {"ad": (100, 50, 15), "ic": (100, 50, 15)}
"""Tables II and III."""
ROAD: Measures = {"morf": tuple(range(10, 100, 10)), "lerf": tuple(range(10, 100, 10))}
"""Tables IV and V: their averages over v."""
CURVES: Measures = {name: tuple(range(0, 101, 10)) for name in ("insertion", "deletion")}
"""Insertion and deletion: their averages over v."""


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


def invalid_maps(maps: Tensor, allow_constant: bool = False) -> Tensor:
    """Find maps that explain nothing: not finite, outside [0, 1], or the same value everywhere.

    Parameters
    ----------
    maps : Tensor
        ``(B, h, w)``.
    allow_constant : bool
        Let maps pass that are the same everywhere: the all-ones control.

    Returns
    -------
    Tensor
        ``(B,)`` bool.
    """
    low, high = maps.amin((1, 2)), maps.amax((1, 2))
    outside = (low < -1e-3) | (high > 1 + 1e-3)  # more than rounding
    constant = (low == high) & (not allow_constant)
    return ~torch.isfinite(maps).all(2).all(1) | outside | constant


def score_batch(
    backbone: Backbone,
    images: Tensor,
    classes: Tensor,
    full: Tensor,
    maps: Tensor,
    measures: Measures = MASKING,
    truth: Tensor | None = None,
    seed: int = 0,
    chunk: int | None = None,
    allow_constant: bool = False,
    confidences: Callable[..., dict[tuple[str, float], Tensor]] | None = None,
) -> dict[tuple[str, float], Tensor]:
    """Compute measures of a batch of maps.

    Parameters
    ----------
    backbone : Backbone
        The classifier explained.
    images : Tensor
        ``(B, 3, H, W)`` in [0, 1].
    classes : Tensor
        ``(B,)`` int64, model truth.
    full : Tensor
        ``(B,)`` in [0, 1], confidence in these for the images as they are.
    maps : Tensor
        ``(B, h, w)`` in [0, 1].
    measures : mapping of str to sequence of float
        Keys of `MEASURES` and their percentages v.
    truth : Tensor, optional
        ``(B, H, W)`` bool, pixels of the object.
    seed : int
        Of the order among equal map values, and of the imputation's noise.
    chunk : int, optional
        Images a forward pass; bounds the memory, changes the scores by rounding only. By default what suits the device.
    allow_constant : bool
        Score maps that are the same everywhere: the all-ones control.
    confidences : RememberedConfidences, optional
        Asks the classifier in place of `perturbed_confidences`.

    Returns
    -------
    dict of (str, float) to Tensor
        Measure and v to ``(B,)`` values, 0 to 100; ``coverage`` (v = 100), the map's mean in per cent, and with
        ground truth ``pointing`` and ``energy`` too.
        ``invalid`` (v = 100) is 1 for a map that explains nothing; its other values are NaN.

    Raises
    ------
    TTAMEError
        For an unknown measure, a percentage out of range, or maps that are not one an image.
    """
    for name in measures:
        if name not in MEASURES:
            raise TTAMEError(f"measure {name!r} is unknown; {nearest(name, MEASURES)}")
    wanted = {
        (m, v): (MEASURES[m][0], v) for m, percentages in measures.items() for v in percentages
    }
    bad = invalid_maps(maps, allow_constant)
    maps = maps.masked_fill(bad[:, None, None], 0.0)
    confidences = confidences or partial(perturbed_confidences, backbone)
    seen = confidences(images, classes, maps, wanted.values(), seed, chunk)
    whole = ("masked", 100)
    if whole in seen:  # a mask of ones takes nothing away: what rounding adds is no increase
        seen[whole] = torch.where((maps == 1).flatten(1).all(1), full, seen[whole])
    values = {key: MEASURES[key[0]][1](full, seen[kind]) for key, kind in wanted.items()}
    large = enlarged(maps, images.shape[-2:])
    values["coverage", 100] = 100 * large.mean((1, 2))
    if truth is not None:
        values["pointing", 100] = pointing_game(large, truth)
        values["energy", 100] = energy_inside(large, truth)
    values = {key: column.masked_fill(bad, torch.nan) for key, column in values.items()}
    return values | {("invalid", 100): bad.float()}


def evaluate(
    backbone: Backbone,
    methods: Mapping[str, Callable[[Tensor, Tensor], Tensor]],
    batches: Iterable[dict],
    measures: Measures = MASKING,
    seed: int = 0,
    chunk: int | None = None,
    progress: Callable[[int], None] | None = None,
    keep: Path | None = None,
) -> pd.DataFrame:
    """Score methods on the same images, one row an image, method, measure and v.

    Parameters
    ----------
    backbone : Backbone
        The classifier explained.
    methods : mapping of str to callable
        ``(images, classes) -> maps`` in [0, 1]; an explainer is one.
    batches : iterable of dict
        With ``image``, ``id`` and, where there is ground truth, ``mask`` ``(B, H, W)``.
    measures : mapping of str to sequence of float
        Keys of `MEASURES` and their percentages v.
    seed : int
        Of the order among equal map values, and of the imputation's noise.
    chunk : int, optional
        Images a forward pass; by default what suits the device.
    progress : callable, optional
        Called with the number of images done.
    keep : Path, optional
        Folder in which the classifier's answers are kept: an evaluation that was killed goes on from there.

    Returns
    -------
    DataFrame
        Columns method, measure, v, image_id, value. A map that explains nothing gets a row with
        measure ``invalid`` and no scores, except for the all-ones control, constant by definition.

    Raises
    ------
    TTAMEError
        As `score_batch`; for maps of a wrong shape it names the method.
    """
    rows = []
    done = 0
    confidences = RememberedConfidences(keep, backbone) if keep else None
    for batch in batches:
        images = batch["image"].to(backbone.mean.device)
        truth = batch["mask"].to(images.device) if "mask" in batch else None
        check_images(images)
        with torch.no_grad():
            full, classes = backbone(images).softmax(1).max(1)
        for name, method in methods.items():
            maps = method(images, classes)
            maps = getattr(maps, "maps", maps).to(images)
            if maps.ndim != 3 or len(maps) != len(images):
                raise TTAMEError(
                    f"{name} gives maps {tuple(maps.shape)}; expected ({len(images)}, h, w)"
                )
            values = score_batch(
                backbone,
                images,
                classes,
                full,
                maps,
                measures,
                truth,
                seed,
                chunk,
                allow_constant=name == "all-ones",
                confidences=confidences,
            )
            values["confidence", 100] = 100 * full
            bad = values["invalid", 100].tolist()
            for (measure, v), column in values.items():
                for image_id, value, skip in zip(batch["id"], column.tolist(), bad, strict=True):
                    if not skip or measure == "invalid":
                        rows.append((name, measure, v, image_id, value))
        done += len(images)
        if progress:
            progress(done)
    return pd.DataFrame(rows, columns=["method", "measure", "v", "image_id", "value"])
