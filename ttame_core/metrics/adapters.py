"""Any metric of Quantus as a measure: ``quantus:Sparseness``."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from ttame_core.classifiers.backbone import Backbone
from ttame_core.errors import TTAMEError, needed
from ttame_core.libraries import Found, drawing_from, find_class

LIBRARY = "quantus"


def of_quantus(name: Any) -> bool:
    """Say whether a measure is one of Quantus."""
    return str(name).partition(":")[0] == LIBRARY


def found(name: str) -> Found:
    """Find a metric by ``quantus:Class``.

    Raises a TTAMEError if Quantus is not installed, or has no such metric.
    """
    what = f"the measure {name!r}"
    room, base = needed(LIBRARY, LIBRARY, what), needed("quantus.metrics.base", LIBRARY, what)
    return find_class(name, room, base.Metric, "__call__", ())


def direction_of(name: str) -> int:
    """1 where more is better, -1 where less is, 0 where Quantus does not say, or is not there."""
    try:
        told = getattr(found(name).kind, "score_direction", None)
    except TTAMEError:
        return 0
    return {"higher": 1, "lower": -1}.get(getattr(told, "value", ""), 0)


def scores_of(
    name: str,
    backbone: Backbone,
    images: Tensor,
    classes: Tensor,
    maps: Tensor,
    truth: Tensor | None = None,
    seed: int = 0,
) -> Tensor:
    """Score maps by a metric of Quantus, with its own defaults; no score is scaled.

    Parameters
    ----------
    name : str
        ``quantus:Class``.
    backbone : Backbone
        The classifier, which Quantus asks for softmax scores of images in [0, 1].
    images, classes, maps : Tensor
        ``(B, 3, H, W)`` in [0, 1], ``(B,)`` int64 and ``(B, H, W)``.
    truth : Tensor, optional
        ``(B, H, W)`` bool, pixels of the object, for metrics that ask for them.
    seed : int
        Of what the metric draws.

    Returns
    -------
    Tensor
        ``(B,)``. A TTAMEError is raised where the metric cannot score, or gives no number an image.
    """
    metric = found(name).kind(disable_warnings=True, return_aggregate=False)
    batch = {
        "x_batch": images.cpu().numpy(),
        "y_batch": classes.cpu().numpy(),
        "a_batch": maps[:, None].cpu().numpy(),
        "s_batch": None if truth is None else truth[:, None].cpu().numpy(),
    }
    try:
        with drawing_from(seed), torch.enable_grad():
            scores = metric(
                backbone, **batch, channel_first=True, softmax=True, device=str(images.device)
            )
        column = np.asarray(scores, dtype=np.float64)
    except (ArithmeticError, AssertionError, LookupError, TypeError, ValueError) as error:
        raise TTAMEError(f"{name} cannot score these maps: {error}") from error
    if column.shape != (len(images),):
        raise TTAMEError(
            f"{name} gives scores {column.shape}; expected one an image, ({len(images)},)"
        )
    return torch.as_tensor(column).to(maps)
