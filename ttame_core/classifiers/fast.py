"""A frozen classifier made cheaper: batch norms folded, layers packed, reduced precision."""

import math
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from timm.layers import BatchNormAct2d
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

from ttame_core.classifiers.hooks import hooked, listened_to, unwrap_logits
from ttame_core.classifiers.packed import pack
from ttame_core.classifiers.probe import frozen_twin
from ttame_core.classifiers.taps import blank
from ttame_core.errors import TTAMEError, check_known

PRECISIONS = ("auto", "float32", "bfloat16", "own")
"""``auto`` is bfloat16 on GPUs that have it, and the weights' own precision elsewhere; ``own`` is
theirs everywhere, and the classifier as it came."""
CLOSE = 1e-4
"""How far logits of the folded classifier may be from its own, in shares of the largest."""


class Fast:
    """Makes the cheaper twin of a classifier when it is first run, and anew once weights change.

    A change is seen that PyTorch counts, as of all that an optimiser or a checkpoint writes in
    place, or that puts another tensor or memory in the stead of one. What is written in place
    through ``weight.data``, or a NumPy array that shares its memory, leaves no trace: to find it,
    all weights would have to be read, and a GPU waited for. Write under ``torch.no_grad()``
    instead, or make the backbone anew.

    Where gradients of its own are wanted, or a mode other than evaluation, it is not for it.
    Raises a TTAMEError for a precision that is not of `PRECISIONS`.
    """

    def __init__(self, precision: str = "auto"):
        check_known("precision", precision, PRECISIONS)
        self.precision = precision
        self._running: nn.Module | None = None
        self._source: nn.Module | None = None
        self._modules: list[nn.Module] = []
        self._twin: nn.Module | None = None
        self._lacking: set[str] = set()
        self._state: list[tuple] = []
        self._made_of: list[Tensor] = []

    def __reduce__(self) -> tuple:
        return Fast, (self.precision,)

    @contextmanager
    def running(
        self, model: nn.Module, size: int, layers: Iterable[str] = (), frozen: bool = True
    ) -> Iterator[nn.Module]:
        """Choose what runs, and is listened to, in the block and in those inside it; see `of`.

        Raises a TTAMEError where a block around it has chosen what cannot be listened to here.
        """
        outer = self._running
        if outer is not None and outer is self._twin and not self._lacking.isdisjoint(layers):
            raise TTAMEError(
                f"the layers {sorted(self._lacking.intersection(layers))} are folded into others where another layer's "
                "output is replaced; tap them outside of that block"
            )
        self._running = outer or (self.of(model, size, layers) if frozen else model)
        try:
            yield self._running
        finally:
            self._running = outer

    def of(self, model: nn.Module, size: int, layers: Iterable[str] = ()) -> nn.Module:
        """Return the cheaper twin of a classifier, or the classifier itself.

        It is itself where that is asked for, where something listens to its modules, or others were
        put among them, or where one of the layers to be listened to is a convolution that took up
        the batch norm behind it.
        """
        if self.precision == "own":
            return model
        modules, tensors = parts_of(model)
        if self._source is not model:
            self._source, self._modules, self._twin = model, modules, None
        if modules != self._modules or listened_to(modules):
            return model
        # optimisers and checkpoints count up a version; no weight is read, and no GPU waited for
        state = [(tensor.data_ptr(), tensor._version) for tensor in tensors]
        if state != self._state or self._twin is None:
            dtype = dtype_of(self.precision, blank(model, 1))
            self._twin, self._lacking = cheaper(model, size, dtype)
            # their memory is held, so that no other tensor comes to lie where they do
            self._state, self._made_of = state, [tensor.detach() for tensor in tensors]
        return self._twin if self._lacking.isdisjoint(layers) else model


def parts_of(model: nn.Module) -> tuple[list[nn.Module], list[Tensor]]:
    """List the modules that a model has now, and their parameters and buffers."""
    modules: list[nn.Module] = [model]
    tensors: list[Tensor] = []
    for module in modules:  # which grows; PyTorch's own iterators take six times as long
        modules += (child for child in module._modules.values() if child is not None)
        for own in (module._parameters, module._buffers):
            tensors += (tensor for tensor in own.values() if tensor is not None)
    return modules, tensors


def dtype_of(precision: str, reference: Tensor) -> torch.dtype:
    """Choose in which precision a classifier runs whose weights are like the reference."""
    if precision not in ("auto", "own"):
        return getattr(torch, precision)
    # a CPU keeps float32 even where it has bfloat16: a number would depend on the CPU's age
    on_gpu = reference.device.type == "cuda" and reference.dtype == torch.float32
    if on_gpu and precision == "auto" and torch.cuda.is_bf16_supported(including_emulation=False):
        return torch.bfloat16
    return reference.dtype


@torch.inference_mode(False)
@torch.no_grad()
def cheaper(model: nn.Module, size: int, dtype: torch.dtype) -> tuple[nn.Module, set[str]]:
    """Copy a classifier, folded, packed, in a precision; the convolutions that are not as before.

    What is neither folded nor converted shares its memory with the model.
    """
    inputs = blank(model, size)
    if inputs.is_meta:
        return model, set()
    inputs = torch.rand(inputs.shape, generator=torch.Generator().manual_seed(0)).to(inputs)
    twin, lacking = folded(model, inputs)
    twin = frozen_twin(model) if twin is model else twin
    twin.to(dtype).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    if inputs.is_cpu:
        pack(twin)
    return twin, lacking


def folded(model: nn.Module, inputs: Tensor) -> tuple[nn.Module, set[str]]:
    """Copy a classifier with its batch norms folded into the convolutions in front of them.

    Takes standardised images ``(2, 3, H, W)`` to find the pairs by, and to compare logits. Returns
    the model itself where there are none, or where folding changes what it says.
    """
    pairs = batch_norms_behind(model, inputs)
    if not pairs:
        return model, set()
    twin = frozen_twin(model)
    for conv_name, norm_name in pairs.items():
        conv: Any = twin.get_submodule(conv_name)
        norm: Any = twin.get_submodule(norm_name)
        statistics = norm.running_mean, norm.running_var, norm.eps, norm.weight, norm.bias
        weight, bias = fuse_conv_bn_weights(conv.weight, conv.bias, *statistics)
        conv.weight, conv.bias = (nn.Parameter(t.detach(), False) for t in (weight, bias))
        rest = {"drop": norm.drop, "act": norm.act} if isinstance(norm, BatchNormAct2d) else {}
        twin.set_submodule(norm_name, nn.Sequential(OrderedDict(rest)))  # an empty one passes on
    before, after = (unwrap_logits(each(inputs)).float() for each in (model, twin))
    if (before - after).abs().max() > CLOSE * before.abs().max():
        return model, set()  # a convolution whose output has another reader too, perhaps
    taken = {model.get_submodule(name) for name in pairs}  # by all names that they have
    return twin, {n for n, m in model.named_modules(remove_duplicate=False) if m in taken}


def batch_norms_behind(model: nn.Module, inputs: Tensor) -> dict[str, str]:
    """Find the convolutions whose output goes straight into a batch norm, each run once."""
    kinds = nn.Conv2d, nn.BatchNorm2d
    named: dict[Any, str] = {m: name for name, m in model.named_modules() if isinstance(m, kinds)}
    runs: list[tuple[nn.Module, Any, Any]] = []

    def keep(module: nn.Module, args: tuple, output: Any) -> None:
        runs.append((module, args[0], output))

    with hooked(dict.fromkeys(named, keep)):
        model(inputs)
    made_by = {id(output): module for module, _, output in runs if isinstance(module, nn.Conv2d)}
    modules = [module for module, *_ in runs]
    pairs = {}
    for norm, taken, _ in runs:
        conv = made_by.get(id(taken))
        once = conv is not None and modules.count(conv) == modules.count(norm) == 1
        if once and foldable(norm) and not hasattr(conv, "parametrizations"):
            pairs[named[conv]] = named[norm]
    return pairs


def foldable(norm: nn.Module) -> bool:
    """Say whether a module is a batch norm of a known kind that has statistics and weights."""
    return type(norm) in (nn.BatchNorm2d, BatchNormAct2d) and norm.running_mean is not None


FORWARD, GRADIENTS = 64e6, 256e6
"""Bytes that an image of 224 x 224 needs at most: a VGG-16 forward 40 MB, IIA of a ViT-B 131 MB."""


def batch_that_suits(images: Tensor, each: float = FORWARD) -> int:
    """Choose how many images ``(B, 3, H, W)`` to pass at once, for their size and device.

    ``each`` are the bytes that one of 224 x 224 pixels needs.
    """
    size = images.shape[-1] * images.shape[-2] / 224**2
    if images.device.type == "cpu":  # 8 images' maps about fill its caches, more are slower
        return max(1, int(8 / size))
    # a GPU wants to be full
    return max(1, int(min(128 / size, fitting(images.device, each * size))))


def fitting(device: torch.device, each: float) -> float:
    """Say how many things of so many bytes each fit into half of a device's free memory."""
    if device.type != "cuda":
        return math.inf
    free, _ = torch.cuda.mem_get_info(device)
    # what PyTorch keeps for itself, and does not use, is free too
    free += torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return free / 2 / each
