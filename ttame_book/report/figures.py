"""The figures that answer: forest plots, quality for cost, verdicts with their intervals.

``roles`` are, for each classifier in the order of the panels, the methods that are in colour, as
`names.cast_roles` finds them. ``narrow`` is for a small screen: panels, or words and intervals, are
below each other.
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
from matplotlib.transforms import blended_transform_factory

from ttame_book.report.charts import GREY, NARROW, ROLE_COLOURS, ROLE_MARKERS, WIDTH
from ttame_book.report.claims import VERDICTS
from ttame_book.report.names import OTHER, RECIPE, ROLES, VARIANT, rivals_of, shown_name
from ttame_book.report.verdicts import COUNT, interval_in_numbers
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
VERDICT_COLOURS = dict(zip(VERDICTS, ("#0173b2", "#c44e00", "0.35", "0.42"), strict=True))
"""Blue and vermilion, which all eyes tell apart, and greys."""
VERDICT_MARKERS = dict(zip(VERDICTS, ("o", "X", "D", "."), strict=True))
NOT_IN_POINTS = (COUNT, "rank correlation")
"""Measures that have no place on an axis in points."""


def forest_plot(
    differences: pd.DataFrame, measure: str, v: float, roles: Roles, narrow: bool = False
) -> Figure:
    """Draw T-TAME's paired difference to each rival with its interval, a panel a classifier.

    Takes what `intervals.paired_differences` returns, and of it one measure at its percentage.
    Marks are the paper's recipe and the best variant, filled where the difference is significant at
    5 % after correction. Where rivals of a panel are compared on different numbers of images, the
    smaller ones are beside their rows.
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
    figure, axes = _panels(roles, 1.6 + 0.24 * len(rivals), narrow)
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
    what = (
        f"{_plain(measure, v)}: T-TAME minus rival, in points, with 95\N{NO-BREAK SPACE}% interval"
    )
    figure.supxlabel(textwrap.fill(what, 46 if narrow else 99), fontsize=9.5)
    marks = [_mark(role) for role in ours]
    marks += [_mark("not significant", color="0.25", mfc="white", marker="o")]
    columns = 1 if narrow else len(marks)
    figure.legend(handles=marks, loc="outside upper center", ncols=columns, frameon=False)
    return figure


def _rival_rows(found: pd.Series) -> list[str]:
    """Put rivals in the order of the registries, unknown ones behind them, controls last.

    What has a setting in its name, as ``rise, 4000 masks``, is behind the method's own row.
    """
    known = [name for name in (*TRAINED, *METHODS) if name not in (*OURS, *CONTROLS)]
    places = list(dict.fromkeys((*known, *rivals_of(found), *CONTROLS)))

    def place(name: str) -> int:
        method = name.partition(", ")[0]
        return places.index(method if method in places else name)

    return sorted((name for name in places if name in set(found)), key=place)


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
    means: pd.DataFrame, costs: pd.DataFrame, roles: Roles, narrow: bool = False
) -> Figure:
    """Draw AD(50) over what one explanation costs, a panel a classifier, a point a method.

    Takes `intervals.means_table` by backbone and method, and costs with columns backbone, method
    and equivalents: the arithmetic in forward passes. Methods that have a role are in colour, the
    other rivals grey. Controls, and variants of T-TAME without a role, are left out.
    """
    points = cost_points(means, costs)
    figure, axes = _panels(roles, 3.4 if narrow else 3.9, narrow)
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
        axis.xaxis.set_minor_formatter("")
        axis.set_title(_titled(backbone, own, (VARIANT, OTHER)), fontsize=9)
    figure.supylabel("AD(50), less is better", fontsize=9.5)
    cost = "arithmetic of one explanation, in forward passes of the classifier (log scale)"
    figure.supxlabel(textwrap.fill(cost, 46 if narrow else 99), fontsize=9.5)
    marks = [_mark(role) for role in used] + [_mark("other rivals", color=GREY, marker="o")]
    columns = 1 if narrow else 3
    figure.legend(handles=marks, loc="outside upper center", ncols=columns, frameon=False)
    return figure


def cost_points(means: pd.DataFrame, costs: pd.DataFrame) -> pd.DataFrame:
    """Join means of AD(50) with costs, without controls; arguments are `quality_cost`'s."""
    chosen = means[(means["measure"] == "ad") & (means["v"] == 50)]
    chosen = chosen[~chosen["method"].isin(CONTROLS)]  # they cost nothing: no place on a log axis
    return chosen.merge(costs[["backbone", "method", "equivalents"]], on=["backbone", "method"])


def verdict_strip(deciding: pd.DataFrame, narrow: bool = False) -> Figure:
    """Draw the verdict on each claim with the comparison that decides, a row a claim.

    Takes what `verdicts.deciding_comparisons` returns. Intervals in points are drawn on one axis,
    from the claim's bound at 0: to the right is what the paper claims. All numbers are below the
    row's title.
    """
    left, high = (0.05, 0.86) if narrow else (0.56, 0.6)  # the axis' begin, and inches of a row
    lines, level, reach = ((-0.36, -0.15, 0.06), 0.31, 0.15) if narrow else ((-0.3, 0, 0.3), 0, 0.5)
    size = (NARROW if narrow else WIDTH, 0.75 + high * len(deciding))
    first, second = 0.08 / size[0], 0.33 / size[0]  # where words begin
    indent = first if narrow else second
    figure, axis = plt.subplots(figsize=size)
    figure.subplots_adjust(left=left, right=0.97, top=0.995, bottom=0.7 / size[1])
    across = blended_transform_factory(figure.transFigure, axis.transData)
    look: dict[str, Any] = {"transform": across, "va": "center", "fontsize": 9}
    for place, row in enumerate(_records(deciding)):
        title, told, decided = (place + line for line in lines)
        bold: dict[str, Any] = {"color": VERDICT_COLOURS[row["verdict"]], "weight": "bold"}
        axis.text(first, title, f"{row['number']}", **look, weight="bold")
        axis.text(second, title, row["title"], **look | {"fontsize": 9.5})
        verdict = axis.text(indent, told, WORDS[row["verdict"]], **look, **bold)
        axis.text(indent, decided, _decided(row), **look, color="0.4")
        there = np.isfinite(row["difference"])
        numbers = interval_in_numbers(row) if there else "a side is missing"
        beside: dict[str, Any] = {"xycoords": verdict, "va": "center", "color": "0.4"}
        axis.annotate(f"  {numbers}", (1, 0.5), **beside, fontsize=9)
        ends = margins(row)
        if there and row["measure"] not in NOT_IN_POINTS:
            y, colour = place + level, bold["color"]
            axis.plot([0, 0], [y - reach, y + reach], color="0.25", lw=1.2)
            axis.plot(ends[[0, 2]], [y, y], lw=2.2, color=colour)
            axis.plot(ends[1], y, VERDICT_MARKERS[row["verdict"]], ms=6, color=colour)
        if place % 2 == 0:
            band: dict[str, Any] = {"transform": across, "color": BAND, "clip_on": False}
            axis.add_patch(plt.Rectangle((0, place - 0.5), 1, 1, lw=0, zorder=0, **band))
    axis.set(ylim=(len(deciding) - 0.5, -0.5), yticks=[])
    axis.set_xlabel("points from the claim's bound", labelpad=14)
    axis.grid(visible=not narrow)
    axis.spines[:].set_visible(False)
    _name_sides(axis, "as claimed", "otherwise", 1)
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
    what = _plain(row["measure"], row["v"]).removeprefix("ROAD, ")
    if len(where) > 1:
        return f"{what}: {' minus '.join(where)}"
    sides = [shown_name(side) for side in (row["left"], row["right"]) if side]
    return textwrap.shorten(f"{where[0]}, {what}: {' minus '.join(sides)}", 54, placeholder=" …")


def _panels(roles: Roles, high: float, narrow: bool) -> tuple[Figure, Sequence[Axes]]:
    """Make a panel for each classifier that share both axes, in rows of so many."""
    columns = 1 if narrow else min(ACROSS, len(roles))
    lines = -(-len(roles) // columns)
    size = (NARROW if narrow else WIDTH, high * lines)
    shared: dict[str, Any] = {"sharex": True, "sharey": True, "squeeze": False}
    figure, axes = plt.subplots(lines, columns, figsize=size, layout="constrained", **shared)
    for place, axis in enumerate(axes.flat):
        axis.set_visible(place < len(roles))
        axis.tick_params(labelbottom=True)
    return figure, list(axes.flat[: len(roles)])


def _titled(backbone: str, own: Mapping[str, str], told: Sequence[str], more: str = "") -> str:
    """Title a panel by its classifier, and say below who has the roles that have no name."""
    lines = [", ".join(filter(None, [shown_name(backbone), more]))]
    for role in told:
        if role in own:
            name = shown_name(own[role]).removeprefix(f"{shown_name('t-tame')}, ")
            lines.append(f"{TOLD[role]}: {name}")
    return "\n".join(lines)


def _name_sides(axis: Axes, better: str, worse: str, towards: int) -> None:
    """Name the sides of zero below an axis: the better one is to the right where more is better."""
    left, right = (worse, better) if towards > 0 else (better, worse)
    right = right.replace("\n", " →\n") if "\n" in right else f"{right} →"
    for place, words, align in ((0, f"← {left}", "left"), (1, right, "right")):
        look: Any = {"xycoords": "axes fraction", "textcoords": "offset points", "va": "top"}
        axis.annotate(words, (place, 0), (0, -20), ha=align, fontsize=9, color="0.25", **look)


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
