"""A warm start, beyond the paper: at step 0 the maps are the classifier's own class activation maps."""

import torch
from torch import Tensor, nn

from ttame_core.backbones import Backbone
from ttame_core.errors import NotServedError
from ttame_core.explainer import TTAME

STARTS = ("random", "warm")
FINAL_NORMS = ("encoder.ln", "norm")  # torchvision's and timm's
LIFT = 6.0  # standard deviations of a layer norm's output


@torch.no_grad()
def warm_start(explainer: TTAME) -> None:
    """Give an attention mechanism the classifier's head as its fusion, and branches that pass their taps on.

    The batch norms' scales are 0, so that every branch starts as ``ReLU(L_i)``. The fusion's rows on the last tap are the
    head's weights, their mean over classes removed; all others, and the bias, are 0. Where the head is
    linear on the pooled last tap, as in a ResNet, this is the class activation map (Zhou et al., CVPR 2016).

    Where the last tap is the layer norm that a class token's head reads (see `warm_backbone`), the same weights on the
    patches' tokens. A layer norm's values are of both signs: the batch norm's shift lifts them above the ReLU,
    and the fusion's bias takes it off again.

    Parameters
    ----------
    explainer : TTAME
        Changed in place.

    Raises
    ------
    NotServedError
        If the head is not one linear layer on the last tap's channels, the branches have no skip and batch norm,
        or feature maps are scaled.
    """
    weight, attention = check_warm_start(explainer.backbone), explainer.attention
    if attention.scales is not None:
        raise NotServedError("a warm start needs feature maps as they are, not scaled ones")
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
    rows = weight - weight.mean(0)
    attention.fusion.weight[:, -channels:, 0, 0] = rows
    read = explainer.backbone.model.get_submodule(explainer.backbone.taps[-1])
    if isinstance(read, nn.LayerNorm):
        shift = LIFT * read.weight.abs() - read.bias.clamp(max=0)
        attention.branches[-1].norm.bias.copy_(shift)  # type: ignore[union-attr, operator]
        attention.fusion.bias.copy_(-rows @ shift)  # type: ignore[union-attr]


def warm_backbone(backbone: Backbone) -> Backbone:
    """Return a backbone whose last tap its head reads: for a transformer the norm behind its last block.

    Parameters
    ----------
    backbone : Backbone
        Left as it is.

    Returns
    -------
    Backbone
        The same one for a CNN; for a transformer on tokens another around the same classifier.

    Raises
    ------
    NotServedError
        If there is no such norm, or the head is not one linear layer on the last tap's channels.
    """
    if backbone.tokens:
        modules = dict(backbone.model.named_modules())
        norms = [n for n in FINAL_NORMS if isinstance(modules.get(n), nn.LayerNorm)]
        if not norms:
            raise NotServedError(f"no norm behind the last block of {backbone.name} found")
        backbone = backbone.with_taps((*backbone.taps[:-1], norms[0]))
    check_warm_start(backbone)
    return backbone


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
