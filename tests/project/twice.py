"""Run an edition twice from nothing and compare all files, then on two threads and compare the scores.

python -m tests.project.twice [EDITION]   # make twice
"""

import subprocess
import sys
import tempfile
from pathlib import Path

import pandas as pd

from tests.project.kill import Graph, copy_project, environment
from tests.project.same import differences
from ttame_book.editions.graph import STEPS

TABLES = [name for step in STEPS for name in step.outputs if name.endswith(".parquet")]


def run(edition, folder, *options):
    """Run an edition's notebooks in a copy of the project; the folder of its results."""
    copy_project(folder)
    target = f"results/{edition}/12_compare.ipynb"
    command = [*Graph.COMMAND, target, "--quiet", "all", *options, "--config", f"edition={edition}"]
    subprocess.run(command, cwd=folder, env=environment(folder), check=True)
    return folder / "results" / edition


def apart(first, second):
    """How far the values of two runs' tables lie apart: a row a table, backbone and measure."""
    rows = []
    for name in TABLES:
        for file in sorted(first.glob(f"[!.]*/{name}")):
            one, other = (
                pd.read_parquet(place / file.relative_to(first)) for place in (first, second)
            )
            # what is not the same in both is compared, whatever the table calls it
            values = [c for c in one.select_dtypes("number") if not one[c].equals(other[c])]
            for value in values:
                by = one["measure"] if "measure" in one else pd.Series(value, one.index)
                found = (one[value] - other[value]).abs().groupby(by).agg(["mean", "max"])
                found = found.reset_index(names="measure")
                rows.append(found.assign(table=name, backbone=file.parent.name))
    columns = ["table", "backbone", "measure", "mean", "max"]
    return pd.concat(rows)[columns] if rows else pd.DataFrame(columns=columns)


if __name__ == "__main__":
    edition = [*sys.argv[1:], "smoke"][0]
    place = Path(tempfile.mkdtemp(prefix="twice-"))
    first, second = (run(edition, place / name) for name in ("first", "second"))
    found = differences(first, second)
    print("twice on one thread:", "\n".join(found) or "the same")
    threads = [f"{step.rule}=2" for step in STEPS]
    other = run(edition, place / "two-threads", "--set-threads", *threads)
    print(f"on two threads, in the units of each measure; results are in {place}:")
    print(apart(first, other).to_markdown(index=False, floatfmt=".4g"))
    sys.exit(bool(found))
