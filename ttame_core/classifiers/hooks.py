"""Reading and changing a model's layers: one hook manager, whose hooks always go away."""

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import copy
from typing import Any

from torch import Tensor, nn

Hook = Callable[[nn.Module, tuple, Any], Any]
"""Takes a module, the arguments and the output of its call; gives None, or another output."""


class Turn:
    """A lock that its thread may take again; a copy of what holds it has its own."""

    def __init__(self) -> None:
        self._lock, self.depth = threading.RLock(), 0

    def __enter__(self) -> int:
        self._lock.acquire()
        self.depth += 1
        return self.depth

    def __exit__(self, *_: object) -> None:
        self.depth -= 1
        self._lock.release()

    def __reduce__(self) -> tuple:
        return Turn, ()


@contextmanager
def hooked(hooks: Mapping[Any, Hook]) -> Iterator[None]:
    """Call hooks after their modules have run, while the block does."""
    handles = [module.register_forward_hook(hook) for module, hook in hooks.items()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def listened_to(modules: Iterable[nn.Module]) -> bool:
    """Say whether anything hooks one of the modules."""
    return any(
        m._forward_hooks or m._forward_pre_hooks or m._backward_hooks or m._backward_pre_hooks
        for m in modules
    )


@contextmanager
def capture(
    model: nn.Module, layers: Iterable[str], copied: bool = True
) -> Iterator[dict[str, Any]]:
    """Collect the outputs of layers by their names, in the order in which they last run.

    Copies stay as the layers gave them; gradients reach the outputs themselves alone.
    """
    outputs: dict[str, Any] = {}

    def keeping(layer: str) -> Hook:
        def keep(module: nn.Module, args: tuple, output: Any) -> None:
            output = unwrap_features(output)
            outputs.pop(layer, None)  # of several calls the last counts, in its place in the order
            # a ReLU behind the layer may work in place
            outputs[layer] = output.clone() if copied and isinstance(output, Tensor) else output

        return keep

    with hooked({model.get_submodule(layer): keeping(layer) for layer in layers}):
        yield outputs


@contextmanager
def counted_calls(model: nn.Module) -> Iterator[dict[str, int]]:
    """Count how often each module of a model is called, by its names, while the block runs."""
    named = list(model.named_modules(remove_duplicate=False))
    calls = dict.fromkeys(dict(named), 0)

    def counting(module: nn.Module) -> Hook:
        own = [name for name, other in named if other is module]

        def count(*_: Any) -> None:
            calls.update({name: calls[name] + 1 for name in own})

        return count

    with hooked({module: counting(module) for module in dict.fromkeys(m for _, m in named)}):
        yield calls


@contextmanager
def traffic(modules: Sequence[nn.Module]) -> Iterator[dict[nn.Module, tuple[Any, Any]]]:
    """Collect the first input and the output of modules, detached, while the block runs."""
    seen: dict[nn.Module, tuple[Any, Any]] = {}

    def keep(module: nn.Module, args: tuple, output: Any) -> None:
        seen[module] = (args[0].detach(), output.detach())

    with hooked(dict.fromkeys(modules, keep)):
        yield seen


@contextmanager
def replaced_output(
    layer: nn.Module, edit: Callable[[Tensor], Tensor], calls: int = 1
) -> Iterator[None]:
    """Let the layers behind one see its output edited, while the block runs.

    The edited output may hold more images than went in: where a connection goes round the layer,
    one image broadcasts against its variants. Of a layer that each forward pass calls several
    times, the last call's output is edited. What comes with the tensor, in a tuple or an object,
    stays.
    """
    called = 0

    def hook(module: nn.Module, args: tuple, output: Any) -> Any:
        nonlocal called
        called += 1
        return rewrap(output, edit(unwrap_features(output))) if called % calls == 0 else output

    with hooked({layer: hook}):
        yield


def unwrap_logits(output: Any) -> Any:
    """Take the logits out of what a classifier returns: an object's, or the first of a tuple."""
    if isinstance(output, Mapping) and "logits" in output:
        return output["logits"]
    output = getattr(output, "logits", output)
    return output[0] if isinstance(output, (tuple, list)) and output else output


def unwrap_features(output: Any) -> Any:
    """Take the tensor out of what a layer returns: an object's, or the first of a tuple."""
    while not isinstance(output, Tensor):
        if hasattr(output, "last_hidden_state"):
            output = output.last_hidden_state
        elif isinstance(output, (tuple, list)) and output:
            output = output[0]
        else:
            break
    return output


def rewrap(output: Any, tensor: Tensor) -> Any:
    """Put a tensor where `unwrap_features` finds one in what a layer returns."""
    if isinstance(output, Tensor):
        return tensor
    if hasattr(output, "last_hidden_state"):
        changed = copy(output)
        changed.last_hidden_state = rewrap(output.last_hidden_state, tensor)
        return changed
    # the same tensor may be there twice: as the layer's map, and as what goes on
    parts = [rewrap(output[0], tensor), *(tensor if o is output[0] else o for o in output[1:])]
    return type(output)(*parts) if hasattr(output, "_fields") else type(output)(parts)
