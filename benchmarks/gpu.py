"""What explaining, training and scoring cost, in plain forwards of the same classifier and batch.

python benchmarks/gpu.py [--models resnet50 vgg16 vit_b_16] [--batches 1 32 128] [--repeats 5]

Needs the base install alone and takes under four minutes on a GPU; on a CPU the batches are small.
The reference is torchvision's own model in float32, as it comes, timed in turn with what is
compared; weights are random. The table goes to benchmarks/results/, named after the device.
"""

import argparse
import json
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import torchvision
from lightning_fabric import Fabric
from PIL import Image
from torch import nn

import ttame_core as tt
from ttame_book.editions.manifest import commit
from ttame_core.classifiers.fast import batch_that_suits
from ttame_core.errors import TTAMEError
from ttame_core.images.batches import endless_batches
from ttame_core.masking import upsample
from ttame_core.metrics.costs import timed
from ttame_core.metrics.measures import MASKING, ROAD
from ttame_core.steps import optimizer_of, training_step

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks/results"
MODELS = ("resnet50", "vgg16", "vit_b_16")
PRECISIONS = ("float32", "bfloat16")
PACKAGES = ("torch", "torchvision", "timm", "captum", "torchcam", "grad-cam")
MASKS = {"cpu": 16}  # of RISE, an image; 128 on a GPU


def in_turn(
    functions: dict[str, Callable[[], object]], repeats: int, warm: int = 2
) -> dict[str, float]:
    """Median seconds of functions that are called in turn, after so many calls each to warm up."""
    seconds: dict[str, list[float]] = {name: [] for name in functions}
    for repeat in range(-warm, repeats):
        for name, function in functions.items():
            spent = timed(function)
            if repeat >= 0:
                seconds[name].append(spent)
    return {name: statistics.median(values) for name, values in seconds.items()}


@torch.no_grad()
def plain(model: nn.Module, images: torch.Tensor) -> None:
    """One forward of the classifier as it comes."""
    model(images)


def peak(function: Callable[[], object]) -> float:
    """Gigabytes above what is held before, at the highest; nan on a CPU."""
    if not torch.cuda.is_available():
        return float("nan")
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    held = torch.cuda.memory_allocated()
    function()
    torch.cuda.synchronize()
    return (torch.cuda.max_memory_allocated() - held) / 1e9


def step(explainer: tt.TTAME, images: torch.Tensor, others: str = "uniform") -> Callable[[], None]:
    """One training step of the paper's recipe on a batch that is ready."""
    recipe = tt.Recipe(steps=1, batch_size=max(2, len(images)), other_classes=others)
    optimizer = optimizer_of(explainer.attention, recipe)

    def once() -> None:
        explainer.attention.train()
        terms = training_step(
            explainer.backbone, explainer.attention, images, recipe, torch.Generator()
        )
        optimizer.zero_grad()
        terms["total"].backward()
        optimizer.step()

    return once


def rows_of(name: str, batch: int, repeats: int, device: torch.device) -> list[dict]:
    """Measure one classifier at one batch size."""
    torch.manual_seed(0)
    model = torchvision.models.get_model(name, weights=None).eval().to(device)
    backbones = {
        p: tt.load_backbone(name, model.state_dict(), precision=p).to(device) for p in PRECISIONS
    }
    size = next(iter(backbones.values())).preprocessing.image_size
    images = torch.rand(batch, 3, size, size, device=device)
    truth = torch.zeros(batch, dtype=torch.int64, device=device)
    functions: dict[str, Callable[[], object]] = {"plain forward": partial(plain, model, images)}
    memory = {}
    for precision, backbone in backbones.items():
        explainer = tt.TTAME(backbone)
        calls: dict[str, Callable[[], object]] = {
            "forward": torch.no_grad()(partial(backbone, images)),
            "explain": partial(explainer.explain, images, truth),
        }
        if batch > 1:
            calls["training step"] = step(explainer, images)
        for what, call in calls.items():
            functions[f"{what}, {precision}"] = call
            memory[f"{what}, {precision}"] = peak(call)
    seconds = in_turn(functions, repeats)
    reference = seconds["plain forward"]
    return [
        {
            "classifier": name,
            "what": what,
            "batch": batch,
            "ms": 1000 * spent,
            "plain forwards": spent / reference,
            "images/s": batch / spent,
            "GB": memory.get(what, float("nan")),
        }
        for what, spent in seconds.items()
    ]


def rivals_and_measures(name: str, repeats: int, device: torch.device) -> list[dict]:
    """Measure RISE, Grad-CAM where it is installed, AD and IC, and ROAD, against bare forwards."""
    backbone = tt.load_backbone(name, None).to(device)
    count = 8 if device.type != "cpu" else 2
    size = backbone.preprocessing.image_size
    images = torch.rand(count, 3, size, size, device=device)
    with torch.no_grad():
        full, truth = backbone(images).softmax(1).max(1)
    maps = torch.rand(count, size // 8, size // 8, device=device)
    masks = MASKS.get(device.type, 128)
    forwards = {"RISE": masks * count, "AD and IC of three v": 3 * count, "ROAD": 18 * count}
    score = partial(tt.score_batch, backbone, images, truth, full, maps)
    functions: dict[str, Callable[[], object]] = {
        "RISE": partial(tt.method("rise", backbone, masks=masks), images, truth),
        "AD and IC of three v": partial(score, MASKING),
        "ROAD": partial(score, ROAD),
    }
    try:
        functions["Grad-CAM"] = partial(tt.method("grad-cam", backbone), images, truth)
        forwards["Grad-CAM"] = count
    except TTAMEError:
        print("Grad-CAM is left out: its library is not installed")
    ready = torch.rand(batch_that_suits(images), 3, size, size, device=device)

    def bare(what: str) -> None:
        whole, rest = divmod(forwards[what], len(ready))
        with torch.no_grad():
            for _ in range(whole):
                backbone(ready)
            if rest:
                backbone(ready[:rest])

    rows = []
    for what, function in functions.items():
        spent = in_turn({"ours": function, "bare": partial(bare, what)}, repeats, warm=1)
        rows.append(
            {
                "classifier": name,
                "what": f"{what}, {backbone.precision}",
                "batch": count,
                "ms": 1000 * spent["ours"] / count,
                "bare forwards": spent["ours"] / spent["bare"],
                "forwards/s": forwards[what] / spent["ours"],
            }
        )
    return rows


def compiled(name: str, batch: int, repeats: int, device: torch.device) -> list[dict]:
    """Measure the cheaper forward against the same by PyTorch's compiler, with CUDA graphs."""
    backbone = tt.load_backbone(name, None).to(device)
    size = backbone.preprocessing.image_size
    images = torch.rand(batch, 3, size, size, device=device)
    with torch.no_grad(), backbone._fast.running(backbone.model, size) as twin:
        inputs = backbone._as_inputs(backbone.standardise(images), twin)
        forwards = {
            "forward": twin,
            "forward, compiled": torch.compile(twin, mode="reduce-overhead"),
        }
        seconds = in_turn(
            {what: partial(f, inputs) for what, f in forwards.items()}, repeats, warm=3
        )
    row = {"classifier": name, "batch": batch, "ms": 1000 * seconds["forward, compiled"]}
    ratio = seconds["forward, compiled"] / seconds["forward"]
    return [{**row, "what": f"compiled forward, {backbone.precision}", "bare forwards": ratio}]


def imputing(repeats: int, device: torch.device) -> list[dict]:
    """Measure ROAD's imputation alone, of nine masks an image, by how many are solved at once."""
    count = 1 if device.type == "cpu" else 32
    images = torch.rand(count, 3, 224, 224, device=device)
    maps = upsample(torch.rand(count, 1, 28, 28, device=device), (224, 224))[:, 0]
    removed = torch.stack([tt.select_top(maps, v) for v in range(10, 100, 10)], 1).flatten(0, 1)
    whole = images.repeat_interleave(9, 0)
    functions = {
        f"imputation of nine masks, {chunk or 'as many as fit'} at once": partial(
            tt.impute, whole, removed, chunk=chunk
        )
        for chunk in (32, 64, 288, None)
    }
    seconds = in_turn(functions, repeats)
    return [
        {"what": what, "batch": count, "ms": 1000 * spent / count}
        for what, spent in seconds.items()
    ]


def reading(device: torch.device) -> list[dict]:
    """Measure how many JPEGs of ImageNet's size are read and cropped, by a worker a core."""
    cores, rng = os.cpu_count() or 1, np.random.default_rng(0)
    fabric = Fabric(accelerator=device.type, devices=1)
    with tempfile.TemporaryDirectory() as folder:
        for i in range(64):
            coarse = Image.fromarray(rng.integers(0, 256, (30, 40, 3), dtype=np.uint8))
            fine = np.asarray(coarse.resize((500, 375))) + rng.normal(0, 12, (375, 500, 3))
            picture = Image.fromarray(fine.clip(0, 255).astype(np.uint8))
            picture.save(f"{folder}/{i}.jpg", quality=90)
        images = tt.ImageFolder(folder, tt.Preprocessing().random_crop)
        images.files *= 10 * cores
        batches = endless_batches(fabric, images, 32, seed=0, skip=0, workers=cores)
        for _ in range(2 * cores):  # as many as are read ahead
            next(batches)
        spent = timed(lambda: [next(batches) for _ in range(12 * cores)])
    rate = 32 * 12 * cores / spent
    return [{"what": f"reading, {cores} workers", "batch": 32, "images/s": rate}]


def about(device: torch.device) -> dict[str, object]:
    """Say on what and with what the table was made."""
    name = torch.cuda.get_device_name() if device.type == "cuda" else "CPU"
    cpu = Path("/proc/cpuinfo")
    told = cpu.read_text().splitlines() if cpu.is_file() else []
    processors = {line.partition(": ")[2] for line in told if line.startswith("model name")}
    load = os.getloadavg()[0] / (os.cpu_count() or 1) if hasattr(os, "getloadavg") else None
    return {
        "device": name,
        "threads": torch.get_num_threads(),
        "load": load,
        "cores": os.cpu_count(),
        "processor": ", ".join(sorted(processors)) or platform.processor(),
        "python": platform.python_version(),
        **versions(),
        "commit": commit(ROOT),
    }


def versions() -> dict[str, str]:
    """Versions of the packages that are compared, as far as they are installed."""
    found = {}
    for name in PACKAGES:
        with suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


def keep(
    described: dict[str, object],
    rows: list[dict],
    kind: str = "",
    whole: bool = True,
    **more: object,
) -> None:
    """Write a table to benchmarks/results/, after its kind and the device.

    One that is not whole, or not yet, has a name of its own and leaves the last that is.
    """
    RESULTS.mkdir(exist_ok=True)
    name = kind + str(described["device"]).lower().replace(" ", "-")
    part = RESULTS / f"{name}.json.part"
    part.write_text(json.dumps({**described, "rows": rows, **more}, indent=1) + "\n")
    if whole:
        part.replace(RESULTS / f"{name}.json")


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", nargs="+", default=MODELS)
    parser.add_argument("--batches", nargs="+", type=int)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--limit", type=float, default=200, help="seconds after which none begins")
    options = parser.parse_args()
    device = torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")
    on_cpu = device.type == "cpu"
    batches = options.batches or ([1, 4] if on_cpu else [1, 32, 128])
    begun, rows = time.monotonic(), []
    described = about(device)
    jobs: list[Callable[[], list[dict]]] = [
        partial(rows_of, m, b, options.repeats, device) for m in options.models for b in batches
    ]
    rivals = [partial(rivals_and_measures, m, options.repeats, device) for m in options.models]
    jobs = [partial(reading, device), partial(imputing, options.repeats, device), *rivals, *jobs]
    if not on_cpu:  # its code takes a CPU longer to make than it saves
        jobs += [partial(compiled, m, batches[-1], options.repeats, device) for m in options.models]
    for job in jobs:  # what is cut off is known best
        if time.monotonic() - begun > options.limit and not on_cpu:
            print("the rest is left out: time is up")
            break
        try:
            rows += job()
        except RuntimeError as error:  # out of memory, or nothing to compile with
            print(f"left out: {error}")
        print(pd.DataFrame(rows[-12:]).round(3).to_string(index=False), flush=True)
        keep(described, rows, whole=False)
    else:
        whole = {*MODELS} <= {*options.models} and not options.batches and options.repeats >= 5
        keep(described, rows, whole=whole)
    print(json.dumps(described))


if __name__ == "__main__":
    main()
