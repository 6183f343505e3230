"""How time and memory grow with classes, image size, batch, images and methods: fitted exponents.

python benchmarks/growth.py [--models resnet18 vit_ti_16] [--repeats 5]

Needs the base install alone and takes minutes on one free thread of a CPU; weights are random.
Times are medians, the points of a series taken in turn. Memory is the most that explaining, a training
step or an evaluation takes, the classifier and its attention mechanism included: on a CPU by how much a
process that does nothing else has grown, on a GPU what tensors hold. The exponent of a series is the
slope of log y over log x by least squares, over all of it and over its upper half, where fixed costs
weigh less. The table goes to benchmarks/results/, as growth- and the device's name.
"""

import argparse
import ctypes
import json
import multiprocessing
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from functools import cache, partial

import numpy as np
import pandas as pd
import torch
from gpu import about, in_turn, keep, peak, step

import ttame_core as tt

LOADED = ["torch", "pandas", "ttame_core.classifiers.loading", "ttame_core.training"]
LOADED += ["ttame_core.metrics.scores", "ttame_core.methods.library", "ttame_core.metrics.costs"]
"""Modules that a process has loaded before its memory is looked at."""
Calls = dict[str, Callable[[], object]]


@dataclass(frozen=True)
class Setting:
    """What is varied, one at a time."""

    classes: int = 1000
    size: int = 64  # pixels, of a square
    batch: int = 4
    images: int = 4  # evaluated
    methods: int = 1  # evaluated; the first is T-TAME


BATCH_OF_THE_PAPER = 32  # which decides how many other classes are drawn
SERIES = {
    "classes": [Setting(classes=k, batch=BATCH_OF_THE_PAPER) for k in (10, 100, 1000, 5000, 21000)],
    "size": [Setting(size=s, batch=2) for s in (64, 128, 224, 320, 448)],
    "batch": [Setting(batch=b) for b in (1, 2, 4, 8, 16, 32)],
    "images": [Setting(images=n) for n in (2, 4, 8, 16)],
    "methods": [Setting(methods=m) for m in (1, 2, 4, 8)],
}
"""Against what growth is measured: the values of one field of a setting, least first."""


def calls(model: str, setting: Setting, evaluated: bool, device: torch.device) -> Calls:
    """What is measured at a setting, by name, ready to be called: evaluation, or all else."""
    torch.manual_seed(0)
    side = {"image_size": setting.size}
    # a ViT is built for a size, a CNN takes any
    options = side if "vit" in model else {"preprocessing": {**side, "resize": setting.size}}
    backbone = tt.load_backbone(model, None, num_classes=setting.classes, **options).to(device)
    explainer = tt.TTAME(backbone)
    if evaluated:
        return {"evaluation": partial(evaluation, explainer, setting)}
    images = torch.rand(setting.batch, 3, setting.size, setting.size, device=device)
    classes = torch.zeros(setting.batch, dtype=torch.int64, device=device)
    ready: Calls = {"explain": partial(explainer.explain, images, classes)}
    if setting.batch > 1:  # batch norm needs two
        ready["training step"] = step(explainer, images, "uniform")
    return ready


def evaluation(explainer: tt.TTAME, setting: Setting) -> pd.DataFrame:
    """Score T-TAME and random maps of so many seeds by AD and IC."""
    methods: dict[str, Callable] = {"t-tame": explainer}
    for seed in range(setting.methods - 1):
        methods[f"random {seed}"] = tt.method("random", explainer.backbone, seed=seed)
    draw = torch.Generator().manual_seed(0)
    side, batches = (3, setting.size, setting.size), []
    for first in range(0, setting.images, setting.batch):
        count = min(setting.batch, setting.images - first)
        ids = [str(first + i) for i in range(count)]
        batches.append({"image": torch.rand(count, *side, generator=draw), "id": ids})
    return tt.evaluate(explainer.backbone, methods, batches)


def resident() -> float:
    """Gigabytes that this process has had in memory at most; nan where the system does not tell."""
    try:
        import resource
    except ImportError:  # Windows
        return float("nan")
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most / 1e9 if sys.platform == "darwin" else most * 1024 / 1e9


def resident_in_a_fork(call: Callable[[], object]) -> float:
    """`resident` of a copy of this process, once it has called something."""
    # a fork's peak begins at what the process holds: what it needed before is forgotten
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)  # what the GNU C library has kept would be used again
    context = multiprocessing.get_context("fork")
    mine, its = context.Pipe(duplex=False)

    def alone() -> None:
        with suppress(OSError, AttributeError):
            ctypes.CDLL(None).mallopt(-4, 65536)  # M_MMAP_MAX: large pieces are new ones, and seen
        call()
        its.send(resident())

    process = context.Process(target=alone)
    process.start()
    its.close()
    found = mine.recv()
    process.join()
    return found


def grown(make: Callable[[], Calls]) -> dict[str, float]:
    """Gigabytes by which a process grows that makes what is called, and calls one of it."""
    torch.set_num_threads(1)  # several would not survive the fork
    before, ready = resident(), make()
    return {name: resident_in_a_fork(call) - before for name, call in ready.items()}


@cache
def processes() -> ProcessPoolExecutor:
    """Processes that do one thing each, forked of one that has loaded the libraries alone."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(LOADED)
    return ProcessPoolExecutor(1, context, max_tasks_per_child=1)


@cache
def memory(model: str, setting: Setting, evaluated: bool, device: torch.device) -> dict[str, float]:
    """Gigabytes that each thing measured takes at a setting, with all that it is made of."""
    make = partial(calls, model, setting, evaluated, device)
    if device.type == "cpu":
        return processes().submit(grown, make).result()
    before = torch.cuda.memory_allocated()
    ready = make()
    held = (torch.cuda.memory_allocated() - before) / 1e9
    return {name: held + peak(call) for name, call in ready.items()}


def measure(model: str, against: str, repeats: int, device: torch.device) -> list[dict]:
    """Measure one classifier's series; a row a thing measured and value."""
    settings, evaluated = SERIES[against], against in ("images", "methods")
    if device.type != "cpu":  # eight times the images, or it has nothing to do
        settings = [replace(s, batch=8 * s.batch, images=8 * s.images) for s in settings]
    ready = {setting: calls(model, setting, evaluated, device) for setting in settings}
    functions = {(s, what): call for s, named in ready.items() for what, call in named.items()}
    named = {f"{i}": function for i, function in enumerate(functions.values())}
    seconds = in_turn(named, repeats, warm=1).median()
    return [
        {
            "classifier": model,
            "what": what,
            "against": against,
            "at": asdict(setting)[against],
            "ms": 1000 * spent,
            "GB": memory(model, setting, evaluated, device)[what],
        }
        for (setting, what), spent in zip(functions, seconds, strict=True)
    ]


def exponent(x: Sequence[float], y: Sequence[float]) -> float:
    """The p of ``y ~ x ** p`` by least squares of the logarithms; nan where there is none."""
    x, y = np.asarray(x, float), np.asarray(y, float)
    if len(x) < 2 or not (y > 0).all():  # nothing, or not a number
        return float("nan")
    return float(np.polyfit(np.log(x), np.log(y), 1)[0])


def exponents(rows: Sequence[dict]) -> list[dict]:
    """Fit time and memory of each series; a row a series."""
    found = []
    for key, series in pd.DataFrame(rows).groupby(["classifier", "what", "against"], sort=False):
        upper = series.iloc[len(series) // 2 :]
        ends = {"from": int(series["at"].iloc[0]), "to": int(series["at"].iloc[-1])}
        fits = {
            f"{name}, {part}": exponent(some["at"], some[column])
            for name, column in (("time", "ms"), ("memory", "GB"))
            for part, some in (("all", series), ("upper half", upper))
        }
        found.append(
            {**dict(zip(("classifier", "what", "against"), key, strict=True)), **ends, **fits}
        )
    return found


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="+", default=["resnet18", "vit_ti_16"])
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    device = torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")
    described, rows = about(device), []
    for model in options.models:
        for against in SERIES:
            rows += measure(model, against, options.repeats, device)
            print(f"{model}, {against}", flush=True)
            keep(described, rows, "growth-", whole=False)
    standard = options.models == parser.get_default("models") and options.repeats >= 5
    keep(described, rows, "growth-", standard, exponents=exponents(rows))
    print(pd.DataFrame(rows).round(3).to_string(index=False))
    print(pd.DataFrame(exponents(rows)).round(2).to_string(index=False))
    print(json.dumps(described))


if __name__ == "__main__":
    main()
