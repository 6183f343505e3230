"""Tables to read: measures in words, means with their spread, the best marked."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from pandas.io.formats.style import Styler

from ttame_core.methods import CONTROLS

LABELS = {
    "ad": "AD({v}) ↓",
    "ic": "IC({v}) ↑",
    "pointing": "pointing game ↑",
    "energy": "energy inside ↑",
    "confidence": "confidence",
    "coverage": "coverage",
    "rank correlation": "rank correlation",
    "ssim": "SSIM",
    "of the predicted": "of the predicted",
    "of the runner-up": "of the runner-up",
    "runner-up first": "runner-up first",
    "morf": "MoRF({v}) ↓",
    "lerf": "LeRF({v}) ↑",
    "insertion": "insertion({v}) ↑",
    "deletion": "deletion({v}) ↓",
    "mean morf": "ROAD, MoRF ↓",
    "mean lerf": "ROAD, LeRF ↑",
    "mean insertion": "insertion ↑",
    "mean deletion": "deletion ↓",
}
MARKS: dict[Any, str] = {1: "font-weight: bold", 2: "font-style: italic"}
FEWEST = 10  # images, for a best and a second best to be named
NO_CONTEST = ("confidence", "coverage")
LOWER_IS_BETTER = ("ad", "morf", "deletion", "mean morf", "mean deletion")
SIGNS = {"better": "▲", "level": "○", "worse": "▼"}
ABSENT = "·"


def measure_label(measure: Any, v: Any) -> str:
    """Say a measure in words, with an arrow to the better side."""
    return LABELS[measure].format(v=f"{v:g}")


def wide_table(
    means: pd.DataFrame,
    index: Sequence[str] = ("method",),
    digits: int = 1,
    images: bool = False,
) -> pd.DataFrame:
    """Turn means into a table to read: a row a method, a column a measure.

    Parameters
    ----------
    means : DataFrame
        As `statistics.means_table` returns it.
    index : sequence of str
        What a row is.
    digits : int
        Behind the point.
    images : bool
        Whether to tell the number of images even where it is the same for all.

    Returns
    -------
    DataFrame
        Strings: the mean, and half the width of its interval behind the sign ±; first the number of images.
    """
    half = (means["high"] - means["low"]) / 2
    text = [
        f"{m:z.{digits}f}" if np.isnan(h) else f"{m:z.{digits}f} ±{h:.{digits}f}"
        for m, h in zip(means["mean"], half, strict=True)
    ]
    labels = [measure_label(m, v) for m, v in zip(means["measure"], means["v"], strict=True)]
    long = means.assign(text=text, label=labels)
    table = long.pivot_table(
        index=list(index), columns="label", values="text", aggfunc="first", sort=False
    )
    table.columns.name = None
    table = table.loc[long.set_index(list(index)).index.unique()]  # a pivot orders level by level
    numbers = long.groupby(list(index), sort=False)["n"].agg(_numbers)
    if images or numbers.nunique() > 1:
        table.insert(0, "images", numbers)
    return table


def _numbers(n: pd.Series) -> str:
    """Say on how many images a row's means rest, each number once."""
    return ", ".join(map(str, n.unique()))


def best_marked(means: pd.DataFrame, controls: Sequence[str] = CONTROLS) -> Styler:
    """Style a table over backbones and methods, each backbone's best method bold, its second best in italics.

    Parameters
    ----------
    means : DataFrame
        As `statistics.means_table` returns it by backbone and method.
    controls : sequence of str
        Methods that are shown but do not compete.

    Returns
    -------
    Styler
        Ties are marked alike; what was scored on far fewer images than the others, or on fewer than ten, is not marked.
    """
    most = means.groupby(["backbone", "measure", "v"])["n"].transform("max")
    compete = means[~means["method"].isin(controls) & (means["n"] > 0.8 * most) & (most >= FEWEST)]
    sign = np.where(compete["measure"].isin(LOWER_IS_BETTER), -1.0, 1.0)
    ranked = compete.assign(score=sign * compete["mean"])
    groups = ranked.groupby(["backbone", "measure", "v"])["score"]
    marks = {
        (row.backbone, row.method, measure_label(row.measure, row.v)): MARKS[row.place]
        for row in ranked.assign(place=groups.rank("dense", ascending=False)).itertuples()
        if row.measure not in NO_CONTEST and row.place in MARKS
    }
    table = wide_table(means, ["backbone", "method"], images=True)

    def style(column: pd.Series) -> list[str]:
        return [marks.get((*i, column.name), "") for i in column.index]

    table.attrs["marks"] = marks
    styled = table.style.apply(style, axis=0).format(na_rep="")
    return styled.set_table_attributes('class="dataframe"')


def seed_spread(scores: pd.DataFrame) -> pd.DataFrame:
    """Tell how far means lie apart that differ in the training seed alone.

    Parameters
    ----------
    scores : DataFrame
        One row an image: backbone, method (here: which seed), measure, v, image_id, value.

    Returns
    -------
    DataFrame
        A row a backbone: the numbers of seeds and images, and for AD and IC the lowest and the highest seed's mean with
        the standard deviation of the seeds' means, where there are several.
    """
    masked = scores[scores["measure"].isin(["ad", "ic"])]
    labels = [measure_label(m, v) for m, v in zip(masked["measure"], masked["v"], strict=True)]
    index = ["backbone", "measure", "method"]
    means = masked.assign(measure=labels).groupby(index, sort=False)["value"].mean()

    def told(of_seeds: pd.Series) -> str:
        low, high, deviation = of_seeds.agg(["min", "max", "std"])
        return f"{low:.1f} to {high:.1f} ({deviation:.1f})" if len(of_seeds) > 1 else f"{low:.1f}"

    table = _spread(means.groupby(index[:2], sort=False).agg(told))
    numbers = masked.groupby("backbone")[["method", "image_id"]].nunique()
    table.insert(0, "seeds", numbers["method"])
    table.insert(1, "images", numbers["image_id"])
    return table


def outcomes(differences: pd.DataFrame, level: float = 0.05) -> pd.DataFrame:
    """Say of each comparison whether the method is better than its rival, level with it, or worse.

    Parameters
    ----------
    differences : DataFrame
        As `statistics.paired_differences` returns it.
    level : float
        Of significance, after correction.

    Returns
    -------
    DataFrame
        The same rows; ``outcome``: better, level (no significant difference) or worse; ``measure`` in words.
    """
    down = differences["measure"].isin(LOWER_IS_BETTER)
    ahead = np.where(down, -1, 1) * differences["difference"] > 0
    clear = differences["p"] < level
    words = np.where(~clear, "level", np.where(ahead, "better", "worse"))
    pairs = zip(differences["measure"], differences["v"], strict=True)
    return differences.assign(measure=[measure_label(m, v) for m, v in pairs], outcome=words)


def outcome_counts(differences: pd.DataFrame) -> pd.DataFrame:
    """Count the rivals that each method is better than, level with, and worse than.

    Parameters
    ----------
    differences : DataFrame
        As `statistics.paired_differences` returns it.

    Returns
    -------
    DataFrame
        A row a backbone and measure, a column a method: ``better / level / worse``. Controls and the other methods
        compared are no rivals.
    """
    apart = [*CONTROLS, *differences["method"].unique()]
    rivals = outcomes(differences[~differences["rival"].isin(apart)])
    return _spread(
        rivals.groupby(["backbone", "measure", "method"], sort=False)["outcome"].agg(
            lambda found: " / ".join(str((found == word).sum()) for word in SIGNS)
        )
    )


def outcome_signs(differences: pd.DataFrame, controls: bool = False) -> pd.DataFrame:
    """Show how each method compares with each rival in each measure, a sign a method.

    Parameters
    ----------
    differences : DataFrame
        As `statistics.paired_differences` returns it.
    controls : bool
        Whether the rivals are the controls, or all others.

    Returns
    -------
    DataFrame
        A row a backbone and rival, a column a measure: a sign of `SIGNS` for each method in the order of
        ``differences``, `ABSENT` where two are not compared; first the numbers of images that the comparisons rest on.
    """
    rivals = outcomes(differences[differences["rival"].isin(CONTROLS) == controls])
    methods = list(differences["method"].unique())

    def signs(comparisons: pd.DataFrame) -> str:
        found = comparisons.set_index("method")["outcome"].map(SIGNS)
        return " ".join(found.get(method, ABSENT) for method in methods)

    pairs = rivals.groupby(["backbone", "rival"], sort=False)
    cells = rivals.groupby(["backbone", "rival", "measure"], sort=False)[["method", "outcome"]]
    table = _spread(cells.apply(signs))
    table.insert(0, "images", pairs["n"].agg(_numbers))
    return table


def _spread(cells: pd.Series) -> pd.DataFrame:
    """Spread cells over columns by the last level of their index; rows and columns in the order in which they come."""
    rows, columns = cells.reset_index(level=-1).index.unique(), cells.index.unique(-1)
    return cells.unstack().loc[rows, columns].rename_axis(columns=None).fillna("")


def markdown(styled: Styler) -> str:
    """Write a table as Markdown; what `best_marked` marks is bold and in italics there too."""
    table = styled.data.astype(object).fillna("")  # type: ignore[attr-defined]
    for (*row, column), css in table.attrs.get("marks", {}).items():
        sign = "**" if "bold" in css else "*"
        table.loc[tuple(row), column] = f"{sign}{table.loc[tuple(row), column]}{sign}"
    return table.reset_index().to_markdown(index=False) + "\n"


def latex(styled: Styler) -> str:
    """Write a styled table as LaTeX (packages booktabs and multirow), its arrows and signs as commands."""
    frame = styled.data  # type: ignore[attr-defined]
    longest = [frame.iloc[:, i].astype(str).str.len().max() for i in range(frame.shape[1])]
    levels = frame.index.nlevels
    text = styled.to_latex(
        hrules=True,
        convert_css=True,
        clines="skip-last;data" if levels > 1 else None,
        column_format="l" * levels + "".join("p{5cm}" if n > 40 else "l" for n in longest),
    )
    for sign, command in (
        ("±", r"$\pm$"),
        ("↓", r"$\downarrow$"),
        ("↑", r"$\uparrow$"),
        ("▲", r"$\bigtriangleup$"),
        ("○", r"$\circ$"),
        ("▼", r"$\bigtriangledown$"),
        ("·", r"$\cdot$"),
        ("%", r"\%"),
        ("_", r"\_"),
    ):
        text = text.replace(sign, command)
    return text
