"""Curves and bars: scores, one row per image, go in; means and 95 % intervals are drawn."""

from collections.abc import Mapping, Sequence
from itertools import cycle
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from ttame_book.report.intervals import bootstrap_interval, means_table
from ttame_book.report.names import RECIPE, ROLES, VARIANT, shown_name
from ttame_core.metrics.measures import MEASURES, direction, measure_label
from ttame_core.recipes import OURS

WIDTH = 7.3
"""Inches: 700 px, the page's column, so that text is there as large as it is told here."""
NARROW = 3.5
"""Of a figure that a small screen shows whole."""
GREY = "0.72"
"""What has no role in a figure of all methods."""
ROLE_COLOURS = dict(
    zip(ROLES, ("#0173b2", "#d55e00", "#029e73", "#cc78bc", "#8a5a00"), strict=True)
)
"""Of seaborn's palette for all eyes."""
ROLE_MARKERS = dict(zip(ROLES, "oDs^v", strict=True))
ROLE_DASHES: dict[str, Any] = dict(
    zip(ROLES, ("-", "-", (0, (5, 1.5)), (0, (2, 1)), (0, (5, 1, 1, 1))), strict=True)
)
"""For those who see no colours: of marks, and of curves."""
OTHER_COLOURS, OTHER_MARKERS = ("#332288", "#882255", "#999933", "#56b4e9", "0.35"), "PXv*<>"
"""Of curves that have no role, of a palette for all eyes; 5 and 6, so that pairs differ."""


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


def measure_bars(scores: pd.DataFrame, roles: Mapping[str, str]) -> Figure:
    """Draw the methods' means with their intervals, a panel for each measure with a better side.

    Methods that have a role are in colour, all others grey.

    Parameters
    ----------
    scores : DataFrame
        One row per image: method, measure, v, value; of one backbone.
    roles : mapping
        Methods by their role, as `names.cast_roles` finds them.
    """
    coloured = {method: ROLE_COLOURS[role] for role, method in roles.items()}
    palette = {name: coloured.get(name, GREY) for name in scores["method"].unique()}
    return _bars(_titled(scores, True), 3, (0, 100), hue="method", palette=palette)


def similarity_bars(scores: pd.DataFrame) -> Figure:
    """Draw how similar maps are to the original ones, with intervals, a row for each part.

    Scores have a row an image: method (the part randomised), measure, v, value in [-1, 1].
    """
    return _bars(_titled(scores, False), 2, (None, 1))


def perturbation_curves(
    means: pd.DataFrame, names: Sequence[str], roles: Mapping[str, str], narrow: bool = False
) -> Figure:
    """Draw confidence against the share of pixels changed, a curve a method.

    Methods that have a role are in colour, with their intervals as bands; the others are grey,
    variants of T-TAME without a role are left out.

    Parameters
    ----------
    means : DataFrame
        As `intervals.means_table` returns it, of one backbone.
    names : sequence of str
        Measures drawn, a panel each; keys of `measures.CURVES` or `measures.ROAD`.
    roles : mapping
        Methods by their role, as `names.cast_roles` finds them.
    narrow : bool
        For a small screen: panels below each other.
    """
    shape = (len(names), 1) if narrow else (1, len(names))
    size = (NARROW, 1.6 + 2.8 * len(names)) if narrow else (WIDTH, 3.9)
    figure, axes = plt.subplots(
        *shape, figsize=size, squeeze=False, sharey=True, layout="constrained"
    )
    role_of = {method: role for role, method in roles.items()}
    drawn: dict[str, Line2D] = {}
    for axis, name in zip(axes.flat, names, strict=True):
        chosen = means[means["measure"] == name]
        for method, curve in chosen.sort_values("v").groupby("method", sort=False):
            role = role_of.get(str(method), "")
            if method in OURS and not role:
                continue
            colour = ROLE_COLOURS.get(role, GREY)
            own = role in (RECIPE, VARIANT)
            dashes, order = ROLE_DASHES.get(role, "-"), 2 + bool(role) + own
            look: dict[str, Any] = {"color": colour, "ls": dashes, "zorder": order}
            (line,) = axis.plot(curve["v"], curve["mean"], lw=2.6 if own else 1.6, **look)
            line.set_label(shown_name(str(method)) if role else "other methods and controls")
            drawn[role] = line
            if role:
                axis.fill_between(curve["v"], curve["low"], curve["high"], color=colour, alpha=0.12)
            else:
                line.set_linewidth(0.9)
        measure = MEASURES[name]
        side = {1: "higher", -1: "lower"}[measure.direction]
        axis.set_title(f"{measure.title}\n{side} is better", fontsize="medium")
        axis.set(xlabel=measure.axis, xlim=(0, 100))
    axes[0, 0].set_ylim(0, None)
    for axis in axes[:, 0]:
        axis.set_ylabel("confidence (%)")
    handles = [drawn[role] for role in (*roles, "") if role in drawn]
    figure.legend(
        handles=handles, loc="outside lower center", ncols=1 if narrow else 3, frameon=False
    )
    return figure


def convergence_curves(scores: pd.DataFrame, narrow: bool = False) -> Figure:
    """Draw what has a better side over the number of training steps, with intervals as bands.

    A row is a backbone, a panel a measure, a curve a method: the paper's recipe in its colour,
    others in colours that are no role's.

    Parameters
    ----------
    scores : DataFrame
        One row per image: backbone, method, steps, measure, v, value.
    narrow : bool
        For a small screen: panels below each other.
    """
    means = means_table(_titled(scores, contest=True), ["backbone", "panel", "method", "steps"])
    names = means["method"].unique()
    looks = {"t-tame": (ROLE_COLOURS[RECIPE], ROLE_MARKERS[RECIPE])}
    further = zip(cycle(OTHER_COLOURS), cycle(OTHER_MARKERS), strict=False)
    looks |= dict(zip((name for name in names if name != "t-tame"), further, strict=False))
    backbones, panels = (list(means[column].unique()) for column in ("backbone", "panel"))
    lines = -(-len(panels) // (2 if narrow else 4))
    columns = -(-len(panels) // lines)
    last = means["steps"].max()
    ticks = {0, min(10, last), *(10**k for k in range(2, 9) if 10**k <= last)}
    size = (NARROW if narrow else WIDTH, 0.8 + (0.3 + 1.9 * lines) * len(backbones))
    figure = plt.figure(figsize=size, layout="constrained")
    rows = figure.subfigures(len(backbones), 1, squeeze=False)[:, 0]
    for row, backbone in zip(rows, backbones, strict=True):
        row.suptitle(shown_name(backbone), x=0.02, ha="left", fontsize=10, weight="bold")
        axes = list(row.subplots(lines, columns, squeeze=False).flat)
        for axis in axes[len(panels) :]:
            axis.set_visible(False)
        for axis, panel in zip(axes, panels, strict=False):
            own = means[(means["backbone"] == backbone) & (means["panel"] == panel)]
            for name, curve in own.sort_values("steps").groupby("method", sort=False):
                colour, marker = looks[name]
                axis.plot(curve["steps"], curve["mean"], color=colour, marker=marker, ms=4, lw=1.4)
                ends = curve["low"], curve["high"]
                axis.fill_between(curve["steps"], *ends, color=colour, alpha=0.1, lw=0)
            axis.set_title(panel, fontsize=9)
            axis.set_xscale("symlog", linthresh=10, linscale=0.5)  # an untrained one is at 0
            axis.set_xlim(0)
            axis.set_xticks(sorted(ticks), [f"{steps:,}" for steps in sorted(ticks)])
            axis.yaxis.set_major_locator(MaxNLocator(4, integer=True, min_n_ticks=1))
    figure.supylabel("per cent", fontsize=9.5)
    figure.supxlabel("training steps (logarithmic axis)", fontsize=9.5)
    marks = [
        Line2D([], [], color=looks[name][0], marker=looks[name][1], label=shown_name(name))
        for name in names
    ]
    above: dict[str, Any] = {"loc": "outside upper center", "frameon": False}
    figure.legend(handles=marks, ncols=1 if narrow else 3, **above)
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
    terms = {"total": "loss", "ce": "classification", "area": "area", "variation": "variation"}
    terms |= {"variance": "the loss of constant maps"}  # of amortised RISE
    maps = {
        "truth_mean": "predicted class, mean",
        "truth_spread": "predicted class, spatial spread",
        "others_mean": "other classes, mean",
    }
    figure, axes = plt.subplots(1, 2, figsize=(WIDTH, 3.8), layout="constrained")
    for axis, labels in zip(axes, (terms, maps), strict=True):
        there = [name for name in labels if name in smooth]
        sns.lineplot(smooth[there].rename(columns=labels), dashes=False, ax=axis)
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
    of |= {"errorbar": lambda values: bootstrap_interval(np.asarray(values))}  # as in tables
    look = {"err_kws": {"linewidth": 1, "color": "0.2"}, "saturation": 1, "legend": False}
    grid = sns.catplot(scores, kind="bar", x="value", y="method", **look, **of)
    grid.set_titles("{col_name}").set_axis_labels("", "").set(xlim=limits)
    for axis in grid.axes.flat:  # seaborn hides only the ticks that were there before the bars
        axis.tick_params(labelleft=axis.get_subplotspec().is_first_col())
    first = grid.axes.flat[0]  # whose ticks all share
    names = [shown_name(label.get_text()) for label in first.get_yticklabels()]
    first.set_yticks(first.get_yticks(), names)
    grid.figure.set_layout_engine("constrained")
    return grid.figure
