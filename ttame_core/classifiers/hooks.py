"""Reading and changing a model's layers: one hook manager, whose hooks always go away."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

Hook = Callable[[nn.Module, tuple, Any], Any]
"""Takes a module, the arguments and the output of its call; gives None, or another output."""


@contextmanager
def hooked(hooks: Mapping[Any, Hook]) -> Iterator[None]:
    """Call hooks after their modules have run, while the block does."""
    handles = [module.register_forward_hook(hook) for module, hook in hooks.items()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def capture(model: nn.Module, layers: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Collect the outputs of layers by their names, in the order in which they run in the block."""
    outputs: dict[str, Any] = {}

    def keeping(layer: str) -> Hook:
        def keep(module: nn.Module, args: tuple, output: Any) -> None:
            output = unwrap_features(output)
            # copied: a ReLU behind the layer may work in place
            outputs[layer] = output.clone() if isinstance(output, Tensor) else output

        return keep

    modules = dict(model.named_modules())
    with hooked({modules[layer]: keeping(layer) for layer in layers}):
        yield outputs


@contextmanager
def traffic(modules: Sequence[nn.Module]) -> Iterator[dict[nn.Module, tuple[Any, Any]]]:
    """Collect the first input and the output of modules, detached, while the block runs."""
    seen: dict[nn.Module, tuple[Any, Any]] = {}

    def keep(module: nn.Module, args: tuple, output: Any) -> None:
        seen[module] = (args[0].detach(), output.detach())

    with hooked(dict.fromkeys(modules, keep)):
        yield seen


@contextmanager
def replaced_output(layer: nn.Module, edit: Callable[[Tensor], Tensor]) -> Iterator[None]:
    """Let the layers behind one see its output edited, while the block runs.

    The edited output may hold more images than went in: where a connection goes round the layer,
    one image broadcasts against its variants.
    """
    with hooked({layer: lambda module, args, output: edit(output)}):
        yield


def unwrap_logits(output: Any) -> Tensor:
    """Take the logits out of what a classifier returns: an object's, or the first of a tuple."""
    output = getattr(output, "logits", output)
    return output[0] if isinstance(output, (tuple, list)) else output


def unwrap_features(output: Any) -> Any:
    """Take the tensor out of what a layer returns: an object's, or the first of a tuple."""
    output = getattr(output, "last_hidden_state", output)
    return output[0] if isinstance(output, (tuple, list)) and output else output
