"""Reading a model's layers: hooks that go away, and outputs of any kind as feature maps."""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from ttame_core.errors import TTAMEError


@contextmanager
def capture(model: nn.Module, layers: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Collect the outputs of layers while the block runs; the hooks go with it.

    Parameters
    ----------
    model : nn.Module
        Any model.
    layers : sequence of str
        Names of its modules.

    Yields
    ------
    dict
        Filled with the layers' outputs, copied: a later in-place ReLU does not change them.
    """
    outputs: dict[str, Any] = {}

    def keep(layer: str):
        def hook(module: nn.Module, args: Any, output: Any) -> None:
            output = _unwrap(output)
            outputs[layer] = output.clone() if isinstance(output, Tensor) else output

        return hook

    modules = dict(model.named_modules())
    handles = [modules[layer].register_forward_hook(keep(layer)) for layer in layers]
    try:
        yield outputs
    finally:
        for handle in handles:
            handle.remove()


def batch_that_suits(images: Tensor) -> int:
    """Choose how many images to pass at once: few on a CPU, whose caches they should fit, many elsewhere.

    Parameters
    ----------
    images : Tensor
        ``(B, 3, H, W)``, for size and device.

    Returns
    -------
    int
        On a CPU as many pixels as eight images of 224 x 224 have.
    """
    share = 8 if images.device.type == "cpu" else 64
    return max(1, share * 224**2 // (images.shape[-1] * images.shape[-2]))


@contextmanager
def replaced_output(layer: nn.Module, edit: Callable[[Tensor], Tensor]) -> Iterator[None]:
    """Let the layers behind one see something else in place of its output, while the block runs.

    The edited output may hold more images than went in: where a connection goes round the layer, one image
    broadcasts against its variants.

    Parameters
    ----------
    layer : nn.Module
        A layer whose output is a tensor.
    edit : callable
        Output to what takes its place.
    """
    handle = layer.register_forward_hook(lambda module, args, output: edit(output))
    try:
        yield
    finally:
        handle.remove()


def to_grid(output: Any, tap: str, prefix: int | None = None) -> Tensor:
    """Adapt a layer's output to a feature map (the feature map adapter of Sec. III-C).

    Parameters
    ----------
    output : Tensor or tuple or object
        ``(B, C, h, w)``, channels-last ``(B, h, w, C)``, or tokens ``(B, N, D)``; the first of a tuple;
        ``.last_hidden_state`` of an object that has one.
    tap : str
        Name of the layer, for the error.
    prefix : int, optional
        Prefix tokens (class token, registers); by default what is left over a square grid.

    Returns
    -------
    Tensor
        ``(B, C, h, w)``.

    Raises
    ------
    TTAMEError
        If it is no feature map.
    """
    output = _unwrap(output)
    if isinstance(output, Tensor):
        shape = output.shape
        if output.ndim == 4 and shape[2] == shape[3] > 1:
            return output
        if output.ndim == 4 and shape[1] == shape[2] > 1:
            return output.permute(0, 3, 1, 2)
        if output.ndim == 3:
            extra = shape[1] - math.isqrt(shape[1]) ** 2 if prefix is None else prefix
            side = math.isqrt(shape[1] - extra)
            if side > 1 and side * side == shape[1] - extra:
                return output[:, extra:].transpose(1, 2).unflatten(2, (side, side))
    found = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
    raise TTAMEError(
        f"the output of {tap!r} is no feature map: {found}; expected (B, C, h, w), (B, h, w, C) or tokens "
        "(B, N, D) on a square grid of more than one cell. list_taps(name) shows which layers will do"
    )


def unwrap_logits(output: Any) -> Tensor:
    """Take the logits out of whatever a classifier returns."""
    output = getattr(output, "logits", output)
    return output[0] if isinstance(output, (tuple, list)) else output


def _unwrap(output: Any) -> Any:
    output = getattr(output, "last_hidden_state", output)
    return output[0] if isinstance(output, (tuple, list)) and output else output
