"""Figures and tables, one theme: overlays, galleries, curves, means with their spread."""

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from pandas.io.formats.style import Styler
from torch import Tensor

from ttame_core.backbones import Backbone
from ttame_core.explainer import Explanation
from ttame_core.imputation import impute, mean_fill
from ttame_core.masking import minmax, upsample

COLOURS = "inferno"  # perceptually uniform, readable by the colour-blind and in grey
OPACITY = 0.6
LABELS = {
    "ad": "AD({v}) ↓",
    "ic": "IC({v}) ↑",
    "pointing": "pointing game ↑",
    "energy": "energy inside ↑",
    "confidence": "confidence",
    "morf": "MoRF({v}) ↓",
    "lerf": "LeRF({v}) ↑",
    "insertion": "insertion({v}) ↑",
    "deletion": "deletion({v}) ↓",
    "mean morf": "ROAD, MoRF ↓",
    "mean lerf": "ROAD, LeRF ↑",
    "mean insertion": "insertion ↑",
    "mean deletion": "deletion ↓",
}
LOWER_IS_BETTER = ("ad", "morf", "deletion", "mean morf", "mean deletion")
CURVES = {
    "morf": ("ROAD, most relevant first ↓", "pixels imputed (%)"),
    "lerf": ("ROAD, least relevant first ↑", "pixels imputed (%)"),
    "deletion": ("deletion ↓", "pixels deleted (%)"),
    "insertion": ("insertion ↑", "pixels shown (%)"),
}


def theme() -> None:
    """Set the one theme of all figures: white ground, words in dark grey, sizes for the page."""
    sns.set_theme(style="whitegrid", palette="colorblind", context="notebook")
    plt.rcParams.update(
        {
            "figure.facecolor": "white",
            "savefig.facecolor": "white",
            "savefig.bbox": "tight",
            "savefig.dpi": 130,
            "figure.dpi": 110,
            "svg.hashsalt": "t-tame",  # same figure, same bytes
        }
    )


def show_image(axes: Axes, image: Tensor, heat: Tensor | None = None, title: str = "") -> None:
    """Draw an image, dimmed to grey under a map's colours where a map is given.

    Parameters
    ----------
    axes : Axes
        Where to draw.
    image : Tensor
        ``(3, H, W)`` in [0, 1].
    heat : Tensor, optional
        ``(h, w)`` in [0, 1].
    title : str
        Above the image.
    """
    pixels = image.detach().cpu()
    if heat is None:
        axes.imshow(pixels.permute(1, 2, 0).numpy())
    else:
        height, width = pixels.shape[-2:]
        large = upsample(heat.detach().cpu()[None].float(), (height, width))[0]
        axes.imshow(pixels.mean(0).numpy(), cmap="gray", vmin=0, vmax=1)
        axes.imshow(large.numpy(), cmap=COLOURS, vmin=0, vmax=1, alpha=OPACITY)
    axes.set_title(title, fontsize=9)
    axes.set_axis_off()


def gallery(
    images: Tensor, maps: Mapping[str, Tensor], titles: Sequence[str] | None = None
) -> Figure:
    """Draw images in the first row and each method's maps over them in a row below.

    Parameters
    ----------
    images : Tensor
        ``(B, 3, H, W)`` in [0, 1].
    maps : mapping of str to Tensor
        ``(B, h, w)`` by the name of the row; each is min-max scaled.
    titles : sequence of str, optional
        One an image.

    Returns
    -------
    Figure
        With one colour bar: 0 is the least relevant, 1 the most.
    """
    rows, columns = len(maps) + 1, len(images)
    figure, axes = plt.subplots(
        rows,
        columns,
        figsize=(1.35 * columns + 0.9, 1.45 * rows),
        squeeze=False,
        layout="constrained",
    )
    for column, image in enumerate(images):
        show_image(axes[0, column], image, title=titles[column] if titles else "")
        for row, heat in enumerate(maps.values(), start=1):
            show_image(axes[row, column], image, minmax(heat[column].float()))
    for row, name in enumerate(["image", *maps]):
        axes[row, 0].text(
            -0.08, 0.5, name, rotation=90, va="center", ha="right", transform=axes[row, 0].transAxes
        )
    scale = plt.cm.ScalarMappable(cmap=COLOURS, norm=plt.Normalize(0, 1))
    bar = figure.colorbar(scale, ax=axes, shrink=0.6, pad=0.01, aspect=30)
    bar.set_label("relevance (scaled)")
    bar.outline.set_visible(False)
    return figure


def class_titles(backbone: Backbone, explanation: Explanation) -> list[str]:
    """Title each explained image with its class in words and the confidence in it."""
    return [
        f"{textwrap.shorten(backbone.label(c), 18, placeholder='…')}, {p:.0%}"
        for c, p in zip(explanation.classes.tolist(), explanation.confidences.tolist(), strict=True)
    ]


def training_curves(history: pd.DataFrame) -> Figure:
    """Draw the loss terms and the signs of a collapse over the steps of a training.

    Parameters
    ----------
    history : DataFrame
        As returned by `ttame_core.train`.

    Returns
    -------
    Figure
        Left: loss and parts; right: mean and spread of the truth's map, mean of the others.
    """
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.2), layout="constrained")
    window = max(1, len(history) // 25)
    smooth = history.rolling(window, min_periods=1).mean()
    labels = {"total": "loss", "ce": "cross-entropy", "area": "area", "variation": "variation"}
    for column, label in labels.items():
        left.plot(history["step"], smooth[column], label=label)
    left.set(xlabel="step", ylabel="loss term (not weighted)", yscale="log")
    left.legend()
    labels = {
        "truth_mean": "predicted class, mean",
        "truth_spread": "predicted class, spatial spread",
        "others_mean": "other classes, mean",
    }
    for column, label in labels.items():
        right.plot(history["step"], smooth[column], label=label)
    right.set(xlabel="step", ylabel="map after the sigmoid", ylim=(0, 1))
    right.legend()
    return figure


def measure_label(measure: Any, v: Any) -> str:
    """Say a measure in words, with an arrow to the better side."""
    return LABELS[measure].format(v=f"{v:g}")


def wide_table(means: pd.DataFrame, index: Sequence[str] = ("method",)) -> pd.DataFrame:
    """Turn means into a table to read: a row a method, a column a measure.

    Parameters
    ----------
    means : DataFrame
        As `statistics.means_table` returns it.
    index : sequence of str
        What a row is.

    Returns
    -------
    DataFrame
        Strings: the mean, and half the width of its interval behind the sign ±.
    """
    half = (means["high"] - means["low"]) / 2
    text = [f"{m:.1f} ±{h:.1f}" for m, h in zip(means["mean"], half, strict=True)]
    labels = [measure_label(m, v) for m, v in zip(means["measure"], means["v"], strict=True)]
    long = means.assign(text=text, label=labels)
    table = long.pivot_table(
        index=list(index), columns="label", values="text", aggfunc="first", sort=False
    )
    table.columns.name = None
    return table


def best_marked(means: pd.DataFrame, controls: Sequence[str] = ("random", "all-ones")) -> Styler:
    """Style a table over backbones and methods, the best method of each backbone in bold.

    Parameters
    ----------
    means : DataFrame
        As `statistics.means_table` returns it by backbone and method.
    controls : sequence of str
        Methods that are shown but do not compete.

    Returns
    -------
    Styler
        Ties are all bold.
    """
    compete = means[~means["method"].isin(controls)]
    sign = np.where(compete["measure"].isin(LOWER_IS_BETTER), -1.0, 1.0)
    ranked = compete.assign(score=sign * compete["mean"])
    top = ranked.groupby(["backbone", "measure", "v"])["score"].transform("max")
    best = {
        (row.backbone, row.method, measure_label(row.measure, row.v))
        for row in ranked[ranked["score"] == top].itertuples()
        if row.measure != "confidence"
    }
    table = wide_table(means, ["backbone", "method"])

    def bold(column: pd.Series) -> list[str]:
        return ["font-weight: bold" if (*i, column.name) in best else "" for i in column.index]

    plain: Any = [{"selector": "td, th", "props": "white-space: nowrap; text-align: right"}]
    styled = table.style.apply(bold, axis=0).format(na_rep="").set_table_styles(plain)
    return styled.set_table_attributes('class="dataframe"')


def measure_bars(means: pd.DataFrame) -> Figure:
    """Draw the methods' means with their intervals, a panel a measure.

    Parameters
    ----------
    means : DataFrame
        As `statistics.means_table` returns it for one backbone.

    Returns
    -------
    Figure
    """
    shown = means[means["measure"] != "confidence"]
    panels = list(shown.groupby(["measure", "v"], sort=False))
    columns = min(4, len(panels))
    rows = -(-len(panels) // columns)
    figure, axes = plt.subplots(
        rows, columns, figsize=(2.6 * columns, 2.1 * rows), squeeze=False, layout="constrained"
    )
    for axis in axes.flat[len(panels) :]:
        axis.set_axis_off()
    palette = dict(zip(shown["method"].unique(), sns.color_palette("colorblind"), strict=False))
    for axis, ((measure, v), group) in zip(axes.flat, panels, strict=False):
        spread = [group["mean"] - group["low"], group["high"] - group["mean"]]
        axis.barh(
            group["method"],
            group["mean"],
            xerr=np.clip(spread, 0, None),
            color=[palette[m] for m in group["method"]],
            error_kw={"elinewidth": 1},
        )
        axis.set_title(measure_label(measure, v), fontsize=10)
        axis.set_xlim(0, 100)
        axis.invert_yaxis()
        axis.grid(axis="y", visible=False)
    return figure


def perturbation_curves(means: pd.DataFrame, names: Sequence[str]) -> Figure:
    """Draw confidence against the share of pixels changed, a panel a measure, a curve a method.

    Parameters
    ----------
    means : DataFrame
        As `statistics.means_table` returns it for one backbone.
    names : sequence of str
        Measures drawn, keys of `CURVES`.

    Returns
    -------
    Figure
        The bands are the 95 % intervals.
    """
    figure, axes = plt.subplots(
        1, len(names), figsize=(4.6 * len(names), 3.6), squeeze=False, layout="constrained"
    )
    palette = dict(zip(means["method"].unique(), sns.color_palette("colorblind"), strict=False))
    for axis, name in zip(axes[0], names, strict=True):
        for method, line in means[means["measure"] == name].groupby("method", sort=False):
            axis.plot(line["v"], line["mean"], "o-", color=palette[method], ms=4, label=method)
            axis.fill_between(
                line["v"], line["low"], line["high"], color=palette[method], alpha=0.15
            )
        title, label = CURVES[name]
        axis.set(title=title, xlabel=label, ylabel="confidence (%)", xlim=(0, 100), ylim=(0, 100))
    axes[0, -1].legend()
    return figure


def imputation_panels(images: Tensor, removed: Tensor) -> Figure:
    """Show what imputation leaves of a mask (Fig. 4): image, mask, mean fill, noisy linear fill.

    Parameters
    ----------
    images : Tensor
        ``(B, 3, H, W)`` in [0, 1].
    removed : Tensor
        ``(B, H, W)`` bool.

    Returns
    -------
    Figure
        A row an image.
    """
    columns = {
        "image": images,
        "pixels removed": (~removed)[:, None] * images.new_ones(1, 3, 1, 1),
        "filled with the mean": mean_fill(images, removed),
        "noisy linear imputation": impute(images, removed).clamp(0, 1),
    }
    figure, axes = plt.subplots(
        len(images), 4, figsize=(9, 2.4 * len(images)), squeeze=False, layout="constrained"
    )
    for column, (title, pictures) in enumerate(columns.items()):
        for row, picture in enumerate(pictures):
            show_image(axes[row, column], picture, title=title if row == 0 else "")
    return figure
