"""Tables to read: measures in words, means with their intervals, the best marked.

Means are as `means_table` returns them, differences as `paired_differences` does; rows and columns
of a table stay in the order in which they come.
"""

from collections.abc import Iterable, Sequence
from copy import deepcopy
from typing import Any

import numpy as np
import pandas as pd
from pandas.io.formats.style import Styler

from ttame_book.editions.runs import Run
from ttame_book.report.names import shown_name
from ttame_core.methods.registry import CONTROLS
from ttame_core.metrics.measures import direction, measure_label

MARKS: dict[Any, str] = {1: "font-weight: bold", 2: "font-style: italic"}
"""How the best and the second best are marked."""
FEWEST = 10  # images, for a best and a second best to be named
SIGNS = {"better": "▲", "level": "○", "worse": "▼"}
ABSENT = "·"
COMMANDS = {"±": r"$\pm$", "↓": r"$\downarrow$", "↑": r"$\uparrow$", "·": r"$\cdot$"}
COMMANDS |= {"▲": r"$\bigtriangleup$", "○": r"$\circ$", "▼": r"$\bigtriangledown$"}
COMMANDS |= {"≤": r"$\leq$", "≥": r"$\geq$", "−": "$-$", "%": r"\%", "_": r"\_"}
"""LaTeX's commands for characters of tables."""
READ = str.maketrans({"\\": r"\textbackslash{}"} | {sign: f"\\{sign}" for sign in "&#${}"})
"""What LaTeX would read in a cell, and what is written in its place."""


def wide_table(
    means: pd.DataFrame, index: Sequence[str] = ("method",), digits: int = 1, images: bool = False
) -> pd.DataFrame:
    """Turn means into a table to read: a row a method, or what ``index`` names, a column a measure.

    Cells are strings: the mean, and half the width of its interval behind ±, with so many
    ``digits`` behind the point. The number of images is told first where rows differ in it, or
    ``images`` is set.
    """
    half = (means["high"] - means["low"]) / 2
    text = [
        f"{m:z.{digits}f}" if np.isnan(h) else f"{m:z.{digits}f} ±{h:.{digits}f}"
        for m, h in zip(means["mean"], half, strict=True)
    ]
    long, index = means.assign(text=text, label=_labels(means)), list(index)
    table = long.pivot_table("text", index, "label", aggfunc="first", sort=False)
    table.columns.name = None
    # a pivot orders level by level: back to the order of the means
    table = table.loc[long.set_index(index).index.unique()]
    numbers = long.groupby(index, sort=False)["n"].agg(_numbers)
    if images or numbers.nunique() > 1:
        table.insert(0, "images", numbers)
    return table


def _labels(table: pd.DataFrame) -> list[str]:
    """Say each row's measure in words."""
    return [measure_label(m, v) for m, v in zip(table["measure"], table["v"], strict=True)]


def _numbers(n: pd.Series) -> str:
    """Say on how many images a row's means rest, each number once."""
    return ", ".join(map(str, n.unique()))


def best_marked(means: pd.DataFrame, controls: Iterable[str] = CONTROLS) -> Styler:
    """Style a table over backbones and methods: each backbone's best bold, second best in italics.

    Ties are marked alike. Controls do not compete, and what is no better than one has no mark. Nor
    has what was scored on far fewer images than the others, or on fewer than `FEWEST`.
    """
    cells = ["backbone", "measure", "v"]
    most = means.groupby(cells)["n"].transform("max")
    # some maps may explain nothing, and have no scores; a costly method's choice of images is less
    score = means["measure"].map(direction).astype(float) * means["mean"]
    control = means["method"].isin(controls)
    bar = score.where(control).groupby([means[c] for c in cells]).transform("max")  # or NaN
    compete = ~control & ~(score <= bar) & (means["n"] > 0.8 * most) & (most >= FEWEST)
    ranked = means.assign(score=score)[compete]
    places = ranked.groupby(cells)["score"].rank("dense", ascending=False)
    marks = {
        (row.backbone, row.method, measure_label(row.measure, row.v)): MARKS[row.place]
        for row in ranked.assign(place=places).itertuples()
        if direction(row.measure) and row.place in MARKS
    }
    table = wide_table(means, ["backbone", "method"], images=True)

    def style(column: pd.Series) -> list[str]:
        return [marks.get((*i, column.name), "") for i in column.index]

    table.attrs["marks"] = marks  # for Markdown, which knows no style
    styled = as_text(table.style.apply(style, axis=0), "")
    return styled.set_table_attributes('class="dataframe"')


def seed_spread(scores: pd.DataFrame, by: Sequence[str] = ("backbone",)) -> pd.DataFrame:
    """Tell how far means lie apart that differ in the training seed alone; method says which.

    A row for each group of ``by``: the numbers of seeds and images, and for AD and IC the lowest
    and the highest seed's mean with the standard deviation of all seeds' means.
    """
    masked = scores[scores["measure"].isin(["ad", "ic"])]
    index = [*by, "measure", "method"]
    means = masked.assign(measure=_labels(masked)).groupby(index, sort=False)["value"].mean()

    def told(of_seeds: pd.Series) -> str:
        low, high, deviation = of_seeds.agg(["min", "max", "std"])
        return f"{low:.1f} to {high:.1f} ({deviation:.1f})" if len(of_seeds) > 1 else f"{low:.1f}"

    table = _by_columns(means.groupby(index[:-1], sort=False).agg(told))
    numbers = masked.groupby([*by])[["method", "image_id"]].nunique()
    table.insert(0, "seeds", numbers["method"])
    table.insert(1, "images", numbers["image_id"])
    return table


def outcomes(differences: pd.DataFrame, level: float = 0.05) -> pd.DataFrame:
    """Say of each comparison whether the method is better than its rival, level with it, or worse.

    Returns the rows with an ``outcome``, which is level where no difference is significant after
    correction, and with the measure in words.
    """
    ahead = differences["measure"].map(direction) * differences["difference"] > 0
    clear = differences["p"] < level
    words = np.where(clear, np.where(ahead, "better", "worse"), "level")
    return differences.assign(measure=_labels(differences), outcome=words)


def outcome_counts(differences: pd.DataFrame) -> pd.DataFrame:
    """Count the rivals that each method is better than, level with, and worse than.

    A row a backbone and measure, a column a method: ``better / level / worse``. Controls and the
    other methods compared are no rivals.
    """
    apart = [*CONTROLS, *differences["method"].unique()]
    rivals = outcomes(differences[~differences["rival"].isin(apart)])
    cells = rivals.groupby(["backbone", "measure", "method"], sort=False)["outcome"]
    return _by_columns(
        cells.agg(lambda found: " / ".join(str((found == word).sum()) for word in SIGNS))
    )


def outcome_signs(differences: pd.DataFrame, controls: bool = False) -> pd.DataFrame:
    """Show how each method compares with each rival - the controls, or all others.

    A row a backbone and rival, a column a measure: a sign of `SIGNS` for each method in the order
    of the differences, `ABSENT` where two are not compared; first the numbers of images.
    """
    rivals = outcomes(differences[differences["rival"].isin(CONTROLS) == controls])
    methods = list(differences["method"].unique())

    def signs(comparisons: pd.DataFrame) -> str:
        found = comparisons.set_index("method")["outcome"].map(SIGNS)
        return " ".join(found.get(method, ABSENT) for method in methods)

    pairs = ["backbone", "rival"]
    cells = rivals.groupby([*pairs, "measure"], sort=False)[["method", "outcome"]]
    table = _by_columns(cells.apply(signs))
    table.insert(0, "images", rivals.groupby(pairs, sort=False)["n"].agg(_numbers))
    return table


def _by_columns(cells: pd.Series) -> pd.DataFrame:
    """Put cells into columns by the last level of their index, which `unstack` alone would sort."""
    rows, columns = cells.reset_index(level=-1).index.unique(), cells.index.unique(-1)
    return cells.unstack().loc[rows, columns].rename_axis(columns=None).fillna("")


def save_display(run: Run, table: pd.DataFrame | Styler, name: str) -> Styler:
    """Write a table to be read as CSV, Markdown and LaTeX; return it styled, for the page.

    Labels are said by `said`, but in the CSV.
    """
    styled = table if isinstance(table, Styler) else as_text(table)
    csv = styled.data.fillna("").to_csv()  # type: ignore[attr-defined]
    run.save_texts({".csv": csv, ".md": markdown(styled), ".tex": latex(styled)}, name)
    return styled


def as_text(table: pd.DataFrame | Styler, missing: str | None = None) -> Styler:
    """Have a page show a table's cells as they are, tags included, and its labels by `said`."""
    styled = table if isinstance(table, Styler) else table.style
    styled = styled.format(na_rep=missing, escape="html")
    for axis in (0, 1):
        styled = styled.format_index(said, escape="html", axis=axis)  # type: ignore[arg-type]
    return styled


def said(label: Any) -> str:
    """Say a label of a table: methods and classifiers by their names, numbers without zeros."""
    if isinstance(label, float):
        return np.format_float_positional(label, trim="-")
    return shown_name(str(label))


def markdown(styled: Styler) -> str:
    """Write a table as Markdown; what `best_marked` marks is bold and in italics there too."""
    table = styled.data.astype(object).fillna("")  # type: ignore[attr-defined]
    for (*row, column), css in table.attrs.get("marks", {}).items():
        sign = "**" if css == MARKS[1] else "*"
        table.loc[tuple(row), column] = f"{sign}{table.loc[tuple(row), column]}{sign}"
    table = table.rename(index=said, columns=said)
    table = table.reset_index().map(
        lambda cell: said(cell) if isinstance(cell, float) else str(cell).replace("|", "\\|")
    )
    return table.to_markdown(index=False, disable_numparse=True) + "\n"


def latex(styled: Styler) -> str:
    """Write a styled table as LaTeX (packages booktabs and multirow), with `COMMANDS` for signs."""
    frame = styled.data  # type: ignore[attr-defined]
    longest = [frame.iloc[:, i].astype(str).str.len().max() for i in range(frame.shape[1])]
    levels = frame.index.nlevels
    texts = frame.select_dtypes(exclude="number").columns
    styled = deepcopy(styled).format(dict.fromkeys(texts, _escaped), na_rep="")
    for axis in (0, 1):
        styled = styled.format_index(lambda label: _escaped(said(label)), axis=axis)  # type: ignore[arg-type]
    text = styled.to_latex(
        hrules=True,
        convert_css=True,
        clines="skip-last;data" if levels > 1 else None,
        column_format="l" * levels + "".join("p{5cm}" if n > 40 else "l" for n in longest),
    )
    for sign, command in COMMANDS.items():
        text = text.replace(sign, command)
    return text


def _escaped(cell: Any) -> str:
    """Write a cell for LaTeX: what it would read as a command is text."""
    return str(cell).translate(READ)
