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


def against_rise(folder: Path, backbone: str, method: str) -> str:
    """Say how a method's AD(50) compares with RISE's, on the most photographs that both explain.

    The edition ``more-photographs`` has more of them, where its results lie beside ``folder``. The
    test is one of these two alone, corrected for their AD and IC.
    """
    for place in (folder.with_name("more-photographs"), folder):
        if (file := place / backbone / "scores.parquet").is_file():
            scores = pd.read_parquet(file)
            both = scores["method"].isin([method, "rise"])
            scores = scores[both & scores["measure"].isin(list(MASKING))]
            rows = rows_of(paired_differences(scores, [method]), backbone, method, "ad", 50)
            if len(rows):
                return against(rows.iloc[0])
    return "not compared"


def read_evidence(folder: Path) -> pd.DataFrame:
    """Read an edition's comparisons; those with no other side have none, in words."""
    return pd.read_csv(folder / "summary" / "claims-evidence.csv").fillna({"right": ""})
