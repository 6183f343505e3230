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
        Strings: the mean, and half the width of its interval behind the sign ±; first the number of images,
        where it is not the same for all.
    """
    half = (means["high"] - means["low"]) / 2
    text = [f"{m:.1f} ±{h:.1f}" for m, h in zip(means["mean"], half, strict=True)]
    labels = [measure_label(m, v) for m, v in zip(means["measure"], means["v"], strict=True)]
    long = means.assign(text=text, label=labels)
    table = long.pivot_table(
        index=list(index), columns="label", values="text", aggfunc="first", sort=False
    )
    table.columns.name = None
    images = long.groupby(list(index), sort=False)["n"].max()
    if images.nunique() > 1:
        table.insert(0, "images", images)
    return table


def best_marked(means: pd.DataFrame, controls: Sequence[str] = CONTROLS) -> Styler:
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
