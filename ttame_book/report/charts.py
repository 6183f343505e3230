"""Curves and bars: scores, one row per image, go in; means and 95 % intervals are drawn."""

from collections.abc import Iterable, Sequence
from itertools import cycle, product
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

from ttame_book.report.intervals import bootstrap_interval
from ttame_core.methods.registry import CONTROLS, METHODS
from ttame_core.metrics.measures import MEASURES, direction, measure_label
from ttame_core.recipes import TRAINED

WIDTH = 8.3
"""Inches: 800 px on the page, so that text is there as large as it is told here."""
INTERVAL: dict[str, Any] = {"errorbar": lambda values: bootstrap_interval(np.asarray(values))}
"""The tables' own: what is drawn and what is told are the same."""


def theme() -> None:
    """Set the one theme of all figures: white ground, words in dark grey, sizes for the page."""
    sns.set_theme(style="whitegrid", palette="colorblind", context="paper", font_scale=1.1)
    plt.rcParams.update(
        {
            "figure.facecolor": "white",
            "savefig.facecolor": "white",
            "savefig.bbox": "tight",
            "savefig.dpi": 192,  # twice the shown width
            "figure.dpi": 110,
            "svg.hashsalt": "t-tame",  # same figure, same bytes
        }
    )


def method_styles(names: Iterable[Any] = ()) -> dict[str, dict[str, Any]]:
    """Give each method its line, the same in every figure.

    Trained ones are solid, T-TAME is thick, compared ones are muted and dashed, controls are grey.

    Parameters
    ----------
    names : iterable of str
        Further methods, which take the next lines.

    Returns
    -------
    dict
        Keywords of seaborn's line plots: ``palette``, ``dashes`` and ``sizes``, each by method.
    """
    colours = sns.color_palette("colorblind")
    del colours[7]  # its grey is the controls'
    muted = [tuple(0.25 + 0.55 * part for part in colour) for colour in colours]
    others = dict.fromkeys(name for name in names if name not in (*TRAINED, *METHODS))
    rivals = [name for name in METHODS if name not in CONTROLS]
    groups: list[tuple[Iterable[str], Sequence[Any], Sequence[Any], float]] = [
        ((*TRAINED, *others), ("", (8, 2)), colours, 1.6),
        (rivals, ((4, 2), (1, 1)), muted, 1.2),
        (CONTROLS, ((4, 2), (1, 1), (4, 1, 1, 1)), ["0.5"], 1.2),
    ]
    palette, dashes, sizes = {}, {}, {}
    for members, patterns, shades, width in groups:
        for name, line in zip(members, cycle(product(patterns, shades)), strict=False):
            (dashes[name], palette[name]), sizes[name] = line, width
    return {"palette": palette, "dashes": dashes, "sizes": {**sizes, "t-tame": 3}}


def measure_bars(scores: pd.DataFrame) -> Figure:
    """Draw the methods' means with their intervals, a panel for each measure with a better side.

    Parameters
    ----------
    scores : DataFrame
        One row per image: method, measure, v, value; of one backbone.
    """
    palette = method_styles(scores["method"].unique())["palette"]
    return _bars(_titled(scores, True), 3, (0, 100), hue="method", palette=palette)


def similarity_bars(scores: pd.DataFrame) -> Figure:
    """Draw how similar maps are to the original ones, with intervals, a row for each part.

    Parameters
    ----------
    scores : DataFrame
        One row per image: method (the part randomised), measure, v, value in [-1, 1].
    """
    return _bars(_titled(scores, False), 2, (None, 1))


def perturbation_curves(scores: pd.DataFrame, names: Sequence[str]) -> Figure:
    """Draw confidence against the share of pixels changed, with intervals as bands.

    Parameters
    ----------
    scores : DataFrame
        One row per image: method, measure, v, value; of one backbone.
    names : sequence of str
        Measures drawn, a panel each; keys of `measures.CURVES` or `measures.ROAD`.
    """
    shown = scores[scores["measure"].isin(names)]
    high = max(3.2, 0.6 + 0.2 * shown["method"].nunique())  # as high as the legend
    panels = {"col": "measure", "col_order": names, "aspect": WIDTH / len(names) / high}
    grid = _curves(shown, "v", sharey=True, height=high, **panels)
    for name, axis in grid.axes_dict.items():
        measure = MEASURES[name]
        axis.set(title=measure.arrowed(measure.title), xlabel=measure.axis, xlim=(0, 100))
    grid.set(ylim=(0, None)).set_ylabels("confidence (%)")
    sns.move_legend(grid, "outside center right", title=None, frameon=False)
    return grid.figure


def convergence_curves(scores: pd.DataFrame) -> Figure:
    """Draw what has a better side over the number of training steps, with intervals as bands.

    A row is a backbone, a panel a measure, a curve a method.

    Parameters
    ----------
    scores : DataFrame
        One row per image: backbone, method, steps, measure, v, value.
    """
    shown = _titled(scores, contest=True)
    high = 2 + 0.7 / shown["backbone"].nunique()  # the legend's, above all rows
    width = WIDTH / max(2, shown["panel"].nunique())
    panels = {"row": "backbone", "col": "panel", "aspect": width / high}
    grid = _curves(shown, "steps", sharey=False, height=high, marker="o", **panels)
    grid.set_titles("{col_name}").set_xlabels("steps")
    for axis in grid.axes.flat:
        axis.set_xscale("symlog", linthresh=10, linscale=0.5)  # an untrained one is at 0
        axis.set_xlim(0)
        axis.xaxis.set_major_formatter("{x:g}")
    for axis, backbone in zip(grid.axes[:, 0], grid.row_names, strict=True):
        axis.set_ylabel(backbone)
    sns.move_legend(grid, "outside upper center", ncols=3, title=None, frameon=False)
    return grid.figure


def differences_plot(differences: pd.DataFrame, measure: str, v: float) -> Figure:
    """Draw paired differences to every rival in one measure, a panel for each backbone.

    A colour is a method; filled are differences that are significant at 5 % after correction.

    Parameters
    ----------
    differences : DataFrame
        As `intervals.paired_differences` returns it.
    measure : str
        Measure drawn.
    v : float
        Its percentage.
    """
    chosen = differences[(differences["measure"] == measure) & (differences["v"] == v)]
    panels = list(chosen.groupby("backbone", sort=False))
    methods = list(chosen["method"].unique())
    colours = method_styles([*methods, *chosen["rival"].unique()])["palette"]
    rivals = [name for name in colours if name in set(chosen["rival"])]
    size = (WIDTH, 1.2 + (0.12 + 0.06 * len(methods)) * len(rivals))
    figure, axes = plt.subplots(
        1, len(panels), figsize=size, squeeze=False, sharey=True, layout="constrained"
    )
    for axis, (backbone, group) in zip(axes[0], panels, strict=True):
        for i, method in enumerate(methods):
            own = group[group["method"] == method]
            places = own["rival"].map(rivals.index).astype(float)  # none where it cannot serve
            places += 0.7 * ((i + 0.5) / len(methods) - 0.5)
            colour = colours[method]
            filled = [colour if p < 0.05 else "white" for p in own["p"]]
            axis.hlines(places, own["low"], own["high"], color=colour, label=method)
            axis.scatter(own["difference"], places, 16, color=filled, ec=colour, zorder=3)
        for row in range(0, len(rivals), 2):
            axis.axhspan(row - 0.5, row + 0.5, color="0.95", lw=0)
        axis.axvline(0, color="0.3", lw=1)
        axis.grid(axis="y", visible=False)
        axis.set_title(str(backbone))
    axes[0, 0].set_yticks(range(len(rivals)), rivals)
    axes[0, 0].set_ylim(len(rivals) - 0.5, -0.5)
    figure.supxlabel(f"method minus rival, {measure_label(measure, v)}", fontsize="medium")
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=3, frameon=False)
    return figure


def landscape(means: pd.DataFrame) -> Figure:
    """Draw AD(15) and IC(15) over learning rates and numbers of steps, the best of each framed.

    Parameters
    ----------
    means : DataFrame
        As `intervals.means_table` returns it by ``max_lr`` and ``steps``.
    """
    figure, axes = plt.subplots(1, 2, figsize=(WIDTH, 2.4), layout="constrained")
    for axis, measure in zip(axes, ("ad", "ic"), strict=True):
        chosen = means[(means["measure"] == measure) & (means["v"] == 15)]
        table = chosen.pivot_table(index="steps", columns="max_lr", values="mean")
        goodness = direction(measure) * table.to_numpy()
        colours = "viridis" if direction(measure) > 0 else "viridis_r"
        sns.heatmap(table, annot=True, fmt=".1f", cmap=colours, ax=axis, cbar=False)
        for row, column in np.argwhere(goodness == np.nanmax(goodness)):
            axis.add_patch(plt.Rectangle((column, row), 1, 1, fill=False, ec="black", lw=3))
        axis.set(title=measure_label(measure, 15), xlabel="max. learning rate", ylabel="steps")
        axis.tick_params(axis="y", rotation=0)
    return figure


def training_curves(history: pd.DataFrame) -> Figure:
    """Draw the loss terms (left) and the signs of a collapse (right) over a training's steps.

    Parameters
    ----------
    history : DataFrame
        As `ttame_core.train` returns it; drawn are averages over a twenty-fifth of the steps.
    """
    window = max(1, len(history) // 25)
    smooth = history.set_index("step").rolling(window, min_periods=1).mean()
    terms = {"total": "loss", "ce": "cross-entropy", "area": "area", "variation": "variation"}
    maps = {
        "truth_mean": "predicted class, mean",
        "truth_spread": "predicted class, spatial spread",
        "others_mean": "other classes, mean",
    }
    figure, axes = plt.subplots(1, 2, figsize=(WIDTH, 3.8), layout="constrained")
    for axis, labels in zip(axes, (terms, maps), strict=True):
        sns.lineplot(smooth[list(labels)].rename(columns=labels), dashes=False, ax=axis)
        sns.move_legend(axis, "lower center", bbox_to_anchor=(0.5, 1), frameon=False)
    axes[0].set(ylabel="loss term (not weighted)", yscale="log")
    axes[1].set(ylabel="map after the sigmoid", ylim=(0, 1))
    return figure


def _titled(scores: pd.DataFrame, contest: bool) -> pd.DataFrame:
    """Put its panel's title to each score; ``contest``: of measures with a better side alone."""
    kept = scores[scores["measure"].map(direction) != 0] if contest else scores
    pairs = zip(kept["measure"], kept["v"], strict=True)
    return kept.assign(panel=[measure_label(measure, v) for measure, v in pairs])


def _bars(scores: pd.DataFrame, columns: int, limits: tuple, **of: Any) -> Figure:
    """Draw means with intervals, a row for each method and a panel for each title."""
    high = 0.6 + 0.2 * scores["method"].nunique()
    of |= {"col": "panel", "col_wrap": columns, "height": high, "aspect": WIDTH / columns / high}
    look = {"err_kws": {"linewidth": 1, "color": "0.2"}, "saturation": 1, "legend": False}
    grid = sns.catplot(scores, kind="bar", x="value", y="method", **INTERVAL, **look, **of)
    grid.set_titles("{col_name}").set_axis_labels("", "").set(xlim=limits)
    for axis in grid.axes.flat:  # seaborn hides only the ticks that were there before the bars
        axis.tick_params(labelleft=axis.get_subplotspec().is_first_col())
    grid.figure.set_layout_engine("constrained")
    return grid.figure


def _curves(scores: pd.DataFrame, x: str, sharey: bool, **of: Any) -> sns.FacetGrid:
    """Draw means with bands, a curve for each method; its legend is still to be put outside."""
    of |= {"hue": "method", "style": "method", "size": "method", "markersize": 5}
    of |= {"facet_kws": {"sharey": sharey, "legend_out": False}}
    look = {"err_kws": {"alpha": 0.1, "linewidth": 0}, **method_styles(scores["method"].unique())}
    grid = sns.relplot(scores, kind="line", x=x, y="value", **INTERVAL, **look, **of)
    for line in [line for axis in grid.axes.flat for line in axis.lines]:
        line.set_zorder(2 + line.get_linewidth())  # the thickest on top
    grid.figure.set_layout_engine("constrained")
    return grid
