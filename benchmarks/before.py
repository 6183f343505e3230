"""What explaining, training and the measures take beside what they took at an earlier commit.

python benchmarks/before.py [--models resnet50 vgg16 vit_b_16] [--repeats 5]

Both are loaded into one process and timed in turn, and beside them this one in bfloat16 and
torchvision's own model in float32, on a CPU. Needs the project's history.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import gpu
import lightning_fabric
import pandas as pd
import torch
import torchvision

EARLIER = "f19a118"  # before frozen classifiers were made cheaper
MASKS = 16  # of RISE, an image
Modules = dict[str, ModuleType]
MOVED = {"steps": "training", "metrics.measures": "metrics", "metrics.scores": "metrics"}
"""Where the earlier commit has what has a module of its own today."""


def taken() -> Modules:
    """Take the package's modules out of those that are imported."""
    return {n: sys.modules.pop(n) for n in [*sys.modules] if n.partition(".")[0] == "ttame_core"}


class Tree:
    """One of two trees of the package in this process, whose imports find its own modules."""

    def __init__(self, place: Path, modules: Modules | None = None):
        self.modules, self.place = modules or {}, place

    def call(self, function: Callable[[], Any]) -> Any:
        """Call a function while imports, which some calls make, go to this tree."""
        others = taken()
        sys.modules.update(self.modules)
        sys.path.insert(0, str(self.place))
        try:
            return function()
        finally:
            sys.path.remove(str(self.place))
            self.modules = taken()
            sys.modules.update(others)


def calls(
    model: torch.nn.Module, name: str, images: torch.Tensor, moved: dict[str, str], **given: str
) -> dict:
    """Make what is timed, of the tree that is imported; the backbone takes what is given."""

    def part(module: str) -> ModuleType:
        return import_module(f"ttame_core.{moved.get(module, module)}")

    tt = import_module("ttame_core")
    assert sys.path[0] in str(tt.__file__), f"{tt.__file__} is not of {sys.path[0]}"
    backbone = tt.load_backbone(name, None, **given)
    backbone.model.load_state_dict(model.state_dict())
    explainer = tt.TTAME(backbone)
    with torch.no_grad():
        full, truth = backbone(images).softmax(1).max(1)
    maps = torch.rand(len(images), 14, 14)
    score = partial(part("metrics.scores").score_batch, backbone, images, truth, full, maps)
    training_step, recipe = part("steps").training_step, tt.Recipe(steps=1)
    optimizer = torch.optim.SGD(explainer.attention.parameters(), lr=1e-3, momentum=0.9)

    def step() -> None:
        explainer.attention.train()
        draw = torch.Generator().manual_seed(0)
        terms = training_step(backbone, explainer.attention, images, recipe, draw)
        optimizer.zero_grad()
        terms["total"].backward()
        optimizer.step()

    return {
        "explain": partial(explainer.explain, images, truth),
        "training step": step,
        "Grad-CAM": partial(tt.method("grad-cam", backbone), images, truth),
        "RISE": partial(tt.method("rise", backbone, masks=MASKS), images, truth),
        "AD and IC of three v": partial(score, part("metrics.measures").MASKING),
        "ROAD": partial(score, part("metrics.measures").ROAD),
    }


def rows_of(name: str, trees: dict[str, Tree], repeats: int) -> list[dict]:
    """Time both trees on one classifier, and the classifier as it comes."""
    torch.manual_seed(0)
    model = torchvision.models.get_model(name, weights=None).eval()
    images = torch.rand(gpu.BATCHES.get(name, gpu.BATCH), 3, 224, 224)
    functions: dict[str, Callable[[], object]] = {"plain": partial(gpu.plain, model, images)}
    before, now = trees["before"], trees["now"]
    columns: dict[str, tuple[Tree, dict[str, str], dict[str, str]]] = {
        "before": (before, MOVED, {}),
        "now": (now, {}, {}),
        "now, bfloat16": (now, {}, {"precision": "bfloat16"}),
    }
    whats: list[str] = []
    for column, (tree, moved, given) in columns.items():
        made = tree.call(partial(calls, model, name, images, moved, **given))
        functions |= {f"{column} {what}": partial(tree.call, f) for what, f in made.items()}
        whats = list(made)
    spent = gpu.in_turn(functions, repeats, warm=1).median()
    rows = []
    for what in whats:
        ratios = {column: spent[f"{column} {what}"] / spent["plain"] for column in columns}
        faster = ratios["before"] / ratios["now"]
        row = {"classifier": name, "batch": len(images), "what": what, **ratios}
        rows.append({**row, "faster": faster})
    return rows


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", nargs="+", default=[*gpu.MODELS])
    parser.add_argument("--repeats", type=int, default=5)
    given = parser.parse_args()
    # by the name that it had in a larger package
    sys.modules |= dict.fromkeys(("lightning", "lightning.fabric"), lightning_fabric)
    with tempfile.TemporaryDirectory() as folder:
        here = Path(__file__).resolve().parents[1]
        kept = subprocess.run(
            ["git", "archive", EARLIER], check=True, cwd=here, stdout=subprocess.PIPE
        )
        subprocess.run(["tar", "x", "-C", folder], input=kept.stdout, check=True)
        trees = {"before": Tree(Path(folder)), "now": Tree(here, taken())}
        rows, described = [], {**gpu.about(torch.device("cpu")), "before": EARLIER}
        for name in given.models:
            rows += rows_of(name, trees, given.repeats)
            print(pd.DataFrame(rows).round(2).to_string(index=False), flush=True)
            whole = given.repeats >= 5 and {*gpu.MODELS} == {row["classifier"] for row in rows}
            gpu.keep(described, rows, "before-", whole)
    print(json.dumps(described))


if __name__ == "__main__":
    main()
