"""What an edition's summary holds, read as it is needed for pages and figures."""

from functools import cache
from pathlib import Path

import pandas as pd

from ttame_book.report.answers import against, rows_of
from ttame_book.report.intervals import paired_differences
from ttame_core.metrics.measures import MASKING

LONGER = "longer"
"""The edition that trains top masks for longer, of some classifiers."""


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
def with_rise(folder: Path, backbone: str, method: str, edition: str = "") -> pd.DataFrame:
    """Compare a method with RISE in AD and IC, on the most photographs that both explain.

    They are those of an edition, or of ``more-photographs``, where its results lie beside
    ``folder``. The method's scores are of the same edition, or of the one named, beside it too. The
    tests are corrected for these rows alone; there are none where either was not run.
    """
    found = []
    for place in (folder.with_name("more-photographs"), folder):
        own = folder.with_name(edition) if edition else place
        files = [each / backbone / "scores.parquet" for each in (own, place)]
        if all(file.is_file() for file in files):
            ours, theirs = (pd.read_parquet(file) for file in files)
            both = [ours[ours["method"] == method], theirs[theirs["method"] == "rise"]]
            scores = pd.concat([rows[rows["measure"].isin(list(MASKING))] for rows in both])
            found.append(paired_differences(scores, [method]))
    empty = pd.DataFrame()
    return max(found, key=lambda rows: rows["n"].max() if len(rows) else 0, default=empty)


def against_rise(
    folder: Path, backbone: str, method: str, measure: str = "ad", v: float = 50, edition: str = ""
) -> str:
    """Say how a method compares with RISE in a measure, by `with_rise`."""
    rows = with_rise(folder, backbone, method, edition)
    rows = rows_of(rows, backbone, method, measure, v) if len(rows) else rows
    return against(rows.iloc[0]) if len(rows) else "not compared"


def read_evidence(folder: Path) -> pd.DataFrame:
    """Read an edition's comparisons; those with no other side have none, in words."""
    return pd.read_csv(folder / "summary" / "claims-evidence.csv").fillna({"right": ""})
