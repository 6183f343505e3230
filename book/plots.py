"""The figures of pages that are made from scores, each with its data beside it."""

import io
import json
from base64 import b64decode
from collections.abc import Callable
from functools import partial
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
import torch
from matplotlib.figure import Figure
from PIL import Image
from summaries import backbones_of, read_evidence, read_scores
from torch import Tensor
from torchvision.transforms.functional import to_tensor

from ttame_book.editions.runs import settle
from ttame_book.report.charts import convergence_curves, perturbation_curves, theme
from ttame_book.report.drawing import architecture, architecture_parts
from ttame_book.report.figures import cost_points, forest_plot, quality_cost, verdict_strip
from ttame_book.report.maps import gallery
from ttame_book.report.names import cast_roles
from ttame_book.report.verdicts import deciding_comparisons
from ttame_core.classifiers.loading import load_backbone
from ttame_core.explainer import TTAME
from ttame_core.metrics.measures import ROAD

FIGURES = "figures"  # their folder in the book
NARROW = "_static/narrow"  # the folder of their twins, which pages show on small screens
FOREST = {"ad50": ("ad", 50), "ad15": ("ad", 15), "ic50": ("ic", 50), "lerf": ("mean lerf", 0)}
"""Measures and percentages that have a forest plot, by the plot's name."""


def write_figures(folder: Path, place: Path) -> None:
    """Draw an edition's figures into a folder of the book: forest plots, costs, claims, ROAD."""
    theme()
    means, differences = read_scores(folder)
    roles = {name: cast_roles(means[means["backbone"] == name]) for name in backbones_of(folder)}

    def draw_forest(name: str, measure: str, v: float, shown: dict[str, dict[str, str]]) -> None:
        of = (differences["measure"] == measure) & (differences["v"] == v)
        rows = differences[of & differences["backbone"].isin(list(shown))]
        draw = partial(forest_plot, rows, measure, v, shown)
        save_both(draw, place / f"forest-{name}.svg", rows)

    for name, (measure, v) in FOREST.items():
        draw_forest(name, measure, v, roles)
    costs = pd.read_csv(folder / "summary" / "costs.csv")
    draw = partial(quality_cost, means, costs, roles)
    save_both(draw, place / "quality-cost.svg", cost_points(means, costs))
    deciding = deciding_comparisons(read_evidence(folder))
    save_both(partial(verdict_strip, deciding), place / "verdicts.svg", deciding)
    files = sorted(folder.glob("*/convergence.parquet"))
    points = pd.concat([pd.read_parquet(file) for file in files]) if files else pd.DataFrame()
    if len(points):
        points = points.sort_values(
            "backbone", key=lambda b: b.map(list(roles).index), kind="stable"
        )
        lengths = pd.read_csv(folder / "summary" / "convergence.csv")
        save_both(partial(convergence_curves, points), place / "convergence.svg", lengths)
    for backbone, own in roles.items():
        draw_forest(f"ad50-{backbone}", "ad", 50, {backbone: own})
        curves = pd.read_csv(folder / backbone / "road.csv")
        curves = curves[curves["measure"].isin(list(ROAD))]
        draw = partial(perturbation_curves, curves, list(ROAD), own)
        save_both(draw, place / f"road-{backbone}.svg", curves)


def write_maps(folder: Path, place: Path) -> None:
    """Draw what the explorer has of photographs that may be shown, with their maps, as JPEG."""
    theme()
    found = json.loads((folder / "summary" / "explorer.json").read_text())["classifiers"]
    for backbone, told in found.items():
        images = told["images"]
        pictures = torch.stack([decoded(each["picture"]) for each in images])
        maps = {
            name: torch.stack([decoded(each["methods"][name][0]["map"])[0] for each in images])
            for name in images[0]["methods"]
        }
        first = [each["classes"][0] for each in images]
        titles = [f"{of['name']}\n{100 * of['before']:.0f} %" for of in first]
        figure = gallery(pictures, maps, titles)
        figure.savefig(place / f"maps-{backbone}.jpg", pil_kwargs={"quality": 90})
        plt.close(figure)


def decoded(address: str) -> Tensor:
    """Read the picture that an address holds, (channels, H, W) from 0 to 1."""
    picture = Image.open(io.BytesIO(b64decode(address.partition(",")[2])))
    return to_tensor(picture)


def save_both(draw: Callable[..., Figure], file: Path, data: pd.DataFrame) -> None:
    """Write a figure with its data, and its twin for small screens."""
    save(draw(), file, data)
    twin = file.parent.parent / NARROW / file.name
    twin.parent.mkdir(parents=True, exist_ok=True)
    save(draw(narrow=True), twin)


def save(figure: Figure, file: Path, data: pd.DataFrame | None = None) -> None:
    """Write a figure as SVG; where there is data, as PDF too, and the data as CSV beside it."""
    box = settle(figure, 0.03 if data is None else 0.1)
    figure.savefig(file, metadata={"Date": None}, bbox_inches=box)
    if data is not None:
        figure.savefig(file.with_suffix(".pdf"), metadata={"CreationDate": None}, bbox_inches=box)
        data.to_csv(file.with_suffix(".csv"), index=False)
    plt.close(figure)


def write_drawing(file: Path) -> None:
    """Draw the method as it is for the paper's ResNet-50."""
    theme()
    explainer = TTAME(load_backbone("resnet50", None))
    save(architecture(explainer), file, architecture_parts(explainer))
