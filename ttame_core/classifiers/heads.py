"""The head of a classifier: its last layer, what it reads, and what still reaches it."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ttame_core.classifiers.backbone import Backbone
from ttame_core.classifiers.hooks import capture, hooked
from ttame_core.errors import NotServedError, TTAMEError


def warm_backbone(backbone: Backbone) -> Backbone:
    """Return a backbone whose last tap its head reads, around the same classifier.

    The same one where that is so already; else one with a layer that the head reads for its last
    tap: a layer norm, as behind a transformer's last block, or the first such layer. Raises a
    `NotServedError` if there is none: the head is more than one linear layer on pooled feature maps
    or a class token.
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
    """Return the last linear or convolutional layer of K outputs; a head may have more layers.

    Raises a `NotServedError` if there is none.
    """
    layers = [m for m in backbone.model.modules() if isinstance(m, nn.Linear | nn.Conv2d)]
    heads = [layer for layer in layers if len(layer.weight) == backbone.num_classes]
    if not heads:
        raise NotServedError(f"no head of {backbone.num_classes} outputs found in {backbone.name}")
    return heads[-1]


def patches_reach(backbone: Backbone) -> dict[str, bool]:
    """Tell from which layers of tokens the patches reach the head, in the order of their runs.

    They do where what goes into the head has a gradient that is not 0 at a patch.
    """
    taken: list[Tensor] = []
    names = [name for name, _ in backbone.model.named_modules() if name]
    try:
        # not its output: a head at its beginning may be all zeros
        listen = {head_of(backbone): lambda head, given, output: taken.append(given[0])}
    except NotServedError:
        listen = {}
    size = backbone.preprocessing.image_size
    generator = torch.Generator().manual_seed(0)
    image = torch.rand(1, 3, size, size, generator=generator).to(backbone.mean)
    listening = capture(backbone.model, names, copied=False)
    with torch.enable_grad(), backbone.held(), listening as outputs, hooked(listen):
        logits = backbone(image.requires_grad_())
    read = taken[-1] if taken else logits
    layers = {n: o for n, o in outputs.items() if isinstance(o, Tensor) and o.ndim == 3}
    asked = [layer for layer, output in layers.items() if output.requires_grad]
    weights = torch.rand(read.shape, generator=generator).to(read)  # so that nothing cancels
    gradients = torch.autograd.grad(
        (read * weights).sum(), [layers[layer] for layer in asked], allow_unused=True
    )
    reach = {}
    for layer, gradient in zip(asked, gradients, strict=True):
        try:
            patches = backbone.grid(layers[layer], layer).shape[2:].numel()
        except TTAMEError:
            continue
        reach[layer] = gradient is not None and bool(gradient[:, -patches:].any())
    return reach


@torch.no_grad()
def read_by_head(backbone: Backbone, layers: Sequence[str]) -> list[str]:
    """List those of the layers whose feature maps, pooled, or whose class token go into the head.

    They come in the order in which they run. Raises a `NotServedError` if there is no `head_of`.
    """
    # numbers are compared, as no two libraries name the way from maps to head alike; noise for an
    # image, so that no two layers agree by chance, as they do on a black one
    size = backbone.preprocessing.image_size
    images = torch.rand(2, 3, size, size, generator=torch.Generator().manual_seed(0))
    taken: list[Tensor] = []
    listen = {head_of(backbone): lambda head, given, output: taken.append(given[0])}
    with backbone.held(), capture(backbone.model, layers) as outputs, hooked(listen):
        backbone(images.to(backbone.mean))
    if len(taken) != 1:
        return []
    wanted = taken[0].mean((2, 3)) if taken[0].ndim == 4 else taken[0]  # (B, C)
    close = 1e-4 * wanted.abs().max()  # means in another order differ by rounding, layers by more
    return [
        layer
        for layer, output in outputs.items()
        if any(
            pooled.shape == wanted.shape and (pooled - wanted).abs().max() <= close
            for pooled in _pooled(backbone, output)
        )
    ]


def _pooled(backbone: Backbone, output: Any) -> list[Tensor]:
    """Pool a layer's output ``(B, C)`` in the ways that heads do; none where it is no map."""
    try:
        grid = backbone.grid(output)
    except TTAMEError:
        return []
    ways = [grid.mean((2, 3)), grid.relu().mean((2, 3))]  # a ReLU may be no layer, as in a DenseNet
    return ways + ([output[:, 0]] if output.ndim == 3 else [])
