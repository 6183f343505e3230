"""Vision transformers opened up: attention that can be read, scaled and differentiated; rollout."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import timm.layers
import torch
from torch import Tensor, nn

from ttame_core.classifiers.backbone import Backbone
from ttame_core.classifiers.heads import patches_reach
from ttame_core.classifiers.hooks import capture, hooked, unwrap_features
from ttame_core.classifiers.taps import blank
from ttame_core.errors import NotServedError
from ttame_core.masking import minmax
from ttame_core.methods import Method


@dataclass(frozen=True)
class Attended:
    """What the self-attention of one block computed, h heads on N tokens."""

    inputs: Tensor  # (B, N, D)
    query: Tensor  # (B, h, N, d), scaled already
    key: Tensor  # (B, h, N, d)
    value: Tensor  # (B, h, N, d)
    attention: Tensor  # (B, h, N, N), rows sum to 1 (unless scaled)
    context: Tensor  # (B, N, D), the input of the output projection


def attention_layers(backbone: Backbone) -> list[nn.Module]:
    """Find the self-attention of each block, first block first, of a ViT of torchvision or timm.

    Raises a `NotServedError` if it is no ViT with plain self-attention, images first, or its head
    reads more than a class token.
    """
    kinds = (nn.MultiheadAttention, timm.layers.Attention)
    named = [(n, m) for n, m in backbone.model.named_modules() if isinstance(m, kinds)]
    if not backbone.tokens:
        raise NotServedError(
            f"{backbone.name} is no ViT with plain self-attention and a class token"
        )
    if not named:
        library = type(backbone.model).__module__.partition(".")[0]
        raise NotServedError(
            f"{backbone.name}, of {library}, has no attention of torchvision's blocks (nn.MultiheadAttention) or timm's "
            "(timm.layers.Attention), and no other can be opened: load the ViT from one of these"
        )
    if not backbone.prefix_tokens:
        raise NotServedError(f"{backbone.name} has no class token, whose attention would be read")
    for name, layer in named:
        packed = getattr(layer, "in_proj_weight", layer) is not None
        if (
            backbone.calls.get(name, 1) != 1
            or not packed
            or not getattr(layer, "batch_first", True)
        ):
            raise NotServedError(
                f"the attention {name!r} of {backbone.name} does not run once, on images first, from one projection"
            )
    with capture(backbone.model, [name for name, _ in named]) as outputs, torch.no_grad():
        backbone(blank(backbone.model, backbone.preprocessing.image_size))
    if len({unwrap_features(output).shape[1] for output in outputs.values()}) > 1:
        raise NotServedError(f"the blocks of {backbone.name} have different numbers of tokens")
    *_, (last, patches_are_read) = patches_reach(backbone).items()
    if patches_are_read:
        raise NotServedError(
            f"the head of {backbone.name} reads patches, as they leave {last!r}, and not a class token alone"
        )
    return [layer for _, layer in named]


def projections(layer: nn.Module) -> tuple[Tensor, Tensor | None, nn.Linear]:
    """Return the weight ``(3D, D)`` and bias of query, key and value, and the output projection."""
    if isinstance(layer, nn.MultiheadAttention):
        return layer.in_proj_weight, layer.in_proj_bias, layer.out_proj
    return layer.qkv.weight, layer.qkv.bias, layer.proj  # type: ignore[union-attr, return-value]


@contextmanager
def open_attention(
    layers: Sequence[nn.Module], last_scale: Tensor | None = None, leaf: bool = False
) -> Iterator[list[Attended]]:
    """Run self-attention step by step while the block runs, and keep what it computes.

    Each forward pass adds to the list, a layer at a time. ``last_scale`` ``(B,)`` multiplies the
    last layer's attention matrices, which are a ``leaf`` where asked for: no gradient passes them.
    """
    records: list[Attended] = []

    def opened(layer: nn.Module) -> Callable:
        weight, bias, project = projections(layer)
        normalise = [getattr(layer, n, nn.Identity()) for n in ("q_norm", "k_norm")]
        heads: int = layer.num_heads  # type: ignore[assignment]
        packed = isinstance(layer, nn.MultiheadAttention)

        def forward(inputs: Tensor, *args, **options):
            count = inputs.shape[1]
            qkv = nn.functional.linear(inputs, weight, bias)
            query, key, value = qkv.unflatten(2, (3, heads, -1)).permute(2, 0, 3, 1, 4)
            query, key = normalise[0](query), normalise[1](key)
            query = query * query.shape[-1] ** -0.5
            attention = (query @ key.transpose(2, 3)).softmax(3)  # (B, h, N, N)
            if layer is layers[-1] and last_scale is not None:
                attention = attention * last_scale[:, None, None, None]
                attention = attention.detach() if leaf else attention
            # the graph starts at the first attention matrix: parameters are frozen, and nothing is
            # asked of what lies before it
            if torch.is_grad_enabled() and not attention.requires_grad:
                attention.requires_grad_()
            context = (attention @ value).transpose(1, 2).reshape(len(inputs), count, -1)
            records.append(Attended(inputs, query, key, value, attention, context))
            output = project(context)
            return (output, None) if packed else output

        return forward

    # a hook would come too late, and the layers' fused kernels show no attention matrix; hooks that
    # do nothing keep PyTorch's own encoder layers from a kernel of the whole layer
    try:
        for layer in layers:
            layer.forward = opened(layer)
        with hooked(dict.fromkeys(layers, lambda *_: None)):
            yield records
    finally:
        for layer in layers:
            layer.__dict__.pop("forward", None)


def roll_out(attentions: Sequence[Tensor], normalise: bool = True) -> Tensor:
    """Multiply the blocks' attention ``(B, N, N)``, first block first, each plus the identity.

    Where asked to ``normalise``, rows of ``A + I`` are scaled to sum to 1. The product
    ``(B, N, N)`` says how much each token's end (row) holds of each token's start (column).
    """
    product = torch.eye(attentions[0].shape[-1]).to(attentions[0])
    for attention in attentions:
        # the identity: a residual connection carries each token past the attention as it is
        step = attention + torch.eye(attention.shape[-1]).to(attention)
        if normalise:
            step = step / step.sum(2, keepdim=True)
        product = step @ product
    return product


def class_token_map(backbone: Backbone, mixing: Tensor) -> Tensor:
    """Take the class token's row of ``(B, N, N)``, patches only, as maps ``(B, h, w)``."""
    return minmax(backbone.grid(mixing[:, 0, :, None])[:, 0])


def attention_rollout(backbone: Backbone) -> Method:
    """Attention rollout (Abnar & Zuidema, ACL 2020), a value a patch; it ignores the class.

    It takes the attention of each block, averaged over heads, of a ViT of torchvision or timm.
    """
    layers = attention_layers(backbone)

    @torch.no_grad()
    def explain(images: Tensor, classes: Tensor) -> Tensor:
        with open_attention(layers) as blocks:
            backbone(images)
        return class_token_map(backbone, roll_out([b.attention.mean(1) for b in blocks]))

    return explain
