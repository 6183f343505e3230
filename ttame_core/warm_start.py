"""A warm start, beyond the paper: at step 0 the maps are the classifier's own class activation maps."""

import torch
from torch import Tensor, nn

from ttame_core.backbones import Backbone
from ttame_core.errors import NotServedError
from ttame_core.explainer import TTAME

STARTS = ("random", "warm")


@torch.no_grad()
def warm_start(explainer: TTAME) -> None:
    """Give an attention mechanism the classifier's head as its fusion, and branches that pass their taps on.

    The batch norms' scales are 0, so that every branch starts as ``ReLU(L_i)``. The fusion's rows on the last tap are the
    head's weights, their mean over classes removed; all others, and the bias, are 0. Where the head is
    linear on the pooled last tap, as in a ResNet, this is the class activation map (Zhou et al., CVPR 2016).

    Parameters
    ----------
    explainer : TTAME
        Changed in place.

    Raises
    ------
    NotServedError
        If the head is not one linear layer on the last tap's channels, or the branches have no skip and batch norm.
    """
    weight, attention = check_warm_start(explainer.backbone), explainer.attention
    channels = attention.channels[-1]
    for branch in attention.branches:
        norm = getattr(branch, "norm", None)
        if not isinstance(norm, nn.BatchNorm2d) or not branch.skip:
            raise NotServedError(
                "a warm start needs branches with a skip connection and batch norm"
            )
        norm.weight.zero_()
    attention.fusion.weight.zero_()
    attention.fusion.bias.zero_()  # type: ignore[union-attr]
    attention.fusion.weight[:, -channels:, 0, 0] = weight - weight.mean(0)


def check_warm_start(backbone: Backbone) -> Tensor:
    """Return the weights ``(K, C)`` of a head that is linear on the last tap's channels.

    Raises
    ------
    NotServedError
        If there is no such head.
    """
    channels = backbone.shapes[-1][0]
    layers = [m for m in backbone.model.modules() if isinstance(m, nn.Linear | nn.Conv2d)]
    weight = layers[-1].weight.flatten(1)
    if weight.shape != (backbone.num_classes, channels):
        raise NotServedError(
            f"the head of {backbone.name} is not linear on the last tap's {channels} channels, so there is no warm start; "
            "tap the layer that the head reads"
        )
    return weight
