"""Taps: the layers of a classifier whose outputs are feature maps, and which of them to take."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models import VisionTransformer

from ttame_core.errors import NotServedError, TTAMEError
from ttame_core.layers import capture, to_grid
from ttame_core.zoo import LITE0, Preprocessing, build

TAPS: dict[str, dict[str, tuple[str, ...]]] = {
    "vgg16": {
        "max-pool": ("features.16", "features.23", "features.30"),
        "conv": ("features.15", "features.22", "features.29"),
    },
    "demo_vgg": {
        "max-pool": ("features.16", "features.23", "features.30"),
        "conv": ("features.15", "features.22", "features.29"),
    },
    "squeezenet1_1": {"stages": ("features.4", "features.7", "features.12")},
    "demo_resnet": {
        "stages": ("layer2", "layer3", "layer4"),
        "fine": ("relu", "layer1", "layer4"),  # relu: of the stem
    },
    "resnet50": {"stages": ("layer2", "layer3", "layer4")},
    LITE0: {"stages": ("blocks.2", "blocks.4", "bn2")},  # bn2: the last convolution, activated
}
"""Named sets of taps; the first of a backbone is its default."""
ATTENTION_NORMS = ("ln_1", "norm1", "layernorm_before")
"""What torchvision, timm and Hugging Face call the norm in front of a block's attention."""


def list_taps(name: str, **options: Any) -> dict[str, tuple[int, int, int]]:
    """List the layers of a classifier that can be tapped, in the order in which they run.

    Parameters
    ----------
    name : str
        See `load_backbone`.
    **options
        Passed on to the model's constructor.

    Returns
    -------
    dict of str to (C, h, w)
        Layer names and the shapes of their feature maps.
    """
    model, preprocessing = build(name, None, **options)
    return tappable(model, preprocessing.image_size)


def default_taps(model: nn.Module, preprocessing: Preprocessing) -> tuple[str, ...]:
    """Choose three taps: the ends of the last three stages, or the last three like-built blocks.

    Parameters
    ----------
    model : nn.Module
        Any classifier; timm's own list of stages is used where there is one.
    preprocessing : Preprocessing
        For the image size.

    Returns
    -------
    tuple of str

    Raises
    ------
    TTAMEError
        If fewer than three can be found.
    """
    shapes = tappable(model, preprocessing.image_size)
    info = getattr(model, "feature_info", None)
    if isinstance(model, VisionTransformer):  # its stem may be a pyramid of its own
        taps = [f"encoder.layers.{name}" for name, _ in model.encoder.layers.named_children()][-3:]
    elif info is not None:
        stages = [i["module"] if isinstance(i, dict) else i for i in _as_list(info)]
        taps = [s for s in stages if s in shapes][-3:]
    else:
        ends = {shapes[n][1:]: n for n in shapes if n.count(".") <= 1}  # last of each size, shallow
        if len(ends) < 3:
            ends = _stage_ends(shapes)
        taps = list(ends.values())[-3:]
        if len(taps) < 3:
            families: dict[tuple, list[str]] = {}
            for n, module in model.named_modules():
                if n in shapes:
                    families.setdefault((n.rpartition(".")[0], type(module)), []).append(n)
            taps = max(families.values(), key=len)[-3:] if families else []
    if len(taps) < 3:
        raise TTAMEError(
            f"no three default taps found in {type(model).__name__}; choose some, e.g. taps={list(shapes)[-3:]}"
        )
    return tuple(taps)


def _stage_ends(shapes: dict[str, tuple[int, int, int]]) -> dict[tuple[int, int], str]:
    """Name the last layer of each map size among those of one module, which has most of these sizes."""
    modules: dict[str, dict[tuple[int, int], str]] = {}
    for name, shape in shapes.items():
        modules.setdefault(name.rpartition(".")[0], {})[shape[1:]] = name
    return max(modules.values(), key=len, default={})


def spread_taps(model: nn.Module, last: str) -> tuple[str, ...]:
    """Choose the blocks at a quarter, half and three quarters of a transformer's depth.

    Parameters
    ----------
    model : nn.Module
        Holds its blocks in one sequence.
    last : str
        Name of one of the blocks.

    Returns
    -------
    tuple of str
        Of twelve blocks the fourth, seventh and tenth.

    Raises
    ------
    NotServedError
        If fewer than four layers beside it are built like the last one.
    """
    parent, kind = last.rpartition(".")[0], type(model.get_submodule(last))
    blocks = [n for n, m in model.get_submodule(parent).named_children() if type(m) is kind]
    if len(blocks) < 4:
        raise NotServedError(
            f"taps 'spread' need four blocks alike in one sequence, and of {last}'s kind there are {len(blocks)}; name the taps"
        )
    prefix = f"{parent}." if parent else ""
    return tuple(f"{prefix}{blocks[len(blocks) * k // 4]}" for k in (1, 2, 3))


def attention_norm(model: nn.Module, block: str) -> str:
    """Name the norm in front of the attention of a transformer's block.

    Parameters
    ----------
    model : nn.Module
        Holds the block.
    block : str
        Its name.

    Returns
    -------
    str
        Of the norm, whose output has every token at unit scale.

    Raises
    ------
    NotServedError
        If there is none of a known name.
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


def spread_norms(model: nn.Module, last: str) -> tuple[str, ...]:
    """Choose the norms in front of the attention of the blocks that `spread_taps` chooses."""
    return attention_norms(model, spread_taps(model, last))


SPREAD = {"spread": spread_taps, "spread-norms": spread_norms}
"""Sets of taps that any transformer has: over its depth, from one of its blocks."""


def prefix_tokens(model: nn.Module) -> int | None:
    """Class token and registers, where the model says how many (timm)."""
    count = getattr(model, "num_prefix_tokens", None)
    return count if isinstance(count, int) else None


def blank(model: nn.Module, size: int) -> Tensor:
    """Make two black images for a model, on its device: a layer whose output is not two has cut images up."""
    reference = next(model.parameters(), torch.empty(0))
    return torch.zeros(2, 3, size, size, device=reference.device, dtype=reference.dtype)


def _as_list(info: Any) -> list:
    return info if isinstance(info, list) else list(getattr(info, "info", info))


@torch.no_grad()
def tappable(model: nn.Module, size: int) -> dict[str, tuple[int, int, int]]:
    """List a model's layers whose outputs are feature maps of images of a size, with their shapes."""
    names = [n for n, _ in model.named_modules() if n]
    with capture(model, names) as outputs:
        model(blank(model, size))
    shapes: dict[str, tuple[int, int, int]] = {}
    for name, output in outputs.items():  # in the order of execution, a parent after its children
        try:
            count, c, h, w = to_grid(output, name, prefix_tokens(model)).shape
        except TTAMEError:
            continue
        if count != 2 or c == 1:  # windows of an image, not images; a pooled vector, not tokens
            continue
        shapes[name] = (c, h, w)
    return shapes
