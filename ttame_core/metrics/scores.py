"""Scores of maps, one row an image: AD, IC, ROAD (Sec. IV-B), insertion, deletion, localisation."""

from collections.abc import Callable, Hashable, Iterable, Mapping
from functools import partial

import pandas as pd
import torch
from torch import Tensor

from ttame_core.classifiers.backbone import Backbone
from ttame_core.classifiers.checks import check_backbone
from ttame_core.classifiers.labels import check_classes
from ttame_core.errors import TTAMEError
from ttame_core.images.reading import check_images
from ttame_core.masking import enlarged
from ttame_core.metrics.adapters import of_quantus, scores_of
from ttame_core.metrics.checks import (
    attribute_behind,
    check_batch,
    check_batches,
    check_confidences,
    check_full,
    check_measures,
    check_methods,
    check_settings,
    check_truth,
)
from ttame_core.metrics.measures import (
    LOCALISATION,
    MASKING,
    MEASURES,
    Percentages,
    check_maps,
    invalid_maps,
)
from ttame_core.metrics.perturbations import perturbed_confidences


def score_batch(
    backbone: Backbone,
    images: Tensor,
    classes: Tensor,
    full: Tensor,
    maps: Tensor,
    measures: Percentages = MASKING,
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
        Keys of `MEASURES` and their percentages v; a metric of Quantus has 100 alone:
        ``{"quantus:Sparseness": [100]}``.
    truth : Tensor, optional
        ``(B, H, W)`` bool, pixels of the object.
    seed : int
        Seed of the order among equal map values, and of the imputation's noise.
    chunk : int, optional
        Images a forward pass, which changes the scores by rounding only; by default what suits the
        device.
    allow_constant : bool
        Score maps that are the same everywhere: the all-ones control.
    confidences : callable, optional
        Asks the classifier in place of `perturbed_confidences`: a `KeptConfidences`.

    Returns
    -------
    dict of (str, float) to Tensor
        Measure and v to ``(B,)`` values, 0 to 100, of Quantus as they are; ``coverage``
        (v = 100), the map's mean in per cent, and with ground truth `LOCALISATION` too. ``invalid``
        (v = 100) is 1 for a map that explains nothing; its other values are NaN.

    Raises
    ------
    TTAMEError
        For an unknown measure, a percentage out of range, classes or maps that are not one an
        image, or anything out of its range.
    """
    check_backbone(backbone)
    check_measures(measures)
    check_settings(seed, chunk, confidences)
    ours = {m: vs for m, vs in measures.items() if not of_quantus(m)}
    wanted = {(m, v): (MEASURES[m].perturbation, v) for m, vs in ours.items() for v in vs}
    check_images(images)
    check_classes(classes, len(images), backbone.num_classes)
    check_full(full, len(images))
    check_maps(maps, len(images))
    if truth is not None:
        check_truth(truth, images)
    bad = invalid_maps(maps, allow_constant)
    # scored as zeros, and struck out below: one map that is not finite stops no evaluation
    maps = maps.masked_fill(bad[:, None, None], 0.0)
    confidences = confidences or partial(perturbed_confidences, backbone)
    seen = confidences(images, classes, maps, wanted.values(), seed, chunk)
    for (kind, v), found in seen.items():
        lost = (~found.isfinite()).nonzero().flatten().tolist()
        if lost:
            raise TTAMEError(
                f"the confidences of {backbone.name} are not finite once the images are changed ({kind}, v = {v:g}), for "
                f"those at {lost[:8]} of the batch; take them out, or run the classifier in float32"
            )
    whole = ("masked", 100)
    if whole in seen:  # a mask of ones takes nothing away: what rounding adds is no increase
        seen[whole] = torch.where((maps == 1).flatten(1).all(1), full, seen[whole])
    values = {key: MEASURES[key[0]].read(full, seen[kind]) for key, kind in wanted.items()}  # type: ignore[misc]
    large = enlarged(maps, images.shape[-2:])
    for m in measures:
        if m not in ours:
            values[m, 100] = scores_of(m, backbone, images, classes, large, truth, seed)
    values["coverage", 100] = 100 * large.mean((1, 2))
    if truth is not None:
        values |= {(m, 100): MEASURES[m].read(large, truth) for m in LOCALISATION}  # type: ignore[misc]
    values = {key: column.masked_fill(bad, torch.nan) for key, column in values.items()}
    return values | {("invalid", 100): bad.float()}


def evaluate(
    backbone: Backbone,
    methods: Mapping[str, Callable[[Tensor, Tensor], Tensor]],
    batches: Iterable[dict],
    measures: Percentages = MASKING,
    seed: int = 0,
    chunk: int | None = None,
    progress: Callable[[int], None] | None = None,
    confidences: Callable[..., dict[tuple[str, float], Tensor]] | None = None,
) -> pd.DataFrame:
    """Score methods on the same images, one row an image, method, measure and v.

    Parameters
    ----------
    backbone : Backbone
        The classifier explained.
    methods : mapping of str to callable
        ``(images, classes) -> maps`` in [0, 1]; an explainer is one.
    batches : iterable of dict
        With ``image``, ``id`` - a str or int for each image, which no other has - and, where there
        is ground truth, ``mask`` ``(B, H, W)`` bool.
    measures : mapping of str to sequence of float
        Keys of `MEASURES` and their percentages v; metrics of Quantus, as in `score_batch`.
    seed : int
        Seed of the order among equal map values, and of the imputation's noise.
    chunk : int, optional
        Images a forward pass; by default what suits the device.
    progress : callable, optional
        Called with the number of images done.
    confidences : callable, optional
        Asks the classifier; a `KeptConfidences` keeps its answers, and an evaluation that was
        killed goes on from there.

    Returns
    -------
    DataFrame
        Columns method, measure, v, image_id, value. A map that explains nothing gets a row with
        measure ``invalid`` and no scores, except for a method whose attribute ``constant`` says
        that its maps are.

    Raises
    ------
    TTAMEError
        As `score_batch`; for maps of a wrong shape it names the method. For a method that explains
        another classifier than this one, or one behind another standardisation; for a batch that
        lacks something, an id of several images, or images whose confidences are not finite.
    """
    check_methods(methods, backbone)
    check_measures(measures)
    check_settings(seed, chunk, progress, confidences)
    check_batches(batches)
    rows, done = [], 0
    known_ids: set[Hashable] = set()
    for batch in batches:
        ids = check_batch(batch, known_ids)
        images = batch["image"].to(backbone.mean)
        truth = batch["mask"].to(images.device) if "mask" in batch else None
        with torch.no_grad():
            full, classes = backbone(images).softmax(1).max(1)
        check_confidences(full, ids, backbone)
        for name, method in methods.items():
            maps = method(images, classes)
            maps = getattr(maps, "maps", maps)
            check_maps(maps, len(images), name)
            maps = maps.to(images)
            constant = bool(attribute_behind(method, "constant", bool))
            known = (backbone, images, classes, full, maps, measures, truth, seed, chunk)
            values = score_batch(*known, allow_constant=constant, confidences=confidences)
            values["confidence", 100] = 100 * full
            bad = values["invalid", 100].tolist()
            for (measure, v), column in values.items():
                for image_id, value, skip in zip(ids, column.tolist(), bad, strict=True):
                    if not skip or measure == "invalid":
                        rows.append((name, measure, v, image_id, value))
        done += len(images)
        if progress:
            progress(done)
    return pd.DataFrame(rows, columns=["method", "measure", "v", "image_id", "value"])
