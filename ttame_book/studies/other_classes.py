"""Maps of classes that were not predicted: mistakes, and images with two objects (Figs. 17, 18).

Scores have a row an image, method, measure and v; their columns are `SCORES`.
"""

import textwrap
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from ttame_book.studies.randomisation import similarity
from ttame_core.classifiers.backbone import Backbone
from ttame_core.explainer import TTAME, Explanation
from ttame_core.images.explanation import percent
from ttame_core.masking import enlarged
from ttame_core.metrics.cache import KeptConfidences
from ttame_core.metrics.measures import energy_inside, invalid_maps, pointing_game
from ttame_core.metrics.perturbations import perturbed_confidences

SCORES = ["method", "measure", "v", "image_id", "value"]


@torch.no_grad()
def misclassified(backbone: Backbone, items: Iterable[dict[str, Any]], count: int) -> list[dict]:
    """Find the first ``count`` images, or fewer, whose predicted class is not their ``label``.

    There are none where labels are not known.
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
        f"{textwrap.shorten(backbone.label(int(c)), 16, placeholder='…')}, {percent(float(p))}"
        for c, p in zip(classes, confidences, strict=True)
    )


def runner_up_scores(
    explainer: TTAME,
    batches: Iterable[dict[str, Any]],
    percentages: Sequence[float] = (100, 50, 15),
    seed: int = 0,
    progress: Callable[[int], None] | None = None,
    confidences: KeptConfidences | None = None,
) -> pd.DataFrame:
    """Score whether a class's map is for that class: what either's leaves of both (Fig. 17).

    Images are masked by the top v % of a map, as for AD. Where maps are class-specific, the
    runner-up's leaves more of the runner-up than the predicted class's does, and the other way
    round.

    Parameters
    ----------
    explainer : TTAME
        An explainer in evaluation mode.
    batches : iterable of dict
        With ``image`` and ``id``.
    percentages : sequence of float
        The v.
    seed, progress, confidences
        What `evaluate` takes.

    Returns
    -------
    DataFrame
        Scores. Method is whose map masks the image: ``no map`` (v = 100), ``predicted class``,
        ``runner-up``. Measures ``of the predicted`` and ``of the runner-up`` are their confidences
        in per cent; ``runner-up first`` is 100 where its confidence is the higher one, else 0. All
        are NaN for a map that explains nothing. Method ``runner-up`` has `similarity` to the
        predicted class's map too (v = 0).
    """
    ask = confidences or partial(perturbed_confidences, explainer.backbone)
    rows: list[tuple] = []
    done = 0
    for batch in batches:
        found = explainer(batch["image"].to(explainer.backbone.mean.device), 2)
        for (method, v), both in _left_of_both(found, percentages, ask, seed):
            predicted, other = (100 * both).unbind(1)
            first = torch.where(other.isnan(), other, 100.0 * (other > predicted))
            columns = {
                "of the predicted": predicted,
                "of the runner-up": other,
                "runner-up first": first,
            }
            for measure, column in columns.items():
                named = zip(batch["id"], column.tolist(), strict=True)
                rows += [(method, measure, v, i, value) for i, value in named]
        for alike, values in similarity(*found.maps.unbind(1)).items():
            named = zip(batch["id"], values, strict=True)
            rows += [("runner-up", alike, 0, i, value) for i, value in named]
        done += len(found.images)
        if progress:
            progress(done)
    return pd.DataFrame(rows, columns=SCORES)


def _left_of_both(
    found: Explanation, percentages: Sequence[float], ask: Callable, seed: int
) -> Iterator[tuple[tuple[str, float], Tensor]]:
    """Ask for the confidences ``(B, 2)`` in both classes that each method's map leaves, by v."""
    yield ("no map", 100), found.confidences
    masked = [("masked", v) for v in percentages]
    for method, maps in zip(("predicted class", "runner-up"), found.maps.unbind(1), strict=True):
        seen = ask(found.images, found.classes, maps, masked, seed)
        bad = invalid_maps(maps)[:, None]
        yield from (
            ((method, v), both.masked_fill(bad, torch.nan)) for (_, v), both in seen.items()
        )


def own_object(maps: Tensor, masks: Tensor, ids: Sequence[str]) -> pd.DataFrame:
    """Score whether maps of two classes lie on their own of two objects.

    Maps are ``(B, 2, h, w)`` in [0, 1], of the first and the second object's class; masks are
    ``(B, 2, H, W)`` bool, the objects' pixels. Measures are ``pointing`` and ``energy``, means of
    both maps, with method ``own object`` and ``other object``.
    """
    rows = []
    size = masks.shape[-2:]
    for method, order in (("own object", (0, 1)), ("other object", (1, 0))):
        for name, measure in (("pointing", pointing_game), ("energy", energy_inside)):
            both = [measure(enlarged(maps[:, i], size), masks[:, j]) for i, j in enumerate(order)]
            values = torch.stack(both).mean(0).tolist()
            rows += [(method, name, 100, i, v) for i, v in zip(ids, values, strict=True)]
    return pd.DataFrame(rows, columns=SCORES)
