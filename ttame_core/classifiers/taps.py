"""Taps: the layers of a classifier whose outputs are feature maps, and which of them to take."""

import math
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models import VisionTransformer

from ttame_core.classifiers.hooks import capture, unwrap_features
from ttame_core.classifiers.probe import run
from ttame_core.errors import NotServedError, TTAMEError, nearest, told

TAPS: dict[str, dict[str, tuple[str, ...]]] = {
    "vgg16": {
        "max-pool": ("features.16", "features.23", "features.30"),
        "conv": ("features.15", "features.22", "features.29"),
    },
    "squeezenet1_1": {"stages": ("features.4", "features.7", "features.12")},
    "resnet50": {"stages": ("layer2", "layer3", "layer4")},
    # bn2: the last convolution, activated
    "efficientnet_lite0": {"stages": ("blocks.2", "blocks.4", "bn2")},
}
"""Named sets of taps; the first of a backbone is its default."""
ATTENTION_NORMS = ("ln_1", "norm1", "layernorm_before")
"""What torchvision, timm and Hugging Face call the norm in front of a block's attention."""
Shape = tuple[int, int, int]
"""Channels, height and width of a feature map."""


def to_grid(
    output: Any, tap: str, prefix: int | None = None, size: tuple[int, int] = (1, 1)
) -> Tensor:
    """Adapt a layer's output to a feature map ``(B, C, h, w)`` (the adapter of Sec. III-C).

    Takes ``(B, C, h, w)``, channels-last ``(B, h, w, C)`` or tokens ``(B, N, D)``, the first of a
    tuple, or an object's ``.last_hidden_state``. Drops ``prefix`` tokens (class token, registers),
    or what is left over a grid of the images' proportions, height and width ``size``. Raises a
    TTAMEError that names the layer ``tap`` for anything else.
    """
    output = unwrap_features(output)
    if isinstance(output, Tensor):
        shape = output.shape
        if output.ndim == 4:
            grids = [(_off(shape[i], shape[i + 1], size), i) for i in (2, 1)]
            # both may be alike, of few channels; channels come first where nothing tells
            fitting = [(off, -i) for off, i in grids if _alike(shape[i], shape[i + 1], size)]
            if fitting:
                return output if min(fitting)[1] == -2 else output.permute(0, 3, 1, 2)
        if output.ndim == 3:
            # 197 tokens are 1 + 14 x 14: what stands before the patches has no place in the image;
            # what a model says of that holds at its end, and the class token may come in late
            for extra in (prefix, _left_over(shape[1], size)):
                count = shape[1] - extra if extra is not None else 0
                height = round(math.sqrt(max(count, 0) * size[0] / size[1]))
                if height > 0 and count % height == 0 and _alike(height, count // height, size):
                    grid = output[:, extra:].transpose(1, 2)
                    return grid.unflatten(2, (height, count // height))
    found = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
    raise TTAMEError(
        f"the output of {tap!r} is no feature map: {found}; expected (B, C, h, w), (B, h, w, C) or tokens "
        "(B, N, D) on a grid of the image's proportions, of more than one cell. list_taps(name) shows which layers will do"
    )


def _alike(height: int, width: int, size: tuple[int, int]) -> bool:
    """Say whether a grid of more than one cell has an image's proportions, up to rounding."""
    if size[0] == size[1]:
        return height == width > 1
    # a side that a stride does not divide is rounded, up or down
    off = _off(height, width, size)
    return min(height, width) > 0 < height * width - 1 and off < max(size)


def _off(height: int, width: int, size: tuple[int, int]) -> int:
    """Say how far a grid's proportions are from an image's."""
    return abs(height * size[1] - width * size[0])


def _left_over(count: int, size: tuple[int, int]) -> int:
    """Count the tokens that are left over the largest grid of an image's proportions."""
    for extra in range(count):
        height = round(math.sqrt((count - extra) * size[0] / size[1]))
        width, rest = divmod(count - extra, max(height, 1))
        if not rest and _alike(height, width, size):
            return extra
    return 0


def default_taps(model: nn.Module, size: int) -> tuple[str, ...]:
    """Choose three taps: the ends of the last three stages, or the last three like-built blocks.

    timm's own list of stages is used where there is one. Takes the side of the images, in pixels;
    raises a TTAMEError if fewer than three can be found.
    """
    shapes = tappable(model, size)
    info = getattr(model, "feature_info", None)
    if isinstance(model, VisionTransformer):  # its stem may be a pyramid of its own
        taps = [f"encoder.layers.{name}" for name, _ in model.encoder.layers.named_children()][-3:]
    elif info is not None:
        info = info if isinstance(info, list) else list(getattr(info, "info", info))
        stages = [i["module"] if isinstance(i, dict) else i for i in info]
        taps = [s for s in stages if s in shapes][-3:]
    else:
        # the last layer of each map size ends a stage; deeper names are insides of a stage, and a
        # pool to a fixed size (VGG's, AlexNet's) is none
        pools = {n for n, m in model.named_modules() if isinstance(m, nn.AdaptiveAvgPool2d)}
        for depth in (0, 1):
            names = [n for n in shapes if n.count(".") <= depth and n not in pools]
            ends = {shapes[n][1:]: n for n in names}
            if len(ends) >= 3:
                break
        else:
            ends = _stage_ends(shapes)
        taps = list(ends.values())[-3:]
        if len(taps) < 3:
            taps = _like_built(model, shapes)[-3:]
    if len(taps) < 3:
        raise TTAMEError(
            f"no three default taps found in {type(model).__name__}; choose some, e.g. taps={list(shapes)[-3:]}"
        )
    return tuple(taps)


def check_taps(
    model: nn.Module, taps: Sequence[str], name: str, size: int, prefix: str = ""
) -> None:
    """Raise a TTAMEError for no taps, one named twice, or no layer of the classifier.

    The prefix is what names may begin with where the classifier was wrapped.
    """
    layers = dict(model.named_modules(remove_duplicate=False))
    if isinstance(taps, str) or not isinstance(taps, Sequence) or not taps:
        raise TTAMEError(
            f"the taps of {name} are {told(taps)}; expected a list of at least one layer, see list_taps(name)"
        )
    if any(taps.count(tap) > 1 for tap in taps):
        raise TTAMEError(f"the taps of {name} are {list(taps)}; name each layer once")
    for tap in taps:
        plain = tap.removeprefix(prefix) if isinstance(tap, str) else ""
        if not plain or plain not in layers:
            hint = nearest(tap, tappable(model, size))
            raise TTAMEError(f"{name} has no layer {tap!r} to tap; {hint}")


def _stage_ends(shapes: dict[str, Shape]) -> dict[tuple[int, int], str]:
    """Name the last layer of each map size in the one module that has most of these sizes."""
    modules: dict[str, dict[tuple[int, int], str]] = {}
    for name, shape in shapes.items():
        modules.setdefault(name.rpartition(".")[0], {})[shape[1:]] = name
    return max(modules.values(), key=len, default={})


def _like_built(model: nn.Module, shapes: dict[str, Shape]) -> list[str]:
    """Name the layers of the largest family of siblings of one kind."""
    families: dict[tuple, list[str]] = {}
    for name, module in model.named_modules():
        if name in shapes:
            families.setdefault((name.rpartition(".")[0], type(module)), []).append(name)
    return max(families.values(), key=len, default=[])


def blocks_over_depth(model: nn.Module, last: str) -> tuple[str, ...]:
    """Choose the blocks at a quarter, half and three quarters of a transformer's depth.

    Of twelve blocks the fourth, seventh and tenth; ``last`` is the name of one of them. Raises a
    `NotServedError` if fewer than four layers in a sequence are built like that one.
    """
    parent, kind = last.rpartition(".")[0], type(model.get_submodule(last))
    blocks = [n for n, m in model.get_submodule(parent).named_children() if type(m) is kind]
    if len(blocks) < 4:
        raise NotServedError(
            f"taps 'spread' need four blocks alike in one sequence, and of {last}'s kind there are {len(blocks)}; name the taps"
        )
    prefix = f"{parent}." if parent else ""
    return tuple(f"{prefix}{blocks[len(blocks) * k // 4]}" for k in (1, 2, 3))


def norms_over_depth(model: nn.Module, last: str) -> tuple[str, ...]:
    """Choose the norms in front of the attention of the blocks that `blocks_over_depth` chooses."""
    return attention_norms(model, blocks_over_depth(model, last))


OVER_DEPTH = {"spread": blocks_over_depth, "spread-norms": norms_over_depth}
"""Sets of taps that any transformer has: over its depth, from one of its blocks."""


def attention_norm(model: nn.Module, block: str) -> str:
    """Name the norm in front of a transformer block's attention: its tokens are at unit scale.

    Raises a `NotServedError` if there is none of a known name.
    """
    children = dict(model.get_submodule(block).named_children())
    for name in ATTENTION_NORMS:
        if name in children:
            return f"{block}.{name}"
    raise NotServedError(
        f"no norm before the attention found in {block!r}, looked for {', '.join(ATTENTION_NORMS)}; "
        "tap the outputs of transformer blocks"
    )


def attention_norms(model: nn.Module, blocks: Iterable[str]) -> tuple[str, ...]:
    """Name the norms in front of the attention of several blocks; see `attention_norm`."""
    return tuple(attention_norm(model, block) for block in blocks)


def prefix_tokens(model: nn.Module) -> int | None:
    """Class token and registers, where the model says how many (timm)."""
    count = getattr(model, "num_prefix_tokens", None)
    return count if isinstance(count, int) else None


def blank(model: nn.Module, size: int) -> Tensor:
    """Make two black images ``(2, 3, size, size)`` for a model, on its device."""
    # two, as one image could not be told from one window of it: layers that cut images up give more
    reference = next((p for p in model.parameters() if p.is_floating_point()), torch.empty(0))
    return torch.zeros(2, 3, size, size, device=reference.device, dtype=reference.dtype)


@torch.no_grad()
def tappable(model: nn.Module, size: int) -> dict[str, Shape]:
    """List the layers whose outputs are feature maps, as they run, a parent after its children."""
    names = [n for n, _ in model.named_modules() if n]
    with capture(model, names) as outputs:
        run(model, blank(model, size), type(model).__name__)
    shapes: dict[str, Shape] = {}
    for name, output in outputs.items():
        try:
            count, c, h, w = to_grid(output, name, prefix_tokens(model), (size, size)).shape
        except TTAMEError:
            continue
        if count == 2 and c > 1:  # whole images, not windows; tokens, not a pooled vector
            shapes[name] = (c, h, w)
    return shapes
