"""What explaining, training and scoring cost, in plain forwards of the same classifier and batch.

python benchmarks/gpu.py [--models resnet50 vgg16 vit_b_16] [--batches 1 32 128] [--repeats 5]

Needs the base install alone and begins nothing after 200 seconds on a GPU; on a CPU batches are
small. The reference is torchvision's own model in float32, as it comes, timed in turn with what is
compared; weights are random. The table goes to benchmarks/results/, named after the device.
"""

import argparse
import json
import os
import platform
import subprocess
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
from ttame_core.classifiers.fast import batch_that_suits
from ttame_core.errors import TTAMEError
from ttame_core.images.batches import endless_batches
from ttame_core.masking import upsample
from ttame_core.methods.cams import target_layer
from ttame_core.metrics.costs import counted_passes, timed
from ttame_core.metrics.measures import MASKING, ROAD
from ttame_core.steps import optimizer_of, training_step

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks/results"
MODELS = ("resnet50", "vgg16", "vit_b_16")
PRECISIONS = ("float32", "bfloat16")
PACKAGES = ("torch", "torchvision", "timm", "captum", "torchcam", "grad-cam", "numba")
MASKS = {"cpu": 16}  # of RISE, an image; 128 on a GPU
BATCHES, BATCH = {"resnet50": 8}, 4  # on a CPU
WATCHED = 2  # seconds


def in_turn(
    functions: dict[str, Callable[[], object]], repeats: int, warm: int = 2
) -> pd.DataFrame:
    """Seconds of functions that are called in turn, a row a repetition, after calls to warm up."""
    rows = [{name: timed(f) for name, f in functions.items()} for _ in range(warm + repeats)]
    return pd.DataFrame(rows[warm:])


@torch.no_grad()
def plain(model: nn.Module, images: torch.Tensor) -> None:
    """One forward of the classifier as it comes."""
    model(images)


def peak(function: Callable[[], object]) -> float | None:
    """Gigabytes above what is held before, at the highest; None on a CPU."""
    if not torch.cuda.is_available():
        return None
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
    if device.type == "cuda":
        functions["plain forward, tf32"] = tf32(functions["plain forward"])
    memory = {}
    for precision, backbone in backbones.items():
        explainer = tt.TTAME(backbone)
        calls: dict[str, Callable[[], object]] = {
            "forward": torch.no_grad()(partial(backbone, images)),
            "explain": partial(explainer.explain, images, truth),
        }
        if batch > 1:
            calls["training step"] = step(explainer, images)
        calls["forward"]()  # the first makes the twin that runs
        for what, call in calls.items():
            functions[f"{what}, {precision}"] = call
            memory[f"{what}, {precision}"] = peak(call)
    times = in_turn(functions, repeats)
    seconds = times.median()
    own = {what: times.get("forward, " + what.partition(", ")[2]) for what in functions}
    return [
        {
            "classifier": name,
            "what": what,
            "batch": batch,
            "ms": 1000 * spent,
            "lowest": 1000 * times[what].min(),
            "highest": 1000 * times[what].max(),
            "plain forwards": (times[what] / times["plain forward"]).median(),
            "forwards": None if own[what] is None else (times[what] / own[what]).median(),
            "images/s": batch / spent,
            "GB": memory.get(what),
        }
        for what, spent in seconds.items()
    ]


def tf32(function: Callable[[], object]) -> Callable[[], object]:
    """Make of a function one that lets a GPU round float32 to TensorFloat-32."""

    def once() -> None:
        torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = True
        try:
            function()
        finally:
            precise()

    return once


def precise() -> None:
    """Have float32 be float32 on a GPU, where PyTorch lets convolutions round to TF32."""
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False


def passes_of_grad_cam(
    backbone: tt.Backbone, images: torch.Tensor, truth: torch.Tensor
) -> Callable[[], object]:
    """What Grad-CAM asks of a classifier: a forward, and the way back to the layer explained."""
    layer = target_layer(backbone)

    def once() -> None:
        kept: list[torch.Tensor] = []

        def start(output: torch.Tensor) -> torch.Tensor:
            kept.append(output.detach().requires_grad_())
            return kept[-1].clone()  # what follows may be in place

        with torch.enable_grad(), backbone.replaced(layer, start):
            wanted = backbone(images).gather(1, truth[:, None]).sum()
        torch.autograd.grad(wanted, kept)

    return once


def rivals_and_measures(name: str, repeats: int, device: torch.device) -> list[dict]:
    """Measure rivals, AD and IC, and ROAD, against the bare forwards that they need."""
    backbone = tt.load_backbone(name, None).to(device)
    on_cpu = device.type == "cpu"
    count = 2 if on_cpu else 8
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
        "passes of Grad-CAM": passes_of_grad_cam(backbone, images, truth),
    }
    rivals = {"Grad-CAM": "grad-cam", "Grad-CAM++": "grad-cam++", "LayerCAM": "layer-cam"}
    if backbone.tokens:
        rivals |= {"attention rollout": "attention-rollout", "Transformer LRP": "transformer-lrp"}
    for what, method in rivals.items():
        try:
            functions[what] = partial(tt.method(method, backbone), images, truth)
        except TTAMEError as reason:  # its library is not installed
            print(f"{what} is left out: {reason}")
    if not on_cpu:  # minutes there; methods.py has that of a smaller classifier
        functions["Score-CAM"] = partial(tt.method("score-cam", backbone), images[:1], truth[:1])
        with counted_passes(backbone.model) as passes:  # constant channels share one
            functions["Score-CAM"]()
        forwards["Score-CAM"] = passes.forwards
    ready = torch.rand(batch_that_suits(images), 3, size, size, device=device)
    model = torchvision.models.get_model(name, weights=None).eval().to(device)
    as_it_comes = partial(plain, model, images)

    def bare(what: str) -> None:
        whole, rest = divmod(forwards.get(what, count), len(ready))
        with torch.no_grad():
            for _ in range(whole):
                backbone(ready)
            if rest:
                backbone(ready[:rest])

    rows = []
    for what, function in functions.items():
        compared = {"ours": function, "bare": partial(bare, what), "plain": as_it_comes}
        times = in_turn(compared, repeats, warm=1)
        spent = times.median()
        explained = 1 if what == "Score-CAM" else count
        row = {
            "classifier": name,
            "what": f"{what}, {backbone.precision}",
            "batch": explained,
            "ms": 1000 * spent["ours"] / explained,
            "bare forwards": (times["ours"] / times["bare"]).median(),
            "forwards/s": forwards.get(what, count) / spent["ours"],
        }
        if what not in forwards:
            row["plain forwards"] = (times["ours"] / times["plain"]).median()
        rows.append(row)
    return rows


def agreement(name: str, device: torch.device) -> list[dict]:
    """Compare maps in bfloat16 with those in float32 by the correlation of their cells' ranks.

    AD and IC, which need a trained classifier, the tests compare, on a CPU.
    """
    torch.manual_seed(0)
    weights = torchvision.models.get_model(name, weights=None).state_dict()
    images = upsample(torch.rand(4, 3, 8, 8), (224, 224)).to(device)
    classes = torch.zeros(4, dtype=torch.int64, device=device)
    ranks = []
    for precision in PRECISIONS:
        backbone = tt.load_backbone(name, weights, precision=precision).to(device)
        maps = tt.TTAME(backbone).explain(images, classes).cpu()
        if not (maps.isfinite().all() and (maps.flatten(1).std(1) > 0).all()):
            raise RuntimeError(f"the maps of {name} in {precision} are not finite, or constant")
        ranks.append(maps.flatten(1).argsort(1).argsort(1).double())
    found = [float(torch.corrcoef(torch.stack(pair))[0, 1]) for pair in zip(*ranks, strict=True)]
    row = {"classifier": name, "what": "maps in bfloat16 beside float32", "batch": 4}
    return [{**row, "rank correlation": min(found)}]


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
        functions = {what: partial(f, inputs) for what, f in forwards.items()}
        seconds = in_turn(functions, repeats, warm=3).median()
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
        f"imputation of nine masks, {chunk or 'as many as suit'} at once": partial(
            tt.impute, whole, removed, chunk=chunk
        )
        for chunk in ((None,) if device.type == "cpu" else (32, 64, 288, None))  # there a hole each
    }
    seconds = in_turn(functions, repeats).median()
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
    return {
        "device": name,
        "threads": torch.get_num_threads(),
        "load": busy(),
        "cores": os.cpu_count(),
        "processor": ", ".join(sorted(processors)) or platform.processor(),
        "python": platform.python_version(),
        **versions(),
        "commit": commit(),
    }


def commit() -> str:
    """Name the commit, with ``+`` where files other than these tables differ.

    Without `ttame_book`, which sets the allocator when it is imported: the core is timed as it is.
    """
    ask = partial(subprocess.run, cwd=ROOT, capture_output=True, text=True, check=False)
    changed = ["git", "status", "--porcelain", "-uno", "--", ".", ":!benchmarks/results"]
    mark = "+" if ask(changed).stdout.strip() else ""
    return ask(["git", "rev-parse", "--short=12", "HEAD"]).stdout.strip() + mark


def busy() -> float | None:
    """Share of the machine's cores that other programs keep busy, over two seconds (Linux)."""
    if not (clock := Path("/proc/stat")).is_file():
        return None
    ticks = [clock.read_text().split()[1:9], time.sleep(WATCHED), clock.read_text().split()[1:9]]
    spent = [int(now) - int(then) for then, now in zip(ticks[0], ticks[2], strict=True)]
    return 1 - sum(spent[3:5]) / max(1, sum(spent))  # idle, and waiting for a drive


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
    tables = {"rows": rows, **more}
    tables = {n: known(value) if isinstance(value, list) else value for n, value in tables.items()}
    told = json.dumps({**described, **tables}, indent=1, allow_nan=False)
    part.write_text(told + "\n")
    if whole:
        part.replace(RESULTS / f"{name}.json")


def known(rows: list[dict]) -> list[dict]:
    """Drop what a row does not know: None, and what is not a number."""
    return [{key: v for key, v in row.items() if v is not None and v == v} for row in rows]


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
    precise()
    begun, rows = time.monotonic(), []
    described = about(device) | {"repeats": options.repeats}
    batches = {m: options.batches or [1, 32, 128] for m in options.models}
    if on_cpu and not options.batches:
        batches = {m: [1, BATCHES.get(m, BATCH)] for m in options.models}
    jobs: list[Callable[[], list[dict]]] = [
        partial(rows_of, m, b, options.repeats, device)
        for m, sizes in batches.items()
        for b in sizes
    ]
    rivals = [partial(rivals_and_measures, m, options.repeats, device) for m in options.models]
    rivals = [*rivals, *(partial(agreement, m, device) for m in options.models)]
    jobs = [partial(reading, device), partial(imputing, options.repeats, device), *rivals, *jobs]
    if not on_cpu:  # its code takes a CPU longer to make than it saves
        jobs += [
            partial(compiled, m, batches[m][place], options.repeats, device)
            for place in (0, -1)
            for m in options.models
        ]
    whole = {*MODELS} <= {*options.models} and not options.batches and options.repeats >= 5
    for job in jobs:
        if time.monotonic() - begun > options.limit and not on_cpu:
            print("the rest is left out: time is up")
            whole = False
            break
        try:
            rows += job()
        except Exception as error:  # out of memory, or nothing to compile with: go on
            print(f"left out: {error}")
            whole = whole and job.func is compiled
        print(pd.DataFrame(rows[-12:]).round(3).to_string(index=False), flush=True)
        keep(described, rows, whole=False)
    keep(described, rows, whole=whole)
    print(json.dumps(described))


if __name__ == "__main__":
    main()
