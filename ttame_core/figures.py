"""Figures, one theme: overlays, galleries, curves, means with their spread."""

import textwrap
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

from ttame_core.backbones import Backbone
from ttame_core.configuration import TRAINED
from ttame_core.explainer import TTAME, Explanation
from ttame_core.imputation import impute, mean_fill
from ttame_core.masking import keep_top, minmax, upsample
from ttame_core.methods import CONTROLS, METHODS
from ttame_core.tables import NO_CONTEST, measure_label

COLOURS = "inferno"  # perceptually uniform, readable by the colour-blind and in grey
OPACITY = 0.6
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
    if heat is None:
        axes.imshow(image.detach().cpu().permute(1, 2, 0).numpy())
    else:
        axes.imshow(overlay(image, heat))
    axes.set_title(title, fontsize=9)
    axes.set_axis_off()


def overlay(image: Tensor, heat: Tensor) -> Image.Image:
    """Lay a map's colours over its image in grey.

    Parameters
    ----------
    image : Tensor
        ``(3, H, W)`` in [0, 1].
    heat : Tensor
        ``(h, w)`` in [0, 1].

    Returns
    -------
    Image
        ``H`` x ``W``, RGB.
    """
    large = upsample(heat.detach().cpu()[None].float(), tuple(image.shape[-2:]))[0]
    colours = plt.get_cmap(COLOURS)(large.numpy())[..., :3]
    grey = image.detach().cpu().mean(0).numpy()[..., None]
    mixed = OPACITY * colours + (1 - OPACITY) * grey
    return Image.fromarray((255 * mixed).round().astype(np.uint8))


def gallery(
    images: Tensor,
    maps: Mapping[str, Tensor],
    titles: Sequence[str] | None = None,
    keep: float | None = None,
) -> Figure:
    """Draw images in the first row and each method's maps over them in a row below.

    Parameters
    ----------
    images : Tensor
        ``(B, 3, H, W)`` in [0, 1].
    maps : mapping of str to Tensor
        ``(B, h, w)`` by the name of the row, or fewer maps: the first; each is min-max scaled.
    titles : sequence of str, optional
        One an image.
    keep : float, optional
        Draw in place of the maps what they leave of the images: the top so many per cent, at their soft values.

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
            if column >= len(heat):
                axes[row, column].set_axis_off()
                continue
            scaled = minmax(heat[column].float()) if heat[column].std() else heat[column].float()
            if keep is None:
                show_image(axes[row, column], image, scaled)
            else:
                large = upsample(scaled[None], image.shape[-2:])
                show_image(axes[row, column], image * keep_top(large, keep))
    _name_rows(axes, ["image", *maps])
    if keep is None:
        _colour_bar(figure, axes)
    return figure


def backbones_gallery(
    explained: Sequence[tuple[TTAME, Sequence[Mapping[str, Any]], Explanation]], across: int = 6
) -> Figure:
    """Draw the maps of several backbones for the same images (Fig. 14), a row a backbone.

    Parameters
    ----------
    explained : sequence of (TTAME, sequence of dict, Explanation)
        Explainer, images as `ttame_core.data` describes them, and its explanation of them.
    across : int
        Images beside each other; more go below, with rows of their own.

    Returns
    -------
    Figure
        Above each image its true class where it is known, above each map the predicted class and its
        confidence.
    """
    count, rows = len(explained[0][1]), len(explained) + 1
    columns, blocks = min(count, across), -(-count // across)
    figure, axes = plt.subplots(
        rows * blocks,
        columns,
        figsize=(1.35 * columns + 0.9, 1.65 * rows * blocks),
        squeeze=False,
        layout="constrained",
    )
    for axis in axes[-rows:, count - columns * (blocks - 1) :].ravel():
        axis.set_axis_off()  # in the last block, behind the last image
    names = ["image"]
    for row, (explainer, items, explanation) in enumerate(explained, start=1):
        names.append(explainer.backbone.name)
        titles = class_titles(explainer.backbone, explanation)
        for i, item in enumerate(items):
            block, column = divmod(i, columns)
            label = explainer.backbone.label(item["label"]) if "label" in item else ""
            above, here = axes[block * rows, column], axes[block * rows + row, column]
            if row == 1:
                show_image(above, item["image"], title=label)
            show_image(here, item["image"], explanation.maps[i], titles[i])
    _name_rows(axes, names * blocks)
    _colour_bar(figure, axes)
    return figure


def _name_rows(axes: np.ndarray, names: Sequence[str]) -> None:
    for axis, name in zip(axes[:, 0], names, strict=True):
        axis.text(-0.08, 0.5, name, rotation=90, va="center", ha="right", transform=axis.transAxes)


def _colour_bar(figure: Figure, axes: np.ndarray) -> None:
    scale = plt.cm.ScalarMappable(cmap=COLOURS, norm=plt.Normalize(0, 1))
    bar = figure.colorbar(scale, ax=axes, shrink=0.6, pad=0.01, aspect=30)
    bar.set_label("relevance (scaled)")
    bar.outline.set_visible(False)


def method_styles(names: Iterable[Any]) -> dict[str, dict[str, Any]]:
    """Give each method its colour and line, the same in every figure; controls are grey."""
    known = [*TRAINED, *(name for name in METHODS if name not in CONTROLS)]
    colours = sns.color_palette("colorblind")
    styles: dict[str, dict[str, Any]] = {
        name: {"color": colours[i % len(colours)], "linestyle": "-" if i < len(colours) else "--"}
        for i, name in enumerate([*known, *(n for n in names if n not in known)])
    }
    styles["t-tame"]["linewidth"] = 3
    for name, line in zip(CONTROLS, ("--", ":", "-."), strict=True):
        styles[name] = {"color": "0.5", "linestyle": line}
    return styles


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
    shown = means[~means["measure"].isin(NO_CONTEST)]
    panels = list(shown.groupby(["measure", "v"], sort=False))
    columns = min(4, len(panels))
    rows = -(-len(panels) // columns)
    figure, axes = plt.subplots(
        rows,
        columns,
        figsize=(2.6 * columns, (0.9 + 0.24 * shown["method"].nunique()) * rows),
        squeeze=False,
        sharey=True,
        layout="constrained",
    )
    for axis in axes.flat[len(panels) :]:
        axis.set_axis_off()
    styles = method_styles(shown["method"].unique())
    for axis, ((measure, v), group) in zip(axes.flat, panels, strict=False):
        spread = [group["mean"] - group["low"], group["high"] - group["mean"]]
        axis.barh(
            group["method"],
            group["mean"],
            xerr=np.clip(spread, 0, None),
            color=[styles[m]["color"] for m in group["method"]],
            error_kw={"elinewidth": 1},
        )
        axis.set_title(measure_label(measure, v), fontsize=10)
        axis.set_xlim(0, 100)
        axis.grid(axis="y", visible=False)
    axes.flat[0].invert_yaxis()  # shared by all
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
    styles = method_styles(means["method"].unique())
    size = (4.6 * len(names), max(3.6, 0.27 * len(styles)))  # as high as the legend
    figure, axes = plt.subplots(
        1, len(names), figsize=size, sharey=True, squeeze=False, layout="constrained"
    )
    for axis, name in zip(axes[0], names, strict=True):
        for method, line in means[means["measure"] == name].groupby("method", sort=False):
            axis.plot(
                line["v"], line["mean"], marker="o", ms=4, label=method, **styles[str(method)]
            )
            axis.fill_between(
                line["v"], line["low"], line["high"], color=styles[str(method)]["color"], alpha=0.1
            )
        title, label = CURVES[name]
        axis.set(title=title, xlabel=label, xlim=(0, 100))
    axes[0, 0].set(ylabel="confidence (%)", ylim=(0, None))
    axes[0, -1].legend(loc="center left", bbox_to_anchor=(1.02, 0.5), frameon=False)
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
