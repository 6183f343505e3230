"""Sentences whose numbers and words are computed: who is better than whom, by how much, how sure.

Differences are those of `paired_differences`. Better, level and worse are the outcomes of its tests
(`outcomes`): level is what no test tells apart.
"""

from collections.abc import Sequence

import pandas as pd

from ttame_book.report.names import VARIANT, cast_roles
from ttame_book.report.tables import outcomes
from ttame_core.methods.registry import CONTROLS
from ttame_core.recipes import OURS

WORDS = ("better", "level", "worse")


def best_variant(means: pd.DataFrame, backbone: str, measure: str = "ad", v: float = 50) -> str:
    """Name the T-TAME beyond the paper's recipe that figures of a backbone call the best."""
    return cast_roles(means[means["backbone"] == backbone], measure, v)[VARIANT]


def rows_of(
    differences: pd.DataFrame, backbone: str, method: str, measure: str, v: float
) -> pd.DataFrame:
    """Take a method's comparisons with its rivals, with outcomes: no controls, none of ours."""
    rows = differences[
        (differences["backbone"] == backbone)
        & (differences["method"] == method)
        & (differences["measure"] == measure)
        & (differences["v"] == v)
        & ~differences["rival"].isin([*CONTROLS, *OURS])
    ]
    return outcomes(rows) if len(rows) else rows.assign(outcome="")


def standing(rows: pd.DataFrame) -> str:
    """Say how a method stands among its rivals: ``better than 8 of 9 rivals, level with 1``."""
    whole, told = len(rows), list[str]()
    for word, joint in zip(WORDS, ("than", "with", "than"), strict=True):
        count = int((rows["outcome"] == word).sum())
        if count == whole:
            return f"{word} {joint} all {whole} rivals"
        if count:
            told.append(f"{word} {joint} {count}" + ("" if told else f" of {whole} rivals"))
    return listed(told)


def counts(rows: pd.DataFrame) -> str:
    """Count outcomes in short: ``8 better, 1 level``; none of them is told for no rivals."""
    numbers = {word: int((rows["outcome"] == word).sum()) for word in WORDS}
    return ", ".join(f"{count} {word}" for word, count in numbers.items() if count) or "no rivals"


def against(row: pd.Series) -> str:
    """Say how a comparison came out: ``worse by 13.8 ±3.4 points, n = 500``."""
    apart = f"{abs(row['difference']):.1f} ±{(row['high'] - row['low']) / 2:.1f} points"
    if row["outcome"] == "level":
        side = "more" if row["difference"] > 0 else "less" if row["difference"] else "apart"
        # an interval is of one comparison
        level = "level" if row["low"] <= 0 <= row["high"] else "level after correction"
        return f"{level}: {apart} {side}, n = {row['n']}"
    return f"{row['outcome']} by {apart}, n = {row['n']}"


def listed(parts: Sequence[str]) -> str:
    """Join parts of a sentence: ``a, b and c``."""
    *first, last = parts
    return f"{', '.join(first)} and {last}" if first else last
