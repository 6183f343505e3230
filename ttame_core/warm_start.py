"""A warm start, beyond the paper: at step 0 maps are the classifier's own class activation maps."""

import torch
from torch import Tensor, nn

from ttame_core.classifiers.heads import head_of, read_by_head
from ttame_core.errors import NotServedError, TTAMEError
from ttame_core.explainer import TTAME

LIFT = 6.0  # standard deviations of a layer norm's output
DEVIATION = 1.5  # of the first maps at unit scale, where a sigmoid is steep


@torch.no_grad()
def warm_start(explainer: TTAME, seen: tuple[Tensor, list[Tensor]] | None = None) -> None:
    """Give an attention mechanism the classifier's head for fusion; its branches change nothing.

    The batch norms' scales are 0, so that every branch starts as ``ReLU(L_i)``. The fusion's rows
    on the last tap are the head's weights, their mean over classes removed; all others, and the
    bias, are 0. Where the head reads the pooled last tap, as in a ResNet, this is the class
    activation map (Zhou et al., CVPR 2016), of what is positive in the tap. Where it reads a layer
    norm's class token (see `warm_backbone`), the same weights are put to the patches' tokens.

    A mechanism at unit scale needs ``seen``, what `Backbone.features` returns of some images; a
    TTAMEError says so. A NotServedError is raised if the head does not read the last tap, or the
    branches have no skip connection and batch norm.
    """
    backbone, attention = explainer.backbone, explainer.attention
    tap = backbone.taps[-1]
    if not read_by_head(backbone, [tap]):
        raise NotServedError(
            f"the head of {backbone.name} does not read the last tap, {tap}, so there is no warm start from it; "
            "warm_backbone taps the layer that it reads, where there is one"
        )
    if attention.scales is not None and seen is None:
        raise TTAMEError(
            "a warm start at unit scale needs images to measure its maps; give what Backbone.features returns of some"
        )
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
    weight = head_of(backbone).weight.flatten(1)
    tied = torch.eye(channels + 1, channels).to(weight)  # the head's rows, nothing in common
    rows = weight - weight.mean(0) if attention.head is None else tied
    attention.fusion.weight[:, -channels:, 0, 0] = rows
    read = backbone.model.get_submodule(tap)
    if isinstance(read, nn.LayerNorm):
        # its values are of both signs: lifted above the ReLU, and what that adds taken off again
        shift = LIFT * read.weight.abs() - read.bias.clamp(max=0)
        shift = shift / attention.scales[-1] if attention.scales is not None else shift
        attention.branches[-1].norm.bias.copy_(shift)  # type: ignore[union-attr, operator]
        attention.fusion.bias.copy_(-rows @ shift)  # type: ignore[union-attr]
    if seen is not None and attention.scales is not None:
        # one factor, so that the sigmoid is steep where the maps begin; scaled they stay the same
        training, (logits, features) = attention.training, seen
        maps = attention.eval()(features, logits.argmax(1, keepdim=True))  # (B, 1, h_e, w_e)
        attention.train(training)
        factor = DEVIATION / maps.flatten(1).std(1).mean()
        attention.fusion.weight.mul_(factor)
        attention.fusion.bias.mul_(factor)  # type: ignore[union-attr]
