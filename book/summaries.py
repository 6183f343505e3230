"""What an edition's summary holds, read as it is needed for pages and figures."""

from functools import cache
from pathlib import Path

import pandas as pd

from ttame_book.report.answers import against, rows_of
from ttame_book.report.intervals import paired_differences
from ttame_core.metrics.measures import MASKING


@cache
def read_scores(folder: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Read an edition's means and paired differences."""
    means, differences = (
        pd.read_csv(folder / "summary" / f"{n}.csv") for n in ("means", "differences")
    )
    return means, differences


def backbones_of(folder: Path) -> list[str]:
    """List the classifiers that an edition has scores of, in its order."""
    return list(read_scores(folder)[0]["backbone"].unique())


@cache
def with_rise(folder: Path, backbone: str, method: str) -> pd.DataFrame:
    """Compare a method with RISE in AD and IC, on the most photographs that both explain.

    They are those of an edition, or of ``more-photographs``, where its results lie beside
    ``folder``. The tests are corrected for these rows alone; there are none where RISE was not run.
    """
    found = []
    for place in (folder.with_name("more-photographs"), folder):
        if (file := place / backbone / "scores.parquet").is_file():
            scores = pd.read_parquet(file)
            both = scores["method"].isin([method, "rise"])
            scores = scores[both & scores["measure"].isin(list(MASKING))]
            found.append(paired_differences(scores, [method]))
    empty = pd.DataFrame()
    return max(found, key=lambda rows: rows["n"].max() if len(rows) else 0, default=empty)


def against_rise(
    folder: Path, backbone: str, method: str, measure: str = "ad", v: float = 50
) -> str:
    """Say how a method compares with RISE in a measure, by `with_rise`."""
    rows = with_rise(folder, backbone, method)
    rows = rows_of(rows, backbone, method, measure, v) if len(rows) else rows
    return against(rows.iloc[0]) if len(rows) else "not compared"


def read_evidence(folder: Path) -> pd.DataFrame:
    """Read an edition's comparisons; those with no other side have none, in words."""
    return pd.read_csv(folder / "summary" / "claims-evidence.csv").fillna({"right": ""})
