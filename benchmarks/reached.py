"""What was asked of speed beside what the tables in results/ have, as the guide's table.

python benchmarks/reached.py [--write]

Printed as Markdown; with --write it takes its place in README.md. Tables of GPUs count once there
are any.
"""

import argparse
import json
import re
from collections.abc import Iterator
from pathlib import Path

HERE = Path(__file__).parent
PLACE = re.compile(r"(?<=<!-- reached -->\n).*(?=\n<!-- end -->)", re.DOTALL)
CLASSIFIERS = ("resnet50", "vgg16", "vit_b_16")
PRECISIONS = ("float32", "bfloat16")
MOST, LEAST = "at most", "at least"
Asked = tuple[str, str, str, int | None, tuple[float | None, ...]]
CPU: tuple[Asked, ...] = (  # what, column, at most or least, batch, of each classifier
    ("explain", "plain forwards", MOST, None, (0.75, 0.80, 0.95)),
    ("training step", "plain forwards", MOST, None, (2.2, 2.2, 3.0)),
    ("Grad-CAM", "plain forwards", MOST, None, (1.3, 1.3, 1.3)),
)
GPU: tuple[Asked, ...] = (
    ("explain", "plain forwards", MOST, 1, (1.1, 1.1, 1.1)),
    ("explain", "plain forwards", MOST, 32, (0.30, 0.20, 0.22)),
    ("explain", "plain forwards", MOST, 128, (0.30, 0.20, 0.22)),
    ("explain", "forwards", MOST, 32, (1.15, 1.15, 1.15)),
    ("explain", "forwards", MOST, 128, (1.15, 1.15, 1.15)),
    ("training step", "images/s", LEAST, 128, (3000, 2500, 1800)),
    ("passes of Grad-CAM", "plain forwards", MOST, None, (1.3, 1.3, 1.3)),
    ("RISE", "forwards/s", LEAST, None, (10_000, None, None)),
    ("ROAD", "ms", MOST, None, (5, None, None)),
)


def verdict(met: list[str]) -> str:
    """Say in which precisions something is reached."""
    if not met:
        return "no"
    return "yes" if len(met) == len(PRECISIONS) else f"in {' and '.join(met)}"


def compared(table: dict) -> Iterator[dict[str, str]]:
    """Set what was asked of a device beside what its table has."""
    for what, column, bound, batch, limits in CPU if table["device"] == "CPU" else GPU:
        for classifier, limit in zip(CLASSIFIERS, limits, strict=True):
            named = {f"{what}, {p}": p for p in PRECISIONS}
            rows = [
                row
                for row in table["rows"]
                if row.get("classifier") == classifier
                and row["what"] in named
                and row.get(column) is not None
                and row["batch"] == (batch or row["batch"])
            ]
            if limit is None or not rows:
                continue
            largest = max(row["batch"] for row in rows)
            found = {named[row["what"]]: row[column] for row in rows if row["batch"] == largest}
            met = [
                p
                for p, value in found.items()
                if (value <= limit if bound == MOST else value >= limit)
            ]
            yield {
                "device": f"{table['device']}, {table['threads']} threads",
                "what": f"{what}, {column}",
                "classifier": classifier,
                "batch": str(largest),
                "asked": f"{bound} {limit:,.5g}",
                **{p: f"{found[p]:,.2f}" if p in found else "" for p in PRECISIONS},
                "reached": verdict(met),
            }


def against_earlier(table: dict) -> Iterator[dict[str, str]]:
    """Set what one thread takes beside what was asked, and ROAD beside the earlier commit's."""
    asked = {what: limits for what, _, _, _, limits in CPU}
    for row in table["rows"]:
        limits = asked.get(row["what"])
        if limits is None and row["what"] != "ROAD":
            continue
        limit = limits[CLASSIFIERS.index(row["classifier"])] if limits else round(row["before"], 2)
        values = dict(zip(PRECISIONS, (row["now"], row["now, bfloat16"]), strict=True))
        met = [p for p, value in values.items() if limit is not None and value <= limit]
        yield {
            "device": f"CPU, {table['threads']} thread",
            "what": f"{row['what']}, plain forwards",
            "classifier": row["classifier"],
            "batch": str(row["batch"]),
            "asked": f"{MOST} {limit:,.5g}" + ("" if limits else ", the earlier commit's"),
            **{p: f"{value:.2f}" for p, value in values.items()},
            "reached": verdict(met),
        }


def markdown() -> str:
    """Return the table of all devices."""
    rows: list[dict[str, str]] = []
    for file in sorted((HERE / "results").glob("*.json")):
        table = json.loads(file.read_text())
        if file.name == "before-cpu.json":
            rows += against_earlier(table)
        elif not file.name.startswith(("growth-", "measures-", "methods-")):
            rows += compared(table)
    lines = [" | ".join(rows[0]), " | ".join("---" for _ in rows[0])]
    lines += [" | ".join(row.values()) for row in rows]
    return "\n".join(f"| {line} |" for line in lines)


def main() -> None:
    """Print the table, or write it into the guide."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true")
    if not parser.parse_args().write:
        print(markdown())
        return
    guide = HERE / "README.md"
    guide.write_text(PLACE.sub(lambda _: markdown(), guide.read_text()))


if __name__ == "__main__":
    main()
