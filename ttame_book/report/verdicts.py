"""What the scores of an edition say to the paper's claims: a verdict on each, computed.

``names`` are the backbones that stand for each family, where there is one; ``values`` are each
cell's scores by image.
"""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import pandas as pd

from ttame_book.report.claims import CLAIMS, FAMILIES, LEVEL, VERDICTS, Cell, Claim, Comparison
from ttame_book.report.intervals import clearness, simultaneous_intervals
from ttame_book.report.names import shown_name
from ttame_book.studies.ablations import Shown
from ttame_core.classifiers.loading import named_taps
from ttame_core.metrics.measures import MEASURES, measure_label

CONFIRMED, NOT_CONFIRMED, UNDECIDED, NOT_APPLICABLE = VERDICTS
BELOW_CHANCE = "below chance"
"""The outcome of a comparison whose claimed lead would be below what classes have by chance."""
FALLS_TO_CHANCE = "morf", MEASURES["morf"].averaged.name
"""Measures that are a confidence, and the better the lower it is."""
COUNT = "forwards"
"""The one measure that is counted."""


def evidence(
    scores: pd.DataFrame,
    ablated: pd.DataFrame,
    sanity: pd.DataFrame,
    costs: pd.DataFrame,
    taps: Mapping[str, Any],
) -> pd.DataFrame:
    """Bring together what the claims are judged by, in one table of scores.

    ``ablated`` are the ablations', of further training seeds too; ``sanity`` has rank correlations,
    ``costs`` forward passes, a row a method, and ``taps`` are the edition's own sets by backbone,
    where they are not the default ones. Columns of the result are backbone, table (of the
    ablations, or empty), method, measure, v, image_id, value.
    """
    rows = ablated[ablated["table"].isin([Shown.PARTS, Shown.ORDERS, Shown.SEEDS])]
    if "taps" in rows:
        # Table VII is of the edition's own taps: where Table VI has several sets, only its rows of
        # the same set are taken
        own = rows["backbone"].map(lambda name: taps.get(name) or next(iter(named_taps(name)), ""))
        rows = rows[rows["taps"].isin(["", None]) | (rows["taps"] == own)]
    counted = costs.assign(measure=COUNT, v=0, image_id="cost", value=costs["forwards"])
    columns = ["backbone", "table", "method", "measure", "v", "image_id", "value"]
    others = [table.assign(table="")[columns] for table in (scores, sanity, counted)]
    return pd.concat([others[0], rows[columns], *others[1:]])


def compare(
    scores: pd.DataFrame,
    names: Mapping[str, str],
    claims: Sequence[Claim] = CLAIMS,
    chance: Mapping[str, float] | None = None,
) -> pd.DataFrame:
    """Make every comparison that the claims need, image by image, with scores from `evidence`.

    The intervals of a claim hold together at 95 % (Bonferroni: of the corrections the one whose
    intervals are what decides). They are over images, not over training seeds. ``chance`` is the
    confidence in per cent that each backbone's classes have by chance.

    Returns
    -------
    DataFrame
        A row a comparison: claim, backbone, measure, v; left and right with their means on the
        images that both have; difference, low, high; claimed, what the claim says of the
        difference, bound, and towards, 1 where more than it is claimed and -1 where less; images;
        clearness, how far the difference is from that bound, in reaches of the interval towards it
        (above 1: as claimed, below -1: otherwise); outcome, the same in words, "missing" where the
        edition lacks a side, `BELOW_CHANCE` where what is claimed cannot be.
    """
    kept = scores[scores["measure"] != "invalid"].dropna(subset="value")
    values: dict[Cell, pd.Series] = {}
    places = ["method", "measure", "v", "table"]
    for family, backbone in names.items():
        own = kept[kept["backbone"] == backbone]
        wide = own.pivot_table(index="image_id", columns=places, values="value", observed=True)
        for place, column in wide.items():
            cell = Cell(family, **dict(zip(places, place, strict=True)))  # type: ignore
            values[cell] = column.dropna()
    return pd.DataFrame(
        [row for claim in claims for row in _compared(claim, values, names, chance or {})]
    )


def verdicts(
    compared: pd.DataFrame, names: Mapping[str, str], claims: Sequence[Claim] = CLAIMS
) -> pd.DataFrame:
    """Judge claims by the comparisons of `compare`, a row a claim.

    A claim is confirmed where every comparison it needs comes out as claimed, not confirmed where
    one comes out otherwise, undecided where neither holds. It is not applicable where one is
    missing, and where none comes out otherwise but one claims a lead below chance.
    The row says how many came out each way (what is mixed counts as two), and names the one that
    decides: the least clear, or the clearest against the claim.
    """
    return pd.DataFrame(
        [_verdict(c, compared[compared["claim"] == c.number], names) for c in claims]
    )


def _compared(
    claim: Claim,
    values: Mapping[Cell, pd.Series],
    names: Mapping[str, str],
    chance: Mapping[str, float],
) -> Iterator[dict[str, object]]:
    """Make the rows of `compare` for one claim."""
    all_tests = (*claim.tests, *claim.mixed)
    tests = [test for test in all_tests if not test.optional or test.right in values]
    sides = [_sides(test, values) for test in tests]
    differences = [(side["left"] - side["right"]).to_numpy() for side in sides]
    intervals = simultaneous_intervals(differences, 1 - LEVEL)
    for test, side, apart, ends in zip(tests, sides, differences, intervals, strict=True):
        left, right = side.mean()
        sign = -1 if test.less else 1
        clear = sign * clearness(apart, test.bound, ends, LEVEL / len(tests))
        # what training seeds differ by, images cannot decide
        if abs(left - right - test.bound) < _seed_range(test, values):
            clear = min(max(clear, -1.0), 1.0)
        # a lead below chance cannot be had: its absence says nothing, but being behind does
        least = chance.get(names.get(test.left.family, ""), -math.inf)
        falls = test.less and test.left.measure in FALLS_TO_CHANCE
        closed = falls and right + test.bound < least and clear <= 1 and ends[0] <= 0
        if closed:
            clear = max(clear, -1.0)
        if test.exact:
            clear = math.inf if sign * (left - right - test.bound) >= 0 else -math.inf
        mixed = test in claim.mixed
        words = ("better", "worse") if mixed else ("as claimed", "otherwise")
        outcome = words[0] if clear > 1 else words[1] if clear < -1 else "undecided"
        outcome = BELOW_CHANCE if closed else outcome
        relation = ("<" if test.less else ">") + ("=" if test.exact else "")
        yield {
            "claim": claim.number,
            **_in_words(test, names),
            "left_mean": left,
            "right_mean": right,
            "difference": left - right,
            "low": ends[0],
            "high": ends[1],
            "claimed": "mixed" if mixed else f"{relation} {test.bound:g}",
            "bound": test.bound,
            "towards": sign,
            "images": len(apart),
            "clearness": clear if len(apart) else math.nan,
            "outcome": outcome if len(apart) else "missing",
        }


def _sides(test: Comparison, values: Mapping[Cell, pd.Series]) -> pd.DataFrame:
    """Take left and right on the images that both have."""

    def value(cell: Cell) -> pd.Series:
        found = values.get(replace(cell, minus=""), pd.Series(dtype=float))
        other = replace(cell, method=cell.minus, minus="")
        return found - value(other) if cell.minus else found

    left = value(test.left)
    right = value(test.right) if test.right else 0 * left
    return pd.DataFrame({"left": left, "right": right}).dropna()


def _seed_range(test: Comparison, values: Mapping[Cell, pd.Series]) -> float:
    """Tell how far training seeds are apart, for comparisons between ablations; 0 for others."""
    ranges = [0.0]
    for cell in (test.left, test.right):
        if cell and cell.table:
            place = (cell.family, cell.measure, cell.v)
            seeds = [c for c in values if c.table == Shown.SEEDS]
            means = [values[c].mean() for c in seeds if (c.family, c.measure, c.v) == place]
            ranges.append(max(means, default=0) - min(means, default=0))
    return max(ranges)


def _backbones(cells: Iterable[Cell], names: Mapping[str, str]) -> list[str]:
    """Name the backbones of cells, each once; a family without one is named as missing."""
    found = (names.get(c.family, f"no stand-in for {FAMILIES[c.family]}") for c in cells)
    return list(dict.fromkeys(found))


def _in_words(test: Comparison, names: Mapping[str, str]) -> dict[str, object]:
    """Name backbones, measure and sides; a side says its backbone where there are two."""
    cells = [cell for cell in (test.left, test.right) if cell]
    where = _backbones(cells, names)
    labels = []
    for cell in cells:
        label = f"{cell.method} minus {cell.minus}" if cell.minus else cell.method
        if len(where) > 1:
            label = f"{shown_name(label)} on {shown_name(_backbones([cell], names)[0])}"
        labels.append(label)
    left, right = [*labels, ""][:2]
    place = {"backbone": ", ".join(where), "measure": test.left.measure, "v": test.left.v}
    return {**place, "left": left, "right": right}


def deciding_comparisons(compared: pd.DataFrame, claims: Sequence[Claim] = CLAIMS) -> pd.DataFrame:
    """Find the comparison that decides on each claim.

    Returns a row a claim: number, title, verdict, and the columns of `compare` of the comparison
    that `verdicts` names; they are missing where there is none. What is claimed to be mixed is
    ``towards`` the way in which it is needed.
    """
    rows = []
    for claim in claims:
        own = compared[compared["claim"] == claim.number]
        verdict, decides, clear = _decide(claim, own)
        row = {} if decides is None else decides.to_dict()
        if row and clear * row["clearness"] < 0:
            row["towards"] *= -1
        rows.append({"number": claim.number, "title": claim.title, "verdict": verdict, **row})
    return pd.DataFrame(rows, columns=["number", "title", "verdict", *compared.columns])


def _decide(claim: Claim, rows: pd.DataFrame) -> tuple[str, pd.Series | None, float]:
    """Judge a claim by its comparisons: the verdict, what decides, and how clear that is."""
    clear = _clearness(rows)
    excused = rows["clearness"][rows["right"] == claim.exception].nsmallest(1)
    needed = clear.drop(excused.index)
    least = float(needed.min())
    lacking = rows[rows["outcome"] == "missing"]
    if lacking.empty and not least < -1:
        lacking = rows[rows["outcome"] == BELOW_CHANCE]
    if len(lacking) or needed.empty:
        return NOT_APPLICABLE, lacking.iloc[0] if len(lacking) else None, math.nan
    verdict = CONFIRMED if least > 1 else NOT_CONFIRMED if least < -1 else UNDECIDED
    return verdict, rows[rows.index == needed.idxmin()].iloc[0], least


def _clearness(rows: pd.DataFrame) -> pd.Series:
    """Tell how clearly comparisons come out as claimed; what is mixed has one for each way."""
    clearness_of = rows["clearness"]
    mixed = clearness_of[rows["claimed"] == "mixed"]
    extremes = [mixed.nlargest(1), -mixed.nsmallest(1)]  # one better at least, and one worse
    return pd.concat([clearness_of.drop(mixed.index), *extremes])


def _verdict(claim: Claim, rows: pd.DataFrame, names: Mapping[str, str]) -> dict[str, object]:
    clear = _clearness(rows)
    verdict, decides, _ = _decide(claim, rows)
    cells = (cell for test in (*claim.tests, *claim.mixed) for cell in (test.left, test.right))
    return {
        "number": claim.number,
        "claim": claim.text,
        "verdict": verdict,
        "backbones": ", ".join(_backbones(filter(None, cells), names)),
        "as claimed": int((clear > 1).sum()),
        "otherwise": int((clear < -1).sum()),
        "undecided": int(clear.between(-1, 1).sum()),
        "decided by": "" if decides is None else in_numbers(decides),
    }


def in_numbers(row: Mapping[str, Any] | pd.Series) -> str:
    """Put a comparison in short: means, their difference with its interval, what is claimed."""
    left, right = map(shown_name, (row["left"], row["right"]))
    where = ", ".join(map(shown_name, row["backbone"].split(", ")))
    place = f"{where}, {measure_label(row['measure'], row['v']).rstrip(' ↑↓')}"
    if row["outcome"] == "missing":
        return f"missing: {place}, {left}" + (f" against {right}" if right else "")
    why = f"{BELOW_CHANCE}: " if row["outcome"] == BELOW_CHANCE else ""
    means = [f"{left} {_digits(row, 'left_mean')}", f"{right} {_digits(row, 'right_mean')}"]
    # without a right side the difference is the left's mean
    sides = f"{', '.join(means)}; difference" if right else left
    return f"{why}{place}: {sides} {interval_in_numbers(row)}"


def interval_in_numbers(row: Mapping[str, Any] | pd.Series) -> str:
    """Put a comparison's difference in short, with its interval and what is claimed of it."""
    low, high = _digits(row, "low"), _digits(row, "high")
    interval = f" [{low}, {high}]" if row["low"] <= row["high"] else ""  # a count has none
    claimed = row["claimed"].replace("<=", "≤").replace(">=", "≥").replace("-", "−")
    return f"{_digits(row, 'difference')}{interval}; claimed {claimed}"


def _digits(row: Mapping[str, Any] | pd.Series, column: str) -> str:
    """Write a comparison's number with one digit, or two where its difference is small."""
    form = ",g" if row["measure"] == COUNT else f".{1 + (abs(row['difference']) < 10)}f"
    return f"{row[column]:{form}}".replace("-", "−")
