"""The figures that answer: forest plots, quality for cost, verdicts with their intervals.

``roles`` are, for each classifier, the methods that are in colour, as `names.cast_roles` finds
them.
"""

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from ttame_book.report.charts import GREY, ROLE_COLOURS, ROLE_MARKERS, WIDTH
from ttame_book.report.claims import VERDICTS
from ttame_book.report.names import OTHER, RECIPE, ROLES, VARIANT, rivals_of, shown_name
from ttame_core.methods.registry import CONTROLS, METHODS
from ttame_core.metrics.measures import direction, measure_label
from ttame_core.recipes import OURS, TRAINED

Roles = Mapping[str, Mapping[str, str]]
"""Classifier, role, method."""
ACROSS = 3
"""Panels beside each other at most: with more, the words below them would overlap."""
SIGNIFICANT = 0.05
BAND = "0.95"
"""Ground of every other row."""
TOLD = {VARIANT: "variant", OTHER: "other"}
"""How a panel's title names the roles that are another method's in each."""
WORDS = dict(
    zip(VERDICTS, ("confirmed", "not confirmed", "undecided", "not applicable"), strict=True)
)
VERDICT_COLOURS = dict(zip(VERDICTS, ("#0173b2", "#c44e00", "0.35", "0.6"), strict=True))
"""Blue and vermilion, which all eyes tell apart, and greys."""
VERDICT_MARKERS = dict(zip(VERDICTS, ("o", "X", "D", "."), strict=True))
LEFT, RIGHT = 0.52, 0.7
"""Where the intervals of the verdicts begin and end, in shares of the figure's width."""


def forest_plot(differences: pd.DataFrame, measure: str, v: float, roles: Roles) -> Figure:
    """Draw T-TAME's paired difference to each rival with its interval, a panel a classifier.

    Marks are the paper's recipe and the best variant, filled where the difference is significant
    at 5 % after correction. Where rivals of a panel are compared on different numbers of images,
    the smaller ones are beside their rows.

    Parameters
    ----------
    differences : DataFrame
        As `intervals.paired_differences` returns it.
    measure : str
        Measure drawn; its direction says which side is T-TAME's.
    v : float
        Its percentage.
    roles : mapping
        By classifier, in the order of the panels.
    """
    chosen = differences[(differences["measure"] == measure) & (differences["v"] == v)]
    rivals = _rival_rows(chosen["rival"])
    ours = [role for role in (RECIPE, VARIANT) if any(role in own for own in roles.values())]
    of_panels = [
        chosen[
            (chosen["backbone"] == backbone)
            & chosen["rival"].isin(rivals)
            & chosen["method"].isin([own.get(role) for role in ours])
        ]
        for backbone, own in roles.items()
    ]
    figure, axes = _panels(roles, 1.6 + 0.24 * len(rivals))
    for axis, here, (backbone, own) in zip(axes, of_panels, roles.items(), strict=True):
        for place, role in enumerate(ours):
            shift = 0.36 * (place - (len(ours) - 1) / 2)
            _draw_differences(axis, here[here["method"] == own.get(role)], rivals, role, shift)
        for row in range(0, len(rivals), 2):
            axis.axhspan(row - 0.5, row + 0.5, color=BAND, lw=0)
        axis.axvline(0, color="0.25", lw=1.2)
        axis.grid(axis="y", visible=False)
        most = f"n = {here['n'].max()}" if len(here) else ""
        axis.set_title(_titled(backbone, own, (VARIANT,), most), fontsize=9)
        _name_sides(axis, "T-TAME\nbetter", "rival\nbetter", direction(measure))
    axes[0].set_yticks(range(len(rivals)), [shown_name(name) for name in rivals], color="0.35")
    axes[0].set_ylim(max(1, len(rivals)) - 0.5, -0.5)
    for axis, here in zip(axes, of_panels, strict=True):  # once all have their common width
        for rival, rows in here[here["n"] < here["n"].max()].groupby("rival"):
            _write_beside(axis, rivals.index(str(rival)), rows, f"n = {rows['n'].max()}")
    what = f"{_plain(measure, v)}: T-TAME minus rival, in points, with 95 % interval"
    figure.supxlabel(what, fontsize=9.5)
    marks = [_mark(role) for role in ours]
    marks += [_mark("not significant", color="0.25", mfc="white", marker="o")]
    figure.legend(handles=marks, loc="outside upper center", ncols=len(marks), frameon=False)
    return figure


def _rival_rows(found: pd.Series) -> list[str]:
    """Put rivals in the order of the registries, unknown ones behind them, controls last."""
    known = [name for name in (*TRAINED, *METHODS) if name not in (*OURS, *CONTROLS)]
    places = dict.fromkeys((*known, *rivals_of(found), *CONTROLS))
    return [name for name in places if name in set(found)]


def _draw_differences(
    axis: Axes, rows: pd.DataFrame, rivals: Sequence[str], role: str, shift: float
) -> None:
    """Draw one role's differences to its rivals, a little off the middle of their rows."""
    places = rows["rival"].map(rivals.index).astype(float) + shift
    colour = ROLE_COLOURS[role]
    filled = [colour if p < SIGNIFICANT else "white" for p in rows["p"]]
    axis.hlines(places, rows["low"], rows["high"], color=colour, lw=1.4)
    look: dict[str, Any] = {"marker": ROLE_MARKERS[role], "ec": colour, "zorder": 3}
    axis.scatter(rows["difference"], places, 22, color=filled, **look)


def quality_cost(
    means: pd.DataFrame, costs: pd.DataFrame, roles: Roles, measure: str = "ad", v: float = 50
) -> Figure:
    """Draw a measure over what one explanation costs, a panel a classifier, a point a method.

    Methods that have a role are in colour, the other rivals grey. Controls, and variants of T-TAME
    without a role, are left out.

    Parameters
    ----------
    means : DataFrame
        As `intervals.means_table` returns it by backbone and method.
    costs : DataFrame
        Columns backbone, method and equivalents: the arithmetic in forward passes.
    roles : mapping
        By classifier, in the order of the panels.
    measure : str
        Measure drawn.
    v : float
        Its percentage.
    """
    points = cost_points(means, costs, measure, v)
    figure, axes = _panels(roles, 3.9)
    used = [role for role in ROLES if any(role in own for own in roles.values())]
    for axis, (backbone, own) in zip(axes, roles.items(), strict=True):
        role_of = {method: role for role, method in own.items()}
        for row in _records(points[points["backbone"] == backbone]):
            role = role_of.get(row["method"], "")
            if row["method"] in OURS and not role:
                continue
            colour = ROLE_COLOURS.get(role, GREY)
            ends = [[row["mean"] - row["low"]], [row["high"] - row["mean"]]]
            look: dict[str, Any] = {"marker": ROLE_MARKERS.get(role, "o"), "color": colour}
            look |= {"ms": 7 if role else 5, "lw": 1.2, "zorder": 3 if role else 2}
            axis.errorbar(row["equivalents"], row["mean"], ends, **look, label=row["method"])
        axis.set_xscale("log")
        axis.xaxis.set_major_formatter("{x:g}")
        axis.set_title(_titled(backbone, own, (VARIANT, OTHER)), fontsize=9)
    side = "more" if direction(measure) > 0 else "less"
    axes[0].set_ylabel(f"{_plain(measure, v)}, {side} is better")
    cost = "arithmetic of one explanation, in forward passes of the classifier (log scale)"
    figure.supxlabel(cost, fontsize=9.5)
    marks = [_mark(role) for role in used] + [_mark("other rivals", color=GREY, marker="o")]
    figure.legend(handles=marks, loc="outside upper center", ncols=3, frameon=False)
    return figure


def cost_points(
    means: pd.DataFrame, costs: pd.DataFrame, measure: str = "ad", v: float = 50
) -> pd.DataFrame:
    """Join a measure's means with costs, without controls; arguments are `quality_cost`'s."""
    chosen = means[(means["measure"] == measure) & (means["v"] == v)]
    chosen = chosen[~chosen["method"].isin(CONTROLS)]  # they cost nothing: no place on a log axis
    return chosen.merge(costs[["backbone", "method", "equivalents"]], on=["backbone", "method"])


def verdict_strip(deciding: pd.DataFrame) -> Figure:
    """Draw the verdict on each claim with the comparison that decides, a row a claim.

    The interval is drawn on a scale of its own row, from the claim's bound in the middle: to the
    right is what the paper claims. Numbers are beside it.

    Parameters
    ----------
    deciding : DataFrame
        As `verdicts.deciding_comparisons` returns it.
    """
    size = (WIDTH, 0.9 + 0.46 * len(deciding))
    figure, axis = plt.subplots(figsize=size)
    figure.subplots_adjust(left=LEFT, right=RIGHT, top=0.995, bottom=0.55 / size[1])
    # places in shares of the width, from the axis' left end and in its width
    number, title, beside = ((x - LEFT) / (RIGHT - LEFT) for x in (0.01, 0.045, 0.715))
    for place, row in enumerate(_records(deciding)):
        colour = VERDICT_COLOURS[row["verdict"]]
        side: dict[str, Any] = {"transform": axis.get_yaxis_transform(), "va": "center"}
        axis.text(number, place - 0.2, f"{row['number']}", **side, fontsize=9.5, weight="bold")
        axis.text(title, place - 0.2, row["title"], **side, fontsize=9.5)
        axis.text(title, place + 0.2, _decided(row), **side, fontsize=9, color="0.4")
        axis.text(beside, place - 0.2, WORDS[row["verdict"]], **side, color=colour, weight="bold")
        axis.text(beside, place + 0.2, _numbers(row), **side, fontsize=9, color="0.4")
        ends = margins(row)
        if np.isfinite(ends[1]):
            low, middle, high = ends / (np.nanmax(np.abs(ends)) or 1)
            axis.plot([low, high], [place, place], color=colour, lw=2.2, solid_capstyle="butt")
            axis.plot(middle, place, VERDICT_MARKERS[row["verdict"]], color=colour, ms=6)
    for place in range(0, len(deciding), 2):
        band: dict[str, Any] = {
            "transform": axis.get_yaxis_transform(),
            "color": BAND,
            "clip_on": False,
        }
        corner, width = (-LEFT / (RIGHT - LEFT), place - 0.5), 1 / (RIGHT - LEFT)
        axis.add_patch(plt.Rectangle(corner, width, 1, lw=0, zorder=0, **band))
    axis.axvline(0, color="0.25", lw=1.2)
    axis.set(xlim=(-1.12, 1.12), ylim=(len(deciding) - 0.5, -0.5), xticks=[0], yticks=[])
    axis.set_xticklabels(["bound"])
    axis.grid(visible=False)
    axis.spines[:].set_visible(False)
    _name_sides(axis, "as claimed", "otherwise", 1, beyond=0.15)
    return figure


def _records(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Return rows as dictionaries."""
    return [{str(key): value for key, value in row.items()} for row in table.to_dict("records")]


def margins(row: Mapping[str, Any]) -> np.ndarray:
    """Return low, mean and high of a difference ``(3,)`` from its bound; positive is as claimed."""
    ends = np.array([row["low"], row["difference"], row["high"]], dtype=float) - row["bound"]
    return ends if row["towards"] > 0 else -ends[::-1]


def _decided(row: Mapping[str, Any]) -> str:
    """Say which comparison it is that decides."""
    if not isinstance(row["measure"], str):
        return ""
    where = [shown_name(name) for name in row["backbone"].split(", ")]
    what = _plain(row["measure"], row["v"])
    if len(where) > 1:
        return f"{what}: {' minus '.join(where)}"
    sides = [shown_name(side) for side in (row["left"], row["right"]) if side]
    return textwrap.shorten(f"{where[0]}, {what}: {' minus '.join(sides)}", 54, placeholder=" …")


def _numbers(row: Mapping[str, Any]) -> str:
    """Put the difference, its interval and the bound in short."""
    if not np.isfinite(row["difference"]):
        return "a side is missing"
    difference, low, high = (
        f"{row[key]:.{1 + (abs(row['difference']) < 10)}f}" for key in ("difference", "low", "high")
    )
    text = f"{difference} [{low}, {high}]" if np.isfinite(row["low"]) else f"{row['difference']:g}"
    claimed = row["claimed"].replace("<=", "≤").replace(">=", "≥")
    return f"{text}, claimed {claimed}"


def _panels(roles: Roles, high: float) -> tuple[Figure, Sequence[Axes]]:
    """Make a panel for each classifier that share both axes, in rows of so many."""
    columns = min(ACROSS, len(roles))
    lines = -(-len(roles) // columns)
    figure, axes = plt.subplots(
        *(lines, columns),
        figsize=(WIDTH, high * lines),
        squeeze=False,
        sharex=True,
        sharey=True,
        layout="constrained",
    )
    for axis in axes.flat[len(roles) :]:
        axis.set_visible(False)
    return figure, list(axes.flat[: len(roles)])


def _titled(backbone: str, own: Mapping[str, str], told: Sequence[str], more: str = "") -> str:
    """Title a panel by its classifier, and say below who has the roles that have no name."""
    lines = [", ".join(filter(None, [shown_name(backbone), more]))]
    for role in told:
        if role in own:
            name = shown_name(own[role]).removeprefix(f"{shown_name('t-tame')}, ")
            lines.append(f"{TOLD[role]}: {name}")
    return "\n".join(lines)


def _name_sides(axis: Axes, better: str, worse: str, towards: int, beyond: float = 0) -> None:
    """Name the sides of zero below an axis: the better one is to the right where more is better.

    So much of its width ``beyond`` the axis' ends.
    """
    left, right = (worse, better) if towards > 0 else (better, worse)
    right = right.replace("\n", " →\n") if "\n" in right else f"{right} →"
    for place, words, align in ((-beyond, f"← {left}", "left"), (1 + beyond, right, "right")):
        below: dict[str, Any] = {
            "xycoords": "axes fraction",
            "textcoords": "offset points",
            "va": "top",
        }
        axis.annotate(words, (place, 0), (0, -20), ha=align, fontsize=9, color="0.25", **below)


def _plain(measure: str, v: float) -> str:
    """Say a measure in words, without an arrow."""
    return measure_label(measure, v).rstrip(" ↑↓")


def _write_beside(axis: Axes, place: float, rows: pd.DataFrame, text: str) -> None:
    """Write a text at that end of a row at which its intervals leave more room."""
    left, right = axis.get_xlim()
    at_left = rows["low"].min() - left > right - rows["high"].max()
    look: dict[str, Any] = {"ha": "left" if at_left else "right", "va": "center"}
    look |= {"transform": axis.get_yaxis_transform(), "color": "0.45", "fontsize": 9}
    ground = "white" if place % 2 else BAND  # the row's own, over the line of zero
    look["bbox"] = {"fc": ground, "ec": "none", "pad": 1}
    axis.text(0.01 if at_left else 0.99, place, text, **look)


def _mark(label: str, **look: Any) -> Line2D:
    """Make a legend's mark: of a role, or as it is told."""
    if label in ROLE_COLOURS:
        look = {"color": ROLE_COLOURS[label], "marker": ROLE_MARKERS[label]}
    return Line2D([], [], lw=0, label=label, **look)
