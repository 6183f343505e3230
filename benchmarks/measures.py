"""Speed and memory of the measures, as ratios to the peers' in one process and run.

python benchmarks/measures.py [--device cpu] [--images 2] [--repeats 5] [--model resnet50]

The table goes to benchmarks/results/, as measures- and the device's name.
Every line times reference and ours in turn, so that a drift of the machine's speed meets both, and gives the medians.
"""

import argparse
import multiprocessing
import statistics
import sys
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import pandas as pd
import torch
import torch.nn.functional as F
from gpu import about, keep
from pytorch_grad_cam.metrics.road import NoisyLinearImputer, ROADCombined
from pytorch_grad_cam.utils.model_targets import ClassifierOutputSoftmaxTarget
from torch import Tensor
from torchcam.metrics import ClassificationMetric

import ttame_core as tt
from ttame_core.metrics import perturbations
from ttame_core.metrics.costs import timed
from ttame_core.metrics.measures import MASKING, ROAD

PERCENTAGES = (20, 50, 80)  # of nine, as grad-cam's imputer is slow
SIZE = 224


def compare(
    name: str, reference: Callable, ours: Callable, repeats: int, device: torch.device
) -> dict[str, object]:
    """Time two functions in turn, after a warm-up of each."""
    timed(reference), timed(ours)
    pairs = [(timed(reference), timed(ours)) for _ in range(repeats)]
    theirs, own = (statistics.median(p[i] for p in pairs) for i in (0, 1))
    ratios = [a / b for a, b in pairs]
    return {
        "what": name,
        "reference (s)": theirs,
        "ours (s)": own,
        "ratio": statistics.median(ratios),
        "lowest": min(ratios),
        "highest": max(ratios),
    }


def smooth_images(count: int, device: torch.device) -> Tensor:
    """Pictures with structure at several scales, ``(count, 3, SIZE, SIZE)`` in [0, 1]."""
    generator = torch.Generator().manual_seed(0)
    layers = [
        F.interpolate(torch.rand(count, 3, n, n, generator=generator), SIZE, mode="bilinear")
        for n in (4, 14, 56)
    ]
    return sum(layers).div(3).to(device)


def saliency(kind: str, count: int, device: torch.device) -> Tensor:
    """Maps as methods give them, ``(count, SIZE, SIZE)``: 7 x 7 enlarged, rectified, or noise."""
    generator = torch.Generator().manual_seed(1)
    if kind == "noise":
        return torch.rand(count, SIZE, SIZE, generator=generator).to(device)
    cells = torch.randn(count, 1, 7, 7, generator=generator)
    maps = F.interpolate(cells, SIZE, mode="bilinear")[:, 0]
    maps = maps - maps.flatten(1).quantile(0.6, 1)[:, None, None] if kind == "relu" else maps
    return (maps.clamp(min=0) if kind == "relu" else maps).to(device)


def holes(kind: str, count: int, device: torch.device) -> Tensor:
    """All pixels that MoRF removes, ``(count, 3, SIZE, SIZE)`` bool."""
    maps = saliency(kind, count, device)
    return torch.stack([tt.select_top(maps, v) for v in PERCENTAGES], 1)


def grad_cams_imputer(images: Tensor, removed: Tensor) -> None:
    """Impute all percentages as grad-cam does it: image by image, on the CPU."""
    imputer = NoisyLinearImputer()
    for image, masks in zip(images.cpu(), (~removed).float().cpu(), strict=True):
        for mask in masks:
            imputer(image, mask)


def our_imputer(images: Tensor, removed: Tensor) -> None:
    """Impute all percentages at once."""
    tt.impute(images.repeat_interleave(removed.shape[1], 0), removed.flatten(0, 1))


def imputation(images: Tensor, repeats: int) -> list[dict]:
    """Imputation against grad-cam's imputer, some percentages of every image."""
    rows = []
    for kind in ("smooth", "relu", "noise"):
        removed = holes(kind, len(images), images.device)
        rows.append(
            compare(
                f"imputation, {kind} maps",
                lambda removed=removed: grad_cams_imputer(images, removed),
                lambda removed=removed: our_imputer(images, removed),
                repeats,
                images.device,
            )
        )
    return rows


def whole_measures(backbone: tt.Backbone, images: Tensor, repeats: int) -> list[dict]:
    """ROAD and AD/IC with their forward passes, against grad-cam's and torch-cam's."""
    full, classes = backbone(images).softmax(1).max(1)
    maps = saliency("smooth", len(images), images.device)
    scaled = tt.minmax(maps)
    inputs = backbone.standardise(images)
    targets = [ClassifierOutputSoftmaxTarget(int(c)) for c in classes]
    metric = ClassificationMetric(Extractor(backbone.model, scaled), lambda x: x.softmax(-1))
    masked = {"ad": (100,), "ic": (100,)}
    theirs = ROADCombined(percentiles=[*PERCENTAGES])

    def score(measures):
        return tt.score_batch(backbone, images, classes, full, scaled, measures)

    return [
        compare(
            "ROAD, forwards included, to grad-cam",
            lambda: theirs(inputs, scaled.cpu().numpy(), targets, backbone.model),
            lambda: score(dict.fromkeys(ROAD, PERCENTAGES)),
            repeats,
            images.device,
        ),
        compare(
            "AD(100) and IC(100), to torch-cam",
            lambda: metric.update(inputs, classes.tolist()),
            lambda: score(masked),
            repeats,
            images.device,
        ),
    ]


class Extractor:
    """Hands torch-cam's metric the maps that are to be scored."""

    def __init__(self, model, maps):
        self.model, self.maps = model, maps

    def __call__(self, *args):
        return [self.maps]

    def fuse_cams(self, cams):
        return cams[0]

    def _hooks_off(self):
        return nullcontext()


@torch.no_grad()
def overhead(backbone: tt.Backbone, images: Tensor, repeats: int) -> list[dict]:
    """Measures against the bare forwards they need, imputation apart: the ratio's inverse is the overhead."""
    full, classes = backbone(images).softmax(1).max(1)
    maps = tt.minmax(saliency("smooth", len(images), images.device))
    inputs = backbone.standardise(images)
    rows = []
    impute = perturbations.impute
    perturbations.impute = lambda images, removed, seed: images  # imputation apart
    try:
        for name, measures, forwards in (("AD, IC", MASKING, 3), ("ROAD", ROAD, 18)):
            row = compare(
                f"bare forwards to {name} at three or nine v",
                lambda forwards=forwards: [backbone.logits(inputs) for _ in range(forwards)],
                lambda measures=measures: tt.score_batch(
                    backbone, images, classes, full, maps, measures
                ),
                repeats,
                images.device,
            )
            rows.append(row)
    finally:
        perturbations.impute = impute
    return rows


def peak(work: str, device: str, count: int, queue) -> None:
    """Report the memory a process needs beyond its start, in MiB."""
    images = smooth_images(count, torch.device(device))
    removed = holes("smooth", count, images.device)
    if work == "ours":
        tt.impute(images[:1, :, :16, :16], removed[:1, 0, :16, :16] & False)  # compile
    Path("/proc/self/clear_refs").write_text("5")  # Linux: the peak starts anew
    before = peak_kilobytes()
    {"ours": our_imputer, "grad-cam": grad_cams_imputer}[work](images, removed)
    queue.put((peak_kilobytes() - before) / 1024)


def peak_kilobytes() -> int:
    """Peak resident memory of this process since it was last reset (Linux)."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0])


def memory(count: int) -> list[dict]:
    """Peak memory of the imputation on the CPU, a process each."""
    context = multiprocessing.get_context("spawn")
    rows = []
    for work in ("grad-cam", "ours"):
        queue = context.SimpleQueue()
        process = context.Process(target=peak, args=(work, "cpu", count, queue))
        process.start()
        rows.append(
            {"imputation by": work, "images": count, "peak beyond the start (MiB)": queue.get()}
        )
        process.join()
    return rows


def accuracy() -> float:
    """Largest difference to grad-cam's direct solution, some percentages of smooth maps, no noise."""
    images, removed = smooth_images(1, torch.device("cpu")), holes("smooth", 1, torch.device("cpu"))
    worst = 0.0
    for mask in removed[0]:
        exact = NoisyLinearImputer(noise=0.0)(images[0], (~mask).float())
        worst = max(worst, float((tt.impute(images, mask[None], noise=0)[0] - exact).abs().max()))
    return worst


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    found = torch.accelerator.current_accelerator(check_available=True) or "cpu"
    parser.add_argument("--device", default=str(found), help="cpu, cuda, mps")
    parser.add_argument("--images", type=int, default=1, help="images imputed")
    parser.add_argument("--scored", type=int, default=16, help="images scored")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--model", default="resnet50", help="classifier by name, random weights")
    given = parser.parse_args()
    device = torch.device(given.device)
    described = {**about(device), "classifier": given.model}
    backbone = tt.load_backbone(given.model, weights=None).to(device)
    images = smooth_images(given.images, device)
    scored = smooth_images(given.scored, device)
    rows = imputation(images, given.repeats)
    rows += overhead(backbone, scored, given.repeats)
    rows += whole_measures(backbone, images, given.repeats)
    print(described)
    kept = "scored", "images", "model"
    standard = all(vars(given)[of] == parser.get_default(of) for of in kept) and given.repeats >= 5
    worst = accuracy()
    more = {"memory": memory(given.images)} if sys.platform == "linux" else {}
    keep(described, rows, "measures-", standard, **more, largest_difference=worst)
    print(pd.DataFrame(rows).to_string(index=False, float_format=lambda x: f"{x:.3g}"))
    print(*(pd.DataFrame(table).round().to_string(index=False) for table in more.values()))
    print(f"largest difference of the imputation to grad-cam's direct solution: {worst:.1e}")


if __name__ == "__main__":
    main()
