"""A warm start, beyond the paper: at step 0 the maps are the classifier's own class activation maps."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ttame_core.backbones import Backbone
from ttame_core.errors import NotServedError, TTAMEError
from ttame_core.explainer import TTAME
from ttame_core.layers import capture

STARTS = ("random", "warm")
LIFT = 6.0  # standard deviations of a layer norm's output
SPREAD = 1.5  # standard deviation of the first maps at unit scale, where a sigmoid is steep


@torch.no_grad()
def warm_start(explainer: TTAME, seen: tuple[Tensor, list[Tensor]] | None = None) -> None:
    """Give an attention mechanism the classifier's head as its fusion, and branches that pass their taps on.

    The batch norms' scales are 0, so that every branch starts as ``ReLU(L_i)``. The fusion's rows on the last tap are the
    head's weights, their mean over classes removed; all others, and the bias, are 0. Where the head reads the pooled last
    tap, as in a ResNet, this is the class activation map (Zhou et al., CVPR 2016), of what is positive in the tap.

    Where the last tap is a layer norm (see `warm_backbone`), whose values are of both signs, the batch norm's shift lifts
    them above the ReLU, and the fusion's bias takes it off again. Where the head reads the norm's class token, the same
    weights are put to the patches' tokens.

    Where feature maps are at unit scale, the fusion is multiplied by one number, so that the predicted classes' maps have
    a standard deviation of 1.5 before the sigmoid: the class activation map, scaled to [0, 1], is the same.

    Parameters
    ----------
    explainer : TTAME
        Changed in place.
    seen : tuple of Tensor and list of Tensor, optional
        Logits ``(B, K)`` and feature maps of some images, as `Backbone.features` returns them, where feature maps are
        at unit scale: on these the standard deviation is measured.

    Raises
    ------
    NotServedError
        If the head does not read the last tap, or the branches have no skip and batch norm.
    TTAMEError
        If feature maps are at unit scale and those of no images are given.
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
    rows = weight - weight.mean(0)
    attention.fusion.weight[:, -channels:, 0, 0] = rows
    read = backbone.model.get_submodule(tap)
    if isinstance(read, nn.LayerNorm):
        shift = LIFT * read.weight.abs() - read.bias.clamp(max=0)
        shift = shift / attention.scales[-1] if attention.scales is not None else shift
        attention.branches[-1].norm.bias.copy_(shift)  # type: ignore[union-attr, operator]
        attention.fusion.bias.copy_(-rows @ shift)  # type: ignore[union-attr]
    if seen is not None and attention.scales is not None:
        training, (logits, features) = attention.training, seen
        maps = attention.eval()(features, logits.argmax(1, keepdim=True))  # (B, 1, h_e, w_e)
        attention.train(training)
        factor = SPREAD / maps.flatten(1).std(1).mean()
        attention.fusion.weight.mul_(factor)
        attention.fusion.bias.mul_(factor)  # type: ignore[union-attr]


def warm_backbone(backbone: Backbone) -> Backbone:
    """Return a backbone whose last tap its head reads: for a transformer mostly the norm behind its last block.

    Parameters
    ----------
    backbone : Backbone
        Left as it is.

    Returns
    -------
    Backbone
        The same one where its head reads its last tap; otherwise another around the same classifier, with a layer that
        the head reads for its last tap: a layer norm, or the first.

    Raises
    ------
    NotServedError
        If there is no such layer: the head is more than one linear layer on pooled feature maps or a class token.
    """
    modules, last = dict(backbone.model.named_modules()), backbone.taps[-1]
    found = read_by_head(backbone, [name for name in modules if name])
    if not found:
        raise NotServedError(
            f"the head of {backbone.name} is not one linear layer on pooled feature maps or a class token, "
            "so there is no warm start"
        )
    norms = [layer for layer in found if isinstance(modules[layer], nn.LayerNorm)]
    read = (norms or [last if last in found else found[0]])[0]
    return backbone if read == last else backbone.with_taps((*backbone.taps[:-1], read))


def head_of(backbone: Backbone) -> nn.Linear | nn.Conv2d:
    """Return a classifier's last linear or convolutional layer of K outputs, whether or not it is all of the head.

    Raises
    ------
    NotServedError
        If there is none.
    """
    layers = [m for m in backbone.model.modules() if isinstance(m, nn.Linear | nn.Conv2d)]
    heads = [layer for layer in layers if len(layer.weight) == backbone.num_classes]
    if not heads:
        raise NotServedError(f"no head of {backbone.num_classes} outputs found in {backbone.name}")
    return heads[-1]


@torch.no_grad()
def read_by_head(backbone: Backbone, layers: Sequence[str]) -> list[str]:
    """List the layers whose feature maps, pooled, or whose class token is what goes into the head.

    Parameters
    ----------
    backbone : Backbone
        The classifier.
    layers : sequence of str
        Those to look at.

    Returns
    -------
    list of str
        In the order in which they run; found by comparing numbers, on noise.

    Raises
    ------
    NotServedError
        If there is no head; see `head_of`.
    """
    size = backbone.preprocessing.image_size
    images = torch.rand(2, 3, size, size, generator=torch.Generator().manual_seed(0))
    taken: list[Tensor] = []
    hook = head_of(backbone).register_forward_pre_hook(lambda head, given: taken.append(given[0]))
    try:
        with capture(backbone.model, layers) as outputs:
            backbone(images.to(backbone.mean))
    finally:
        hook.remove()
    if len(taken) != 1:
        return []
    wanted = taken[0].mean((2, 3)) if taken[0].ndim == 4 else taken[0]
    close = 1e-4 * wanted.abs().max()
    return [
        layer
        for layer, output in outputs.items()
        if any(
            pooled.shape == wanted.shape and (pooled - wanted).abs().max() <= close
            for pooled in _pooled(backbone, output)
        )
    ]


def _pooled(backbone: Backbone, output: Any) -> list[Tensor]:
    """Pool a layer's output ``(B, C)`` in the ways that heads do; none where it is no feature map."""
    try:
        grid = backbone.grid(output)
    except TTAMEError:
        return []
    ways = [grid.mean((2, 3)), grid.relu().mean((2, 3))]  # a ReLU may be no layer, as in a DenseNet
    return ways + ([output[:, 0]] if output.ndim == 3 else [])
