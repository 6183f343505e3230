"""Integrated gradients (Sundararajan et al., ICML 2017), through Captum."""

from collections.abc import Callable

import torch
from captum.attr import IntegratedGradients
from torch import Tensor

from ttame_core.backbones import Backbone
from ttame_core.layers import batch_that_suits
from ttame_core.masking import minmax


def integrated_gradients(
    backbone: Backbone, steps: int = 50, chunk: int | None = None
) -> Callable[[Tensor, Tensor], Tensor]:
    """Make integrated gradients ready for a backbone.

    From a black image to the image; the map is the positive part of the attributions' sum over the
    colours.

    Parameters
    ----------
    backbone : Backbone
        The classifier to be explained.
    steps : int
        Points of the path (Gauss-Legendre).
    chunk : int, optional
        Images a pass; changes memory and speed, not the maps. By default what suits the device.

    Returns
    -------
    callable
        ``(images, classes) -> maps`` ``(B, H, W)`` in [0, 1].
    """
    attribution = IntegratedGradients(backbone)

    def explain(images: Tensor, classes: Tensor) -> Tensor:
        at_once = max(chunk or batch_that_suits(images), len(images))
        with torch.enable_grad():
            values = attribution.attribute(
                images, target=classes, n_steps=steps, internal_batch_size=at_once
            )
        return minmax(values.detach().to(images).sum(1).relu())

    return explain
