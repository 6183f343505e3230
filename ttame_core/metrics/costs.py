"""What an explanation costs: passes, arithmetic, time and memory, counted and measured."""

import os
import time
import weakref
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any

import pandas as pd
import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode
from torch.utils.module_tracker import ModuleTracker

from ttame_core.classifiers.backbone import Backbone
from ttame_core.classifiers.hooks import hooked, unwrap_logits
from ttame_core.errors import check_number, check_whole
from ttame_core.images.reading import check_images
from ttame_core.metrics.checks import attribute_behind, check_methods


@dataclass
class Passes:
    """Images that went through a classifier, forwards and backwards."""

    forwards: int = 0
    backwards: int = 0


@contextmanager
def counted_passes(*models: nn.Module) -> Iterator[Passes]:
    """Count the images that pass through a classifier, or copies of it, while the block runs.

    A backward pass counts the images whose logits get a gradient, however far back it goes. What
    runs only behind some inner layer counts once for the image that went in.
    """
    passes = Passes()

    def came_back(gradient: Tensor) -> None:
        passes.backwards += int(gradient.flatten(1).any(1).sum())

    def went_through(module: nn.Module, args: tuple, output: Any) -> None:
        passes.forwards += len(args[0])
        logits = unwrap_logits(output)
        if logits.requires_grad:
            logits.register_hook(came_back)

    with hooked(dict.fromkeys(models, went_through)):
        yield passes


class _Anywhere(ModuleTracker):
    """Tells `FlopCounterMode` of no module, so that it counts all operations as one."""

    # the real one's hooks on every module's input fail in `torch.autograd.grad` of an image
    def __enter__(self) -> "_Anywhere":
        return self

    def __exit__(self, *args: Any) -> None:
        pass


class LiveBytes(TorchDispatchMode):
    """Follow the bytes of tensors made while the block runs: ``peak``, most alive at once."""

    def __init__(self) -> None:
        super().__init__()
        self.alive = self.peak = 0
        self._known: weakref.WeakSet = weakref.WeakSet()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run one operation and take note of the storages it made."""
        storages = (a.untyped_storage() for a in tree_leaves(args) if isinstance(a, Tensor))
        given = {id(storage) for storage in storages}
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor):
                storage = leaf.untyped_storage()
                # a view, or an edit in place, has its operand's storage: nothing new is alive
                if id(storage) not in given and storage not in self._known:
                    self._known.add(storage)
                    self._add(storage.nbytes())
                    weakref.finalize(storage, self._add, -storage.nbytes())
        return result

    def _add(self, count: int) -> None:
        self.alive += count
        self.peak = max(self.peak, self.alive)


@contextmanager
def metered() -> Iterator[tuple[FlopCounterMode, LiveBytes]]:
    """Count floating-point operations and bytes of live tensors while the block runs."""
    counter = FlopCounterMode(display=False)
    counter.mod_tracker = _Anywhere()
    fast = torch.backends.mha.get_fastpath_enabled()
    # fused kernels would hide attention's products from the counter: single operations instead
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with sdpa_kernel(SDPBackend.MATH), counter, LiveBytes() as memory:
            yield counter, memory
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)


def explanation_costs(
    backbone: Backbone,
    methods: Mapping[str, Callable[[Tensor, Tensor], Tensor]],
    images: Tensor,
    classes: Tensor,
    repeats: int = 5,
    patience: float = 5.0,
) -> pd.DataFrame:
    """Measure what methods cost an image, all in one run.

    Parameters
    ----------
    backbone : Backbone
        The classifier explained.
    methods : mapping of str to callable
        ``(images, classes) -> maps``.
    images, classes : Tensor
        ``(B, 3, H, W)`` in [0, 1] and ``(B,)`` int64, explained at once.
    repeats : int
        Timed runs of each method, after one that counts, all methods in turn; the fastest is
        reported.
    patience : float
        Seconds of a method's timed runs after which it is repeated no more.

    Returns
    -------
    DataFrame
        A row a method, each number an image: ``forwards`` and ``backwards`` (images passed through
        the classifier), ``equivalents`` (arithmetic, in bare forward passes), ``milliseconds``
        (of the fastest run; on a CPU the time that one core is at work on it, so that what else
        the machine does counts little) and ``megabytes`` (peak of live tensors; what a library
        does in NumPy is not seen).

    Raises
    ------
    TTAMEError
        If the images or methods are none, or a method explains another classifier.
    """
    check_methods(methods, backbone)
    check_images(images)
    check_whole("repeats", repeats, 1)
    check_number("patience", patience)
    explained = {backbone, *(attribute_behind(m, "backbone", Backbone) for m in methods.values())}
    explained.discard(None)  # those that tap other layers are backbones of their own
    with torch.no_grad():
        for each in explained:
            each(images)  # the first call makes the twin that runs, which is no part of a pass
        with metered() as (bare, _):
            backbone(images)
    on_cpu = backbone.mean.is_cpu
    # of Windows it is too coarse
    clock = time.process_time if on_cpu and os.name == "posix" else time.perf_counter
    count, rows = len(images), {}
    for name, method in methods.items():
        with counted_passes(*(b.model for b in explained)) as passes, metered() as (flops, memory):
            method(images, classes)
        rows[name] = {
            "forwards": passes.forwards / count,
            "backwards": passes.backwards / count,
            "equivalents": flops.get_total_flops() / bare.get_total_flops(),
            "milliseconds": float("inf"),
            "megabytes": memory.peak / 1e6 / count,
        }
    waited = dict.fromkeys(methods, 0.0)
    with one_thread() if on_cpu else nullcontext():
        for turn in range(repeats):  # in turn: what disturbs the machine a while disturbs all
            for name, method in methods.items():
                if turn and waited[name] >= patience:
                    continue
                begun = time.perf_counter()
                spent = 1000 * timed(partial(method, images, classes), clock) / count
                waited[name] += time.perf_counter() - begun
                rows[name]["milliseconds"] = min(spent, rows[name]["milliseconds"])
    return pd.DataFrame([{"method": name, **row} for name, row in rows.items()])


@contextmanager
def one_thread() -> Iterator[None]:
    """Let torch compute on one thread while the block runs."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def timed(function: Callable[[], object], clock: Callable[[], float] = time.perf_counter) -> float:
    """Seconds of one call, the accelerator's queue emptied."""
    begun = clock()
    function()
    if torch.accelerator.is_available():  # it has only been told what to do by then
        torch.accelerator.synchronize()
    return clock() - begun
