"""IIA, iterated integrated attributions (Barkan et al., ICCV 2023), for CNNs and for ViTs."""

import torch
from torch import Tensor

from ttame_core.classifiers.backbone import Backbone
from ttame_core.classifiers.checks import check_chunk
from ttame_core.classifiers.fast import GRADIENTS, batch_that_suits
from ttame_core.errors import NotServedError, check_kind, check_whole
from ttame_core.masking import minmax
from ttame_core.methods import Method
from ttame_core.methods.cams import target_layer
from ttame_core.methods.vit_attention import (
    attention_layers,
    class_token_map,
    open_attention,
    roll_out,
)
from ttame_core.progress import Tell


def iia(
    backbone: Backbone,
    steps: int | None = None,
    chunk: int | None = None,
    progress: Tell | None = None,
    original: bool = False,
) -> Method:
    """IIA, maps at the size of the last feature map or the patch grid.

    CNN: for ``n + 1`` images on the way from black to the image, the last feature maps go in ``n``
    steps from each channel's minimum to what they are; the map sums gradient x ReLU(step x
    difference) over both ways and the channels. ViT: for ``n + 1`` such images the last block's
    attention matrices go in n steps from 0 to what they are; the positive part of gradient x
    attention, averaged over all combinations and the heads, is rolled out over the blocks.

    ``steps`` is n, by default 10 for a CNN and 5 for a ViT; ``chunk`` counts combinations. A ViT is
    one of torchvision or timm. The head of a CNN has to read the last tap alone: where a connection
    goes round that, a `NotServedError` is raised when the method is first called.

    For ViTs two departures from the authors' own code are on purpose, and ``original=True`` takes
    them back (a CNN's maps are the same). There the path starts at 0 of the standardised image, a
    grey, and here at black. There the last block's scaled attention is a leaf of the graph, and
    here gradients of earlier blocks pass its softmax.
    """
    if steps is not None:
        check_whole("steps", steps, 1)
    check_chunk(chunk)
    check_kind("original", original, bool, "True or False")
    if backbone.tokens:
        return _iia_vit(backbone, steps or 5, chunk, progress, original)
    return _iia_cnn(backbone, steps or 10, chunk, progress)


def _iia_cnn(backbone: Backbone, steps: int, chunk: int | None, progress: Tell | None) -> Method:
    """IIA of feature maps, whose way begins anew for each image on its way."""
    layer = target_layer(backbone)
    scales = torch.arange(steps + 1).double() / steps

    def explain(images: Tensor, classes: Tensor) -> Tensor:
        on_way = scales.to(images)
        path = (images[:, None] * on_way[:, None, None, None]).flatten(0, 1)  # (B(n+1), 3, H, W)
        wanted = classes.repeat_interleave(steps + 1)
        # a combination runs what lies behind the layer alone, some quarter of a pass at most
        at_once = chunk or 4 * batch_that_suits(images, GRADIENTS)
        images_a_pass = max(1, at_once // (steps + 1))
        passes = list(zip(path.split(images_a_pass), wanted.split(images_a_pass), strict=True))
        sums: list[Tensor] = []
        for some, targets in passes:
            # where not even one image's steps fit, it passes anew for each part of them
            parts = on_way.split(at_once)
            found = [summed_gradients(backbone, layer, some, targets, part) for part in parts]
            sums.append(torch.stack(found).sum(0))
            if progress:
                progress(len(sums), len(passes))
        return minmax(torch.cat(sums).unflatten(0, (len(images), -1)).sum(1))  # (B, h, w)

    return explain


def summed_gradients(
    backbone: Backbone, layer: str, images: Tensor, classes: Tensor, scales: Tensor
) -> Tensor:
    """Sum gradient x ReLU(scale x difference from the minimum) over scales and channels of a layer.

    Takes images ``(B, 3, H, W)``, classes ``(B,)`` and scales ``(n,)`` in [0, 1], by which the
    layer's output ``(B, C, h, w)`` goes from each channel's minimum to what it is. Gives
    ``(B, h, w)``.
    """
    kept: list[Tensor] = []

    def interpolate(output: Tensor) -> Tensor:
        maps = output.detach()
        low = maps.amin((2, 3), keepdim=True)
        steps = (maps - low)[:, None] * scales[:, None, None, None]  # (B, n, C, h, w)
        variants = (low[:, None] + steps).flatten(0, 1).requires_grad_()
        kept[:] = [steps, variants]
        return variants.clone()  # layers behind may work in place

    with torch.enable_grad(), backbone.replaced(layer, interpolate):
        try:
            logits = backbone(images)
        except RuntimeError as error:
            # the variants are more than the images: what comes round the layer does not fit them
            raise NotServedError(
                f"a connection goes round the last tap of {backbone.name} ({error}); tap the last layer before the head"
            ) from error
        chosen = logits.gather(1, classes.repeat_interleave(len(scales))[:, None])
        steps, variants = kept
        (gradient,) = torch.autograd.grad(chosen.sum(), variants)
    return (gradient.view_as(steps) * steps.relu()).sum((1, 2))


def _iia_vit(
    backbone: Backbone, steps: int, chunk: int | None, progress: Tell | None, original: bool
) -> Method:
    """IIA of attention matrices, of which the last block's go their way with the image."""
    layers = attention_layers(backbone)
    scales = torch.arange(steps + 1).double() / steps

    def explain(images: Tensor, classes: Tensor) -> Tensor:
        # every image with every scale of it and every scale of the last attention
        owner, image_scale, attention_scale = torch.cartesian_prod(
            torch.arange(len(images)).double(), scales, scales
        ).T.to(images)
        owner = owner.long()
        parts = torch.arange(len(owner), device=images.device).split(
            chunk or batch_that_suits(images, GRADIENTS)
        )
        total: list[Tensor] = []
        for done, part in enumerate(parts, start=1):
            some, on_way = images[owner[part]], image_scale[part, None, None, None]
            opened = open_attention(layers, attention_scale[part], leaf=original)
            with torch.enable_grad(), opened as blocks:
                if original:
                    logits = backbone.logits(backbone.standardise(some) * on_way)
                else:
                    logits = backbone(some * on_way)
                score = logits.gather(1, classes[owner[part], None]).sum()
                gradients = torch.autograd.grad(score, [b.attention for b in blocks])
            with torch.no_grad():
                for i, (block, gradient) in enumerate(zip(blocks, gradients, strict=True)):
                    weighted = (gradient * block.attention).relu().mean(1)  # (n, N, N)
                    if len(total) == i:
                        total.append(weighted.new_zeros(len(images), *weighted.shape[1:]))
                    # added up as it comes: no more than one pass's combinations are held at once
                    total[i].index_add_(0, owner[part], weighted)
            if progress:
                progress(done, len(parts))
        return class_token_map(backbone, roll_out([t / len(scales) ** 2 for t in total]))

    return explain
