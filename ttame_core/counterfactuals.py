"""Maps of classes that were not predicted: mistakes, and images with two objects (Figs. 17, 18)."""

import textwrap
from collections.abc import Iterable, Sequence
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from ttame_core.backbones import Backbone
from ttame_core.masking import enlarged
from ttame_core.metrics import energy_inside, pointing_game


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
