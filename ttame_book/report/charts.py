"""Curves and bars: scores, one row per image, go in; means and 95 % intervals are drawn."""

from collections.abc import Iterable, Mapping, Sequence
from itertools import cycle, product
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from ttame_book.report.intervals import bootstrap_interval
from ttame_book.report.names import RECIPE, ROLES, VARIANT, shown_name
from ttame_core.methods.registry import CONTROLS, METHODS, rival
from ttame_core.metrics.measures import MEASURES, direction, measure_label
from ttame_core.recipes import OURS, TRAINED

WIDTH = 7.3
"""Inches: 700 px, the page's column, so that text is there as large as it is told here."""
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
    names = list(names)
    others = dict.fromkeys(name for name in names if name not in TRAINED and not rival(name))
    of_libraries = [name for name in names if name not in METHODS and rival(name)]
    rivals = dict.fromkeys(name for name in (*METHODS, *of_libraries) if name not in CONTROLS)
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

    Parameters
    ----------
    scores : DataFrame
        One row per image: method (the part randomised), measure, v, value in [-1, 1].
    """
    return _bars(_titled(scores, False), 2, (None, 1))


def perturbation_curves(
    means: pd.DataFrame, names: Sequence[str], roles: Mapping[str, str]
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
    """
    figure, axes = plt.subplots(
        1, len(names), figsize=(WIDTH, 3.9), squeeze=False, sharey=True, layout="constrained"
    )
    role_of = {method: role for role, method in roles.items()}
    drawn: dict[str, Line2D] = {}
    for axis, name in zip(axes[0], names, strict=True):
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
    axes[0, 0].set(ylabel="confidence (%)", ylim=(0, None))
    handles = [drawn[role] for role in (*roles, "") if role in drawn]
    figure.legend(handles=handles, loc="outside lower center", ncols=3, frameon=False)
    return figure


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
    grid = _curves(shown, "steps", height=high, marker="o", **panels)
    grid.set_titles("{col_name}").set_xlabels("steps")
    for axis in grid.axes.flat:
        axis.set_xscale("symlog", linthresh=10, linscale=0.5)  # an untrained one is at 0
        axis.set_xlim(0)
        axis.xaxis.set_major_formatter("{x:g}")
    for axis, backbone in zip(grid.axes[:, 0], grid.row_names, strict=True):
        axis.set_ylabel(shown_name(backbone))
    sns.move_legend(grid, "outside upper center", ncols=3, title=None, frameon=False)
    for text in grid.figure.legends[0].get_texts():
        text.set_text(shown_name(text.get_text()))
    return grid.figure


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
    look = {"err_kws": {"linewidth": 1, "color": "0.2"}, "saturation": 1, "legend": False}
    grid = sns.catplot(scores, kind="bar", x="value", y="method", **INTERVAL, **look, **of)
    grid.set_titles("{col_name}").set_axis_labels("", "").set(xlim=limits)
    for axis in grid.axes.flat:  # seaborn hides only the ticks that were there before the bars
        axis.tick_params(labelleft=axis.get_subplotspec().is_first_col())
    first = grid.axes.flat[0]  # whose ticks all share
    names = [shown_name(label.get_text()) for label in first.get_yticklabels()]
    first.set_yticks(first.get_yticks(), names)
    grid.figure.set_layout_engine("constrained")
    return grid.figure


def _curves(scores: pd.DataFrame, x: str, **of: Any) -> sns.FacetGrid:
    """Draw means with bands, a curve for each method; its legend is still to be put outside."""
    of |= {"hue": "method", "style": "method", "size": "method", "markersize": 5}
    of |= {"facet_kws": {"sharey": False, "legend_out": False}}
    look = {"err_kws": {"alpha": 0.1, "linewidth": 0}, **method_styles(scores["method"].unique())}
    grid = sns.relplot(scores, kind="line", x=x, y="value", **INTERVAL, **look, **of)
    for line in [line for axis in grid.axes.flat for line in axis.lines]:
        line.set_zorder(2 + line.get_linewidth())  # the thickest on top
    grid.figure.set_layout_engine("constrained")
    return grid
