"""Transformer LRP: relevance and gradient of every attention matrix of a vision transformer."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ttame_core.classifiers.backbone import Backbone
from ttame_core.classifiers.hooks import traffic
from ttame_core.errors import NotServedError
from ttame_core.methods import Method
from ttame_core.methods.vit_attention import (
    Attended,
    attention_layers,
    class_token_map,
    open_attention,
    projections,
    roll_out,
)
from ttame_core.progress import Tell


def transformer_lrp(backbone: Backbone, progress: Tell | None = None) -> Method:
    """Transformer LRP (Chefer, Gur & Wolf, CVPR 2021), a value a patch.

    The positive part of gradient x relevance of the attention, averaged over heads, is rolled out.
    It serves ViTs of torchvision and timm.
    """
    blocks = transformer_blocks(backbone)

    def explain(images: Tensor, classes: Tensor) -> Tensor:
        # an image at a time: the rules divide by sums that may all but vanish, which amplifies the
        # rounding of matrix products, and that depends on the batch
        maps: list[Tensor] = []
        for image, c in zip(images.split(1), classes.split(1), strict=True):
            found = relevance(backbone, blocks, image, c)
            pairs = zip(found.gradients, found.attention, strict=True)
            weighted = [(gradient * r).relu().mean(1) for gradient, r in pairs]
            maps.append(class_token_map(backbone, roll_out(weighted, normalise=False)))
            if progress:
                progress(len(maps), len(images))
        return torch.cat(maps)

    return explain


@dataclass(frozen=True)
class Block:
    """The parts of one pre-norm transformer block that relevance passes through."""

    whole: nn.Module
    attend: nn.Module
    norm: nn.Module  # before the MLP
    widen: nn.Linear
    narrow: nn.Linear


def transformer_blocks(backbone: Backbone) -> list[Block]:
    """Find the blocks of a ViT and their parts; raises a `NotServedError` for other classifiers."""
    names = {id(module): name for name, module in backbone.model.named_modules()}
    blocks = []
    for attend in attention_layers(backbone):
        whole = backbone.model.get_submodule(names[id(attend)].rpartition(".")[0])
        norm = getattr(whole, "ln_2", getattr(whole, "norm2", None))
        inner = getattr(whole, "mlp", nn.Module()).modules()
        linear = [m for m in inner if isinstance(m, nn.Linear)]
        if norm is None or len(linear) != 2 or getattr(attend, "gate", None) is not None:
            raise NotServedError(
                f"{names[id(whole)]!r} of {backbone.name} is no plain transformer block "
                "(norm, attention, norm, MLP of two layers)"
            )
        blocks.append(Block(whole, attend, norm, *linear))
    inside = {m for block in blocks for m in block.whole.modules()}
    heads = [m for m in backbone.model.modules() if isinstance(m, nn.Linear) and m not in inside]
    if len(heads) != 1:
        raise NotServedError(
            f"{backbone.name} has {len(heads)} linear layers beside its blocks, not one head"
        )
    return blocks


@dataclass(frozen=True)
class Relevance:
    """What LRP gives, for each block.

    The totals are the sums of the relevance that leaves the head and then each block, from the last
    down: 1 all the way, but that relevance of an output to which nothing contributes is lost.
    """

    attention: list[Tensor]  # (B, h, N, N) a block, relevance of its attention, first block first
    gradients: list[Tensor]  # (B, h, N, N) a block, of the class's logit with respect to that
    totals: list[Tensor]  # (B,) each


def relevance(
    backbone: Backbone, blocks: list[Block], images: Tensor, classes: Tensor
) -> Relevance:
    """Propagate relevance from a class's logit, one-hot, back to every attention matrix.

    alpha = 1, beta = 0: z+ rule without bias for linear layers, identity for norms and activations,
    shares with the total conserved for additions, ``x * grad(R / z)`` with half to each operand for
    products. Takes `transformer_blocks`, images ``(B, 3, H, W)`` in [0, 1] and classes ``(B,)``.
    """
    head = [m for m in backbone.model.modules() if isinstance(m, nn.Linear)][-1]
    watched = [head, *(m for b in blocks for m in (b.whole, b.norm, b.widen, b.narrow))]
    with (
        torch.enable_grad(),
        open_attention([b.attend for b in blocks]) as attended,
        traffic(watched) as seen,
    ):
        logits = backbone(images)
        score = logits.gather(1, classes[:, None]).sum()
        gradients = torch.autograd.grad(score, [a.attention for a in attended])
    with torch.no_grad():
        one_hot = torch.zeros_like(logits).scatter_(1, classes[:, None], 1.0)
        at_head = linear_rule(one_hot, seen[head][0], head.weight)  # (B, D)
        current = torch.zeros_like(seen[blocks[-1].whole][1])  # (B, N, D)
        current[:, 0] = at_head  # the class token alone is read
        relevances, totals = [], [current.sum((1, 2))]
        for block, record in zip(reversed(blocks), reversed(attended), strict=True):
            of_attention, current = block_rule(current, block, record, seen)
            relevances.append(of_attention)
            totals.append(current.sum((1, 2)))
    return Relevance(relevances[::-1], list(gradients), totals)


def block_rule(
    relevance: Tensor,
    block: Block,
    attended: Attended,
    seen: dict[nn.Module, tuple[Tensor, Tensor]],
) -> tuple[Tensor, Tensor]:
    """Pass relevance ``(B, N, D)`` down through one block.

    Gives that of its attention matrices ``(B, h, N, N)`` and of its input ``(B, N, D)``.
    """
    start, end = seen[block.whole]
    middle = seen[block.norm][0]
    of_middle, of_mlp = addition_rule(relevance, middle, end - middle)
    of_mlp = linear_rule(of_mlp, seen[block.narrow][0], block.narrow.weight)
    of_mlp = linear_rule(of_mlp, seen[block.widen][0], block.widen.weight)
    of_start, of_attending = addition_rule(of_middle + of_mlp, start, middle - start)
    weight, _, project = projections(block.attend)
    of_context = linear_rule(of_attending, attended.context, project.weight)
    of_heads = of_context.unflatten(2, (attended.value.shape[1], -1)).transpose(1, 2)
    of_attention, of_value = product_rule(of_heads, attended.attention, attended.value)
    of_query, of_key = product_rule(of_attention, attended.query, attended.key.transpose(2, 3))
    parts = torch.stack([of_query, of_key.transpose(2, 3), of_value])  # (3, B, h, N, d)
    of_qkv = parts.permute(1, 3, 0, 2, 4).flatten(2)  # (B, N, 3D)
    return of_attention, of_start + linear_rule(of_qkv, attended.inputs, weight)


def linear_rule(relevance: Tensor, inputs: Tensor, weight: Tensor) -> Tensor:
    """z+ rule: inputs ``(..., in)`` share an output's relevance by their positive contributions.

    Takes relevance ``(..., out)`` and weight ``(out, in)``; gives ``(..., in)``.
    """
    # a product is positive where both factors are, or neither is
    above, below = inputs.clamp(min=0), inputs.clamp(max=0)
    rising, falling = weight.clamp(min=0), weight.clamp(max=0)
    share = divided(relevance, above @ rising.T + below @ falling.T)
    return above * (share @ rising) + below * (share @ falling)


def addition_rule(relevance: Tensor, first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    """Share relevance ``(B, N, D)`` between two summands, the total by their sums."""
    # shares of either sign may be huge and cancel: scaled to sizes, they stay bounded and conserved
    share = divided(relevance, first + second)
    parts = [first * share, second * share]
    sums = [part.sum((1, 2), keepdim=True) for part in parts]
    total = relevance.sum((1, 2), keepdim=True)
    both = sums[0].abs() + sums[1].abs()
    return tuple(  # type: ignore[return-value]
        part * divided(total * s.abs(), both * s) for part, s in zip(parts, sums, strict=True)
    )


def product_rule(relevance: Tensor, left: Tensor, right: Tensor) -> tuple[Tensor, Tensor]:
    """Share relevance of a matrix product ``left @ right`` between its operands, half to each."""
    share = divided(relevance, left @ right)
    return left * (share @ right.transpose(2, 3)) / 2, right * (left.transpose(2, 3) @ share) / 2


def divided(numerator: Tensor, denominator: Tensor) -> Tensor:
    """Divide, with 0 where the denominator is 0."""
    zero = denominator == 0
    return torch.where(zero, 0.0, numerator / torch.where(zero, 1.0, denominator))
