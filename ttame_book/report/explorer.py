"""The book's explorer: its page, with the differences of all methods and the images to mask in it.

The page's script draws what is chosen; whatever it shows is written into the page here.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd

from ttame_book.editions.edition import read_result
from ttame_book.report.intervals import averages, paired_differences
from ttame_book.report.names import shown_name
from ttame_core.images.explanation import COLOURS
from ttame_core.methods.registry import CONTROLS
from ttame_core.metrics.measures import LOCALISATION, MEASURES, measure_label
from ttame_core.recipes import OURS

PLACE = "DATA"  # where the template has its data
BETTER = {-1: "less is better", 1: "more is better"}
COLUMNS = ["method", "rival", "n", "difference", "low", "high", "p"]
FIRST_V = 50
"""What is told of a comparison; the percentage that is chosen at first, where there is one."""


def write_page(results: Path, committed: Path, book: Path) -> bool:
    """Write the data into the book's ``explorer.md``; without any, remove it and say so.

    Parameters
    ----------
    results : Path
        The edition's results: a folder for each backbone, with its scores, and ``summary``.
    committed : Path
        Summary of the edition whose differences stand beside these, if it is there.
    book : Path
        The book's folder, in which the template is.

    Returns
    -------
    bool
        Whether the book has the page. A TTAMEError names a file that is broken.
    """
    page, summary = book / "explorer.md", results / "summary"
    places = [] if committed.resolve() == summary.resolve() else [committed]
    sets = [each for place in [*places, summary] for each in _sets(place)]
    if not sets:
        page.unlink()
        print(f"the explorer is left out: {results} has no summary/differences.csv")
        return False
    colours = [list(bytes.fromhex(colour.removeprefix("#"))) for colour in COLOURS]
    data: dict[str, Any] = {"sets": sets, "colours": colours}
    if (file := summary / "explorer.json").is_file():
        explored = read_result(file, lambda path: json.loads(path.read_text()))
        data |= {"explored": _explored(explored)} if explored["classifiers"] else {}
    # a name with a tag in it ends no script
    text = json.dumps(data, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")
    page.write_text(page.read_text().replace(f">{PLACE}<", f">{text}<"))
    return True


def all_differences(summary: Path) -> pd.DataFrame:
    """Read the differences of T-TAME and its variants, and compute those among the other methods.

    The latter need the scores of each image; without them the former come alone. p is corrected
    for all comparisons on a backbone of either kind, so that T-TAME's are as everywhere in the
    book. Columns are those of `paired_differences`; no row where there is no table.
    """
    told = summary / "differences.csv"
    if not told.is_file():
        return pd.DataFrame()
    tables = [read_result(told, pd.read_csv)]
    for file in sorted(summary.parent.glob("[!.]*/scores.parquet")):
        scores = read_result(file, pd.read_parquet)
        road = file.with_name("road.parquet")
        if road.is_file():
            scores = pd.concat([scores, averages(read_result(road, pd.read_parquet))])
        others = scores[~scores["method"].isin(OURS)]
        tables.append(paired_differences(others, list(others["method"].unique())))
    return pd.concat(tables)


def _sets(summary: Path) -> Iterator[dict[str, Any]]:
    """Describe the comparisons on each backbone of an edition as the page's script reads them."""
    table = all_differences(summary)
    if not len(table):
        return
    for backbone, of_one in table.groupby("backbone", sort=False):
        name = str(backbone)
        methods = list(dict.fromkeys([*of_one["method"], *of_one["rival"]]))
        measures = [
            _measure(str(measure), group, methods)
            for measure, group in of_one.groupby("measure", sort=False)
        ]
        yield {
            "key": f"{summary.parent.name}/{name}",
            "name": shown_name(name),
            "of": summary.parent.name,
            "methods": list(map(_said, methods)),
            "own": [_said(method) for method in methods if method in OURS],
            "controls": [_said(method) for method in methods if method in CONTROLS],
            "measures": measures,
        }


def _measure(name: str, differences: pd.DataFrame, methods: list[str]) -> dict[str, Any]:
    """Describe a measure: its words, and for each v the rows, with methods by their places."""
    measure, place = MEASURES[name], methods.index
    cells = []
    for v in differences["v"].unique().tolist():
        group, rows = differences[differences["v"] == v], []
        for method, rival, n, *found, p in group[COLUMNS].to_numpy().tolist():
            values = [round(x, 2) if x == x else None for x in found]  # of one image: no interval
            rows.append([place(method), place(rival), n, *values, float(f"{p:.3g}")])
        label = "whole map" if name in LOCALISATION else f"{v:g} %" if v else "mean over v"
        cells.append({"v": v, "label": label, "title": measure_label(name, v), "rows": rows})
    return {
        "key": name,
        "label": f"{measure.label.partition('(')[0]}: {BETTER[measure.direction]}",
        "direction": measure.direction,
        "fallback": FIRST_V,
        "cells": cells,
    }


def _explored(found: dict[str, Any]) -> dict[str, Any]:
    """Put the names for people to what is shown of images."""
    classifiers = {
        shown_name(name): {
            **of,
            "images": [
                {**image, "methods": {_said(each): maps for each, maps in image["methods"].items()}}
                for image in of["images"]
            ],
        }
        for name, of in found["classifiers"].items()
    }
    return {**found, "classifiers": classifiers}


def _said(method: str) -> str:
    """Say a method; that it is a control the page adds itself."""
    return shown_name(method).removesuffix(" (control)")
