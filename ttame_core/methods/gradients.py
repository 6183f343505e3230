"""Integrated gradients (Sundararajan et al., ICML 2017), through Captum."""

import torch
from torch import Tensor

from ttame_core.classifiers.backbone import Backbone
from ttame_core.classifiers.checks import check_chunk
from ttame_core.classifiers.fast import GRADIENTS, batch_that_suits
from ttame_core.errors import check_whole, needed
from ttame_core.masking import minmax
from ttame_core.methods import EXTRA, Method


def integrated_gradients(backbone: Backbone, steps: int = 50, chunk: int | None = None) -> Method:
    """From a black image to the image, at ``steps`` points (Gauss-Legendre); maps ``(B, H, W)``.

    A map is the positive part of the attributions' sum over the colours.
    """
    check_whole("steps", steps, 1)
    check_chunk(chunk)
    attr = needed("captum.attr", EXTRA, "integrated-gradients")
    attribution = attr.IntegratedGradients(backbone)

    def explain(images: Tensor, classes: Tensor) -> Tensor:
        at_once = chunk or batch_that_suits(images, GRADIENTS)
        values = []
        for some, wanted in zip(images.split(at_once), classes.split(at_once), strict=True):
            with torch.enable_grad():
                found = attribution.attribute(
                    some, target=wanted, n_steps=steps, internal_batch_size=at_once
                )
            values.append(found.detach().to(images))
        return minmax(torch.cat(values).sum(1).relu())

    return explain
