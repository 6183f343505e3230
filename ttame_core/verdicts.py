"""What the scores of an edition say to the paper's claims: a verdict on each, computed."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import pandas as pd

from ttame_core.claims import ABLATION, CLAIMS, LEVEL, VERDICTS, Cell, Claim, Comparison, family
from ttame_core.statistics import clearness, simultaneous_intervals
from ttame_core.taps import TAPS


def evidence(
    scores: pd.DataFrame,
    ablated: pd.DataFrame,
    sanity: pd.DataFrame,
    costs: pd.DataFrame,
    taps: Mapping[str, Any],
) -> pd.DataFrame:
    """Bring together what the claims are judged by.

    Parameters
    ----------
    scores : DataFrame
        AD, IC, ROAD with its averages, coverage: one row an image.
    ablated : DataFrame
        Of the ablations, one row an image; of further training seeds too.
    sanity : DataFrame
        Rank correlations, one row an image.
    costs : DataFrame
        One row a method.
    taps : mapping of str to object
        The edition's own sets of taps by backbone, where they are not the default ones. Table VII is of these: where Table VI
        has several sets, only its rows of the same set are taken.

    Returns
    -------
    DataFrame
        Columns backbone, method, measure, v, image_id, value.
    """
    rows = ablated[ablated["table"].isin(["VI", "VII", "seeds"])]
    named = [
        ABLATION + method.removesuffix(f", {taps.get(backbone) or _default(backbone)} taps")
        for backbone, method in zip(rows["backbone"], rows["method"], strict=True)
    ]
    rows = rows.assign(method=named)
    counted = costs.assign(measure="forwards", v=0, image_id="cost", value=costs["forwards"])
    columns = ["backbone", "method", "measure", "v", "image_id", "value"]
    return pd.concat([table[columns] for table in (scores, rows, sanity, counted)])


def _default(backbone: str) -> str:
    return next(iter(TAPS.get(backbone, {"": ()})))


def compare(
    scores: pd.DataFrame,
    claims: Sequence[Claim] = CLAIMS,
    chance: Mapping[str, float] | None = None,
) -> pd.DataFrame:
    """Make every comparison that the claims need, image by image.

    The intervals of a claim hold together at 95 % (Bonferroni: of the corrections the one whose intervals are
    what decides). They are over images, not over training seeds; a difference between ablations that is smaller than what
    the proposed method's seeds differ by is undecided all the same, and so is a lead in confidence that would go below
    chance. Where an edition has several backbones of a
    family, the first is taken.

    Parameters
    ----------
    scores : DataFrame
        One row an image: backbone, method (or row of an ablation), measure, v, image_id, value.
    claims : sequence of Claim
        The paper's by default.
    chance : mapping of str to float, optional
        Confidence in per cent that a backbone's classes have by chance.

    Returns
    -------
    DataFrame
        A row a comparison: claim, backbone, measure, v; left and right with their means on the images that both
        have; difference, low, high; claimed, what the claim says of the difference; images; clearness, how far the
        difference is from that bound, in reaches of the interval towards it (above 1: as claimed, below -1:
        otherwise); outcome, the same in words, "missing" where the edition lacks a side.
    """
    names: dict[str, str] = {}
    for backbone in scores["backbone"].unique():
        names.setdefault(family(backbone) or "", backbone)
    kept = scores[scores["measure"] != "invalid"].dropna(subset="value")
    values: dict[Cell, pd.Series] = {}
    for key, backbone in names.items():
        own = kept[kept["backbone"] == backbone]
        for place, group in own.groupby(["method", "measure", "v"], observed=True):
            cell = Cell(key, *place)  # type: ignore[arg-type]
            values[cell] = group.groupby("image_id")["value"].mean()
    return pd.DataFrame(
        [row for claim in claims for row in _compared(claim, values, names, chance or {})]
    )


def verdicts(compared: pd.DataFrame, claims: Sequence[Claim] = CLAIMS) -> pd.DataFrame:
    """Judge claims by their comparisons.

    A claim is confirmed where every comparison it needs comes out as claimed, not confirmed where one comes out
    otherwise, undecided where neither holds, and not applicable where one is missing.

    Parameters
    ----------
    compared : DataFrame
        From `compare`.
    claims : sequence of Claim
        Those compared.

    Returns
    -------
    DataFrame
        A row a claim: number, claim, verdict, backbones, how many comparisons came out each way (what is mixed
        counts as two), and the one that decides: the least clear, or the clearest against the claim.
    """
    return pd.DataFrame([_verdict(c, compared[compared["claim"] == c.number]) for c in claims])


def _compared(
    claim: Claim,
    values: Mapping[Cell, pd.Series],
    names: Mapping[str, str],
    chance: Mapping[str, float],
) -> Iterator:
    tests = [
        test for test in (*claim.tests, *claim.mixed) if not test.optional or test.right in values
    ]
    sides = [_sides(test, values) for test in tests]
    differences = [(side["left"] - side["right"]).to_numpy() for side in sides]
    intervals = simultaneous_intervals(differences, 1 - LEVEL)
    for test, side, apart, ends in zip(tests, sides, differences, intervals, strict=True):
        left, right = side.mean()
        sign = -1 if test.less else 1
        clear = sign * clearness(apart, test.bound, ends, LEVEL / len(tests))
        if abs(left - right - test.bound) < _seed_range(test, values):
            clear = min(max(clear, -1.0), 1.0)
        least = chance.get(names.get(test.left.family, ""), -math.inf)
        if test.less and test.bound < 0 and right + test.bound < least:
            clear = max(clear, -1.0)
        if test.exact:
            clear = math.inf if sign * (left - right - test.bound) >= 0 else -math.inf
        mixed = test in claim.mixed
        words = ("better", "worse") if mixed else ("as claimed", "otherwise")
        outcome = words[0] if clear > 1 else words[1] if clear < -1 else "undecided"
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
            "images": len(apart),
            "clearness": clear if len(apart) else math.nan,
            "outcome": outcome if len(apart) else "missing",
        }


def _sides(test: Comparison, values: Mapping[Cell, pd.Series]) -> pd.DataFrame:
    """Left and right on the images that both have."""

    def value(cell: Cell) -> pd.Series:
        found = values.get(replace(cell, minus=""), pd.Series(dtype=float))
        other = replace(cell, method=cell.minus, minus="")
        return found - value(other) if cell.minus else found

    left = value(test.left)
    right = value(test.right) if test.right else 0 * left
    return pd.DataFrame({"left": left, "right": right}).dropna()


def _seed_range(test: Comparison, values: Mapping[Cell, pd.Series]) -> float:
    """How far the means of the proposed method's training seeds are apart, for comparisons between ablations."""
    ranges = [0.0]
    for cell in (test.left, test.right):
        if cell and cell.method.startswith(ABLATION):
            means = [
                found.mean()
                for other, found in values.items()
                if other.method.startswith(f"{ABLATION}seed ")
                and (other.family, other.measure, other.v) == (cell.family, cell.measure, cell.v)
            ]
            ranges.append(max(means, default=0) - min(means, default=0))
    return max(ranges)


def _in_words(test: Comparison, names: Mapping[str, str]) -> dict[str, object]:
    """Name backbones, measure and sides; a side says its backbone where there are two."""
    cells = [cell for cell in (test.left, test.right) if cell]
    where = list(dict.fromkeys(names.get(cell.family, f"no {cell.family}") for cell in cells))
    labels = []
    for cell in cells:
        label = f"{cell.method} minus {cell.minus}" if cell.minus else cell.method
        place = f" on {names.get(cell.family)}" if len(where) > 1 else ""
        labels.append(label.replace(ABLATION, "") + place)
    words = ", ".join(where), cells[0].measure, cells[0].v, *labels, ""
    return dict(zip(("backbone", "measure", "v", "left", "right"), words, strict=False))


def _verdict(claim: Claim, rows: pd.DataFrame) -> dict[str, object]:
    mixed = rows["clearness"][rows["claimed"] == "mixed"]
    excused = rows["clearness"][rows["right"] == claim.exception].nsmallest(1)
    extremes = [mixed.nlargest(1), -mixed.nsmallest(1)]  # one better at least, and one worse
    clear = pd.concat([rows["clearness"].drop(mixed.index), *extremes])
    needed = clear.drop(excused.index)
    missing = rows[rows["outcome"] == "missing"]
    if len(missing) or needed.empty:
        verdict = VERDICTS[3]
        deciding = f"missing: {_in_numbers(missing.iloc[0])}" if len(missing) else ""
    else:
        least = needed.min()
        verdict = VERDICTS[0] if least > 1 else VERDICTS[1] if least < -1 else VERDICTS[2]
        deciding = _in_numbers(rows.loc[needed.idxmin()])
    return {
        "number": claim.number,
        "claim": claim.text,
        "verdict": verdict,
        "backbones": ", ".join(dict.fromkeys(", ".join(rows["backbone"]).split(", "))),
        "as claimed": int((clear > 1).sum()),
        "otherwise": int((clear < -1).sum()),
        "undecided": int(clear.between(-1, 1).sum()),
        "decided by": deciding,
    }


def _in_numbers(row: pd.Series) -> str:
    """Put a comparison in short: both means, their difference with its interval, and what is claimed of it."""

    def short(column: str) -> str:
        return f"{row[column]:.0f}" if abs(row[column]) >= 100 else f"{row[column]:.3g}"

    place = f"{row['backbone']}, {row['measure']}" + (f"({row['v']:g})" if row["v"] else "")
    if row["outcome"] == "missing":
        return f"{place}, {row['left']}" + (f" against {row['right']}" if row["right"] else "")
    text = f"{place}: {row['left']} {short('left_mean')}"
    if row["right"]:
        text += f", {row['right']} {short('right_mean')}; difference {short('difference')}"
    if row["low"] <= row["high"]:  # no count
        text += f" [{short('low')}, {short('high')}]"
    return f"{text}; claimed {row['claimed']}"
