"""The hours of an edition: the work that is counted, over measured rates.

python -m ttame_book.editions.hours [benchmarks/results/TABLE.json ...] [--edition imagenet]

Rates are those of a table that ``benchmarks/gpu.py`` has written. A kind of work that was not timed
there goes at the rate of bare forwards, and is named.
"""

import argparse
import json
import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import pandas as pd

from ttame_book.editions.counts import A_STEP, FORWARD, STEP, Work, count, counted
from ttame_book.editions.edition import Edition
from ttame_core.errors import TTAMEError


def read_rates(file: str | Path) -> dict[str, Any]:
    """Read what ``benchmarks/gpu.py`` has written; a TTAMEError says where it is none."""
    with suppress(OSError, ValueError, KeyError, TypeError):  # told below
        table = json.loads(Path(file).read_text())
        rows = [row for row in table["rows"] if "classifier" in row]  # reading images has none
        if table["device"] and rows and all({"what", "batch"} <= {*row} for row in rows):
            return {**table, "rows": rows}
    raise TTAMEError(f"{file} is no table of rates; expected one of benchmarks/gpu.py's")


def measured(
    table: Mapping[str, Any], work: Work, kind: str, precision: str = "auto"
) -> dict[str, Any] | None:
    """Find what a table of rates has of a kind for a work's classifier, at the nearest batch."""
    chosen = {"auto": "float32" if table["device"] == "CPU" else "bfloat16", "own": "float32"}
    wanted = work.backbone, f"{kind}, {chosen.get(precision, precision)}"
    rows = [row for row in table["rows"] if (row["classifier"], row["what"]) == wanted]
    return min(rows, key=lambda row: abs(math.log(row["batch"] / work.batch)), default=None)


def not_timed(
    works: Sequence[Work], table: Mapping[str, Any], precision: str = "auto"
) -> list[str]:
    """Name the kinds of work that a table has no rate of, each with its classifier."""
    return sorted(
        {
            f"{work.kind} of {work.backbone}"
            for work in works
            if measured(table, work, work.kind, precision) is None
        }
    )


def rate(table: Mapping[str, Any], work: Work, precision: str = "auto") -> float:
    """Return the forward-equivalents a second of a kind of work, measured at the nearest batch.

    What was not measured, see `not_timed`, goes at the rate of bare forwards. A TTAMEError is
    raised where the classifier was not measured at all.
    """
    for kind in (work.kind, FORWARD):
        if row := measured(table, work, kind, precision):
            return row.get("forwards/s") or (A_STEP if kind == STEP else 1) * row["images/s"]
    who = f"no rates of {work.backbone}; run benchmarks/gpu.py --models {work.backbone} there"
    raise TTAMEError(f"the table of {table['device']} has {who}")


def hours(works: Sequence[Work], table: Mapping[str, Any], precision: str = "auto") -> pd.Series:
    """Return the hours that a device takes for each rule, by the rates measured on it."""
    spent = [work.forwards / rate(table, work, precision) / 3600 for work in works]
    return pd.Series(spent).groupby([work.rule for work in works], sort=False).sum()


def main(arguments: Sequence[str] | None = None) -> None:
    """Print an edition's counts in millions, and the hours by each table of rates given."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("tables", nargs="*", help="files that benchmarks/gpu.py has written")
    parser.add_argument("--edition", default="imagenet", help="name of a file in config/")
    given = parser.parse_args(arguments)
    try:
        tables = [read_rates(file) for file in given.tables]
        edition = Edition.read(given.edition)
        works = count(edition)
        told = (counted(works) / 1e6).assign(all=lambda table: table.sum(axis=1))
        notes, precision = [], edition.config.get("precision", "auto")
        for table in tables:
            told[f"hours, {table['device']}"] = hours(works, table, precision)
            if guessed := not_timed(works, table, precision):
                notes.append(f"not timed on {table['device']}, taken for bare forwards: ")
                notes[-1] += ", ".join(guessed)
    except TTAMEError as error:
        raise SystemExit(f"error: {error}") from error
    told.loc["all"] = told.sum()
    print(f"{edition.name}: millions of forward-equivalents, by rule and backbone")
    print(told.rename_axis(index=None, columns=None).to_string(float_format="{:,.3f}".format))
    print(*notes, sep="\n", end="\n" if notes else "")


if __name__ == "__main__":
    main()
