"""Maps of classes that were not predicted: mistakes, and images with two objects (Figs. 17, 18)."""

import textwrap
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from ttame_core.backbones import Backbone
from ttame_core.explainer import TTAME
from ttame_core.masking import enlarged
from ttame_core.metrics import energy_inside, invalid_maps, pointing_game
from ttame_core.perturbations import perturbed_confidences
from ttame_core.remembered import RememberedConfidences
from ttame_core.sanity import similarity


@torch.no_grad()
def misclassified(backbone: Backbone, items: Iterable[dict[str, Any]], count: int) -> list[dict]:
    """Find images whose predicted class is not their label.

    Parameters
    ----------
    backbone : Backbone
        The classifier.
    items : iterable of dict
        With ``image`` and, where it is known, ``label``.
    count : int
        At most so many.

    Returns
    -------
    list of dict
        The first of them; none where labels are not known.
    """
    found: list[dict] = []
    for item in items:
        if "label" not in item or len(found) == count:
            break
        if int(backbone(item["image"][None].to(backbone.mean.device)).argmax()) != item["label"]:
            found.append(item)
    return found


def pair_title(backbone: Backbone, classes: Tensor, confidences: Tensor) -> str:
    """Title an image with two classes in words, one a line, and the confidence in each."""
    return "\n".join(
        f"{textwrap.shorten(backbone.label(int(c)), 16, placeholder='…')}, {float(p):.0%}"
        for c, p in zip(classes, confidences, strict=True)
    )


def runner_up_scores(
    explainer: TTAME,
    batches: Iterable[dict[str, Any]],
    percentages: Sequence[float] = (100, 50, 15),
    seed: int = 0,
    progress: Callable[[int], None] | None = None,
    keep: Path | None = None,
) -> pd.DataFrame:
    """Score whether each class's map is for that class: what is left of both under either's (Fig. 17, in numbers).

    Images are masked by the top v % of a map, as for AD. Where maps are class-specific, the runner-up's leaves more
    of the runner-up than the predicted class's does, and the other way round.

    Parameters
    ----------
    explainer : TTAME
        In evaluation mode.
    batches : iterable of dict
        With ``image`` and ``id``.
    percentages : sequence of float
        The v.
    seed : int
        Of the order among equal map values.
    progress : callable, optional
        Called with the number of images done.
    keep : Path, optional
        See `metrics.evaluate`.

    Returns
    -------
    DataFrame
        Columns method, measure, v, image_id, value. Method is whose map masks the image: ``no map`` (v = 100),
        ``predicted class``, ``runner-up``; measure ``of the predicted`` and ``of the runner-up``, their confidences in per cent, and
        ``runner-up first``, 100 where its confidence is the higher one and 0 elsewhere: NaN for a map that explains
        nothing. Method ``runner-up`` has `sanity.similarity` to the predicted class's map too (v = 0).
    """
    masked = [("masked", v) for v in percentages]
    backbone = explainer.backbone
    confidences = (
        RememberedConfidences(keep, backbone) if keep else partial(perturbed_confidences, backbone)
    )
    rows: list[tuple] = []
    done = 0
    for batch in batches:
        images = batch["image"].to(backbone.mean.device)
        found = explainer(images, 2)
        left: dict[str, dict[tuple[str, float], Tensor]] = {  # (B, 2) each
            "no map": {("masked", 100): found.confidences}
        }
        for whose, maps in zip(("predicted class", "runner-up"), found.maps.unbind(1), strict=True):
            seen = confidences(images, found.classes, maps, masked, seed)
            bad = invalid_maps(maps)[:, None]
            left[whose] = {key: both.masked_fill(bad, torch.nan) for key, both in seen.items()}
        values: dict[tuple, Iterable[float]] = {}
        for whose, seen in left.items():
            for (_, v), both in seen.items():
                predicted, other = (100 * both).unbind(1)
                first = torch.where(other.isnan(), other, 100.0 * (other > predicted))
                values[whose, "of the predicted", v] = predicted.tolist()
                values[whose, "of the runner-up", v] = other.tolist()
                values[whose, "runner-up first", v] = first.tolist()
        alike = similarity(*found.maps.unbind(1))
        values |= {("runner-up", measure, 0): alike[measure] for measure in alike}
        for key, column in values.items():
            rows += [(*key, i, value) for i, value in zip(batch["id"], column, strict=True)]
        done += len(images)
        if progress:
            progress(done)
    return pd.DataFrame(rows, columns=["method", "measure", "v", "image_id", "value"])


def own_object(maps: Tensor, masks: Tensor, ids: Sequence[str]) -> pd.DataFrame:
    """Score whether maps of two classes lie on their own of two objects.

    Parameters
    ----------
    maps : Tensor
        ``(B, 2, h, w)`` in [0, 1], of the first and the second object's class.
    masks : Tensor
        ``(B, 2, H, W)`` bool, the objects' pixels.
    ids : sequence of str
        B names.

    Returns
    -------
    DataFrame
        A row an image and measure: ``pointing`` and ``energy``, means of both maps, with method ``own object`` and
        ``other object``.
    """
    rows = []
    size = masks.shape[-2:]
    for method, order in (("own object", (0, 1)), ("other object", (1, 0))):
        for name, measure in (("pointing", pointing_game), ("energy", energy_inside)):
            both = [measure(enlarged(maps[:, i], size), masks[:, j]) for i, j in enumerate(order)]
            values = torch.stack(both).mean(0).tolist()
            rows += [(method, name, 100, i, v) for i, v in zip(ids, values, strict=True)]
    return pd.DataFrame(rows, columns=["method", "measure", "v", "image_id", "value"])
