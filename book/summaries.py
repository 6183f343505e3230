"""What an edition's summary holds, read as it is needed for pages and figures."""

from functools import cache
from pathlib import Path

import pandas as pd

from ttame_book.report.answers import best_variant
from ttame_book.report.intervals import paired_differences

FULL_RISE = "rise, 4000 masks"  # as its scores call it


@cache
def read_scores(folder: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Read an edition's means and paired differences, also those to RISE with all its masks."""
    means = pd.read_csv(folder / "summary" / "means.csv")
    parts = [pd.read_csv(folder / "summary" / "differences.csv")]
    for file in sorted(folder.glob("*/rise-masks.parquet")):
        scores = pd.concat(
            [pd.read_parquet(file.with_name("scores.parquet")), pd.read_parquet(file)]
        )
        shown = ["t-tame", best_variant(means, file.parent.name)]
        masked = scores[scores["measure"].isin(["ad", "ic"])]
        found = paired_differences(masked[masked["method"].isin([*shown, FULL_RISE])], shown)
        parts.append(found[found["rival"] == FULL_RISE])
    return means, pd.concat(parts)


def backbones_of(folder: Path) -> list[str]:
    """List the classifiers that an edition has scores of, in its order."""
    return list(read_scores(folder)[0]["backbone"].unique())


def read_evidence(folder: Path) -> pd.DataFrame:
    """Read an edition's comparisons; older ones say bound and side in words alone, ``< -5``."""
    compared = pd.read_csv(folder / "summary" / "claims-evidence.csv").fillna({"right": ""})
    if "bound" not in compared:
        words = compared["claimed"].str.extract(r"^([<>]=?) (.*)$")
        compared["bound"] = words[1].astype(float).fillna(0.0)
        compared["towards"] = words[0].str.startswith("<").map({True: -1, False: 1}).fillna(1)
    return compared
