"""Integrated gradients (Sundararajan et al., ICML 2017), through Captum."""

from collections.abc import Callable

import torch
from captum.attr import IntegratedGradients
from torch import Tensor

from ttame_core.backbones import Backbone
from ttame_core.masking import minmax


def integrated_gradients(
    backbone: Backbone, steps: int = 50, chunk: int = 32
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
    chunk : int
        Images a pass; changes memory and speed, not the maps.

    Returns
    -------
    callable
        ``(images, classes) -> maps`` ``(B, H, W)`` in [0, 1].
    """
    attribution = IntegratedGradients(backbone)

    def explain(images: Tensor, classes: Tensor) -> Tensor:
        with torch.enable_grad():
            values = attribution.attribute(
                images, target=classes, n_steps=steps, internal_batch_size=max(chunk, len(images))
            )
        return minmax(values.detach().to(images).sum(1).relu())

    return explain
