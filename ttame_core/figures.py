"""Figures and tables, one theme: overlays, galleries, curves, means with their spread."""

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

from ttame_core.masking import minmax, upsample

COLOURS = "inferno"  # perceptually uniform, readable by the colour-blind and in grey
OPACITY = 0.6
MEASURES = {
    "ad": "AD({v}) ↓",
    "ic": "IC({v}) ↑",
    "pointing": "pointing game ↑",
    "energy": "energy inside ↑",
    "confidence": "confidence",
}
LOWER_IS_BETTER = ("ad",)


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
    return MEASURES[measure].format(v=f"{v:g}")


def means_table(scores: pd.DataFrame, by: Sequence[str] = ("method",)) -> pd.DataFrame:
    """Mean and 95 % bootstrap interval over images of every measure.

    Parameters
    ----------
    scores : DataFrame
        One row an image: the columns of ``by``, measure, v, value.
    by : sequence of str
        What a row of the table is.

    Returns
    -------
    DataFrame
        Columns of ``by``, measure, v, n (images), mean, low, high.
    """
    rows = []
    for key, group in scores[scores["measure"].isin(MEASURES)].groupby(
        [*by, "measure", "v"], sort=False, observed=True
    ):
        values = group["value"].dropna().to_numpy()
        low, high = bootstrap_interval(values)
        rows.append((*key, len(values), values.mean(), low, high))
    return pd.DataFrame(rows, columns=[*by, "measure", "v", "n", "mean", "low", "high"])


def bootstrap_interval(values: np.ndarray, seed: int = 0) -> tuple[float, float]:
    """95 % percentile bootstrap interval of a mean (SciPy's), seeded.

    Parameters
    ----------
    values : ndarray
        ``(n,)``.
    seed : int
        Of the resampling.

    Returns
    -------
    tuple of float
        Low and high; both the mean where all values are alike or there is only one.
    """
    from scipy.stats import bootstrap  # slow to import, needed here only

    if len(values) < 2 or np.ptp(values) == 0:
        return float(values.mean()), float(values.mean())
    interval = bootstrap(
        (values,), np.mean, n_resamples=2000, method="percentile", rng=np.random.default_rng(seed)
    ).confidence_interval
    return float(interval.low), float(interval.high)


def wide_table(means: pd.DataFrame, index: Sequence[str] = ("method",)) -> pd.DataFrame:
    """Turn means into a table to read: a row a method, a column a measure, ``mean [low, high]``.

    Parameters
    ----------
    means : DataFrame
        As `means_table` returns it.
    index : sequence of str
        What a row is.

    Returns
    -------
    DataFrame
        Strings.
    """
    text = [
        f"{m:.1f} [{lo:.1f}, {hi:.1f}]"
        for m, lo, hi in zip(means["mean"], means["low"], means["high"], strict=True)
    ]
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
        As `means_table` returns it by backbone and method.
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

    return table.style.apply(bold, axis=0).format(na_rep="")


def measure_bars(means: pd.DataFrame) -> Figure:
    """Draw the methods' means with their intervals, a panel a measure.

    Parameters
    ----------
    means : DataFrame
        As `means_table` returns it for one backbone.

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
