"""The paper's twelve claims as data, and what the scores of an edition say to each: a verdict, computed."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pandas as pd

from ttame_core.statistics import clearness, simultaneous_intervals
from ttame_core.tables import LOWER_IS_BETTER
from ttame_core.taps import TAPS

VERDICTS = ("confirmed", "not confirmed", "undecided at this sample size", "not applicable here")
LEVEL = 0.05  # of all comparisons of a claim together
FAR = 5.0  # per cent; the paper says "large" and "much greater"
RIVALS = (
    *("t-tame", "l-cam-img", "grad-cam", "grad-cam++", "score-cam", "ablation-cam", "rise", "iia"),
    "transformer-lrp",
)
"""The methods of the paper's tables."""
ABLATION = "ablation: "  # before the name of a row of Tables VI and VII
FAMILIES = {
    "vgg": ("vgg", "squeezenet", "demo_vgg"),
    "resnet": ("resnet", "resnext", "wide_resnet", "efficientnet", "demo_resnet"),
    "vit": ("vit_", "deit", "demo_vit"),
}
"""What the names of a family's members start with."""


@dataclass(frozen=True)
class Cell:
    """Per-image values of one method on one family of backbones.

    Attributes
    ----------
    family : str
        Key of `FAMILIES`.
    method : str
        Method, or row of an ablation.
    measure : str
        As in the scores.
    v : float
        Percentage; 0 for averages.
    minus : str
        Another method, whose values are subtracted.
    """

    family: str
    method: str
    measure: str
    v: float = 0
    minus: str = ""


@dataclass(frozen=True)
class Comparison:
    """What a claim says of two sides: left minus right is less, or more, than a bound.

    Attributes
    ----------
    left : Cell
        What is compared,
    right : Cell or None
        with what; without it the left itself is compared with the bound.
    less : bool
        Whether the claim says less, not more.
    bound : float
        What the difference is compared with.
    exact : bool
        Whether the values are counts: they need no interval, and the bound itself will do.
    optional : bool
        Whether the comparison is left out where an edition has no right side.
    """

    left: Cell
    right: Cell | None
    less: bool
    bound: float = 0
    exact: bool = False
    optional: bool = False


@dataclass(frozen=True)
class Claim:
    """A claim of the paper.

    Attributes
    ----------
    number : int
        As in the list of the book.
    text : str
        In words.
    tests : tuple of Comparison
        All of these must come out as claimed.
    mixed : tuple of Comparison
        Of these at least one must come out one way, and at least one the other.
    exception : str, optional
        The method that may be better in one of ``tests``.
    """

    number: int
    text: str
    tests: tuple[Comparison, ...]
    mixed: tuple[Comparison, ...] = ()
    exception: str | None = None


Places = Sequence[tuple[str, float]]
"""Measures and percentages."""


def _masked(*vs: float) -> Places:
    return [(measure, v) for measure in ("ad", "ic") for v in vs]


def _better(
    family: str, first: str, second: str, places: Places, by: float = 0, optional: bool = False
) -> Iterator[Comparison]:
    """One method is better than another in every place, by more than so much."""
    for measure, v in places:
        left, right = (Cell(family, method, measure, v) for method in (first, second))
        less = measure in LOWER_IS_BETTER
        yield Comparison(left, right, less, -by if less else by, optional=optional)


def _best(family: str, method: str, places: Places, but: str = "") -> Iterator[Comparison]:
    """A method is better than all others, one perhaps apart, in every place."""
    for rival in RIVALS:
        if rival not in (method, but):
            yield from _better(family, method, rival, places, optional=True)


def _parts(families: Sequence[str], first: str, second: str, *vs: float) -> Iterator[Comparison]:
    """One row of Table VI is better than another."""
    for name in families:
        yield from _better(name, ABLATION + first, ABLATION + second, _masked(*vs))


def _harm(worse: str, milder: str, by: float) -> Comparison:
    """Mismatched masking adds more AD(50) in one family than in another, by more than so much."""
    left, right = (
        Cell(f, f"{ABLATION}mismatched", "ad", 50, f"{ABLATION}matched") for f in (worse, milder)
    )
    return Comparison(left, right, False, by)


MORF, LERF = [("mean morf", 0.0)], [("mean lerf", 0.0)]
CNNS = ("vgg", "resnet")
CLAIMS = (
    Claim(
        1,
        "VGG-16: T-TAME is best in AD and IC at 50 % and 15 %; RISE is best at 100 %.",
        (*_best("vgg", "t-tame", _masked(50, 15)), *_best("vgg", "rise", _masked(100))),
    ),
    Claim(
        2,
        "VGG-16, ROAD: T-TAME has the best MoRF; RISE the best LeRF, T-TAME the second.",
        (
            *_best("vgg", "t-tame", MORF),
            *_best("vgg", "rise", LERF),
            *_best("vgg", "t-tame", LERF, but="rise"),
        ),
    ),
    Claim(
        3,
        "ResNet-50: T-TAME is best in all AD and IC cells but one, where it is second to Score-CAM.",
        tuple(_best("resnet", "t-tame", _masked(100, 50, 15))),
        exception="score-cam",
    ),
    Claim(
        4,
        "ResNet-50, ROAD: RISE has the best MoRF average, T-TAME is better than RISE from 50 % on; RISE has the best LeRF.",
        (
            *_best("resnet", "rise", [*MORF, *LERF]),
            *_better("resnet", "t-tame", "rise", [("morf", v) for v in (50, 60, 70, 80, 90)]),
        ),
    ),
    Claim(
        5,
        "ViT-B/16: T-TAME is best in all AD and IC cells.",
        tuple(_best("vit", "t-tame", _masked(100, 50, 15))),
    ),
    Claim(
        6,
        "ViT-B/16, ROAD: T-TAME has the best MoRF except at 10 %, far ahead of Transformer LRP from 30 to 70 % (by more "
        "than 5 points); in LeRF it comes second to RISE, and is ahead of it at 80 and 90 %.",
        (
            *_best("vit", "t-tame", [("morf", v) for v in range(20, 100, 10)]),
            *_better(
                "vit", "t-tame", "transformer-lrp", [("morf", v) for v in range(30, 80, 10)], FAR
            ),
            *_best("vit", "rise", LERF),
            *_best("vit", "t-tame", LERF, but="rise"),
            *_better("vit", "t-tame", "rise", [("lerf", 80), ("lerf", 90)]),
        ),
    ),
    Claim(
        7,
        "CNNs: two layers beat one in all AD and IC cells; three against two is mixed.",
        tuple(_parts(CNNS, "two layers", "one layer", 100, 50, 15)),
        tuple(_parts(CNNS, "proposed", "two layers", 100, 50, 15)),
    ),
    Claim(
        8,
        "Without skip connection it is worse: at 50 % and 15 % for VGG-16 and ResNet-50, at 15 % for ViT-B/16.",
        (
            *_parts(CNNS, "proposed", "no skip", 50, 15),
            *_parts(["vit"], "proposed", "no skip", 15),
        ),
    ),
    Claim(
        9,
        "Mismatched masking hurts ResNet-50 far more than VGG-16 (adds 5 points more of AD(50)), and VGG-16 more than ViT-B/16.",
        (_harm("resnet", "vgg", FAR), _harm("vgg", "vit", 0)),
    ),
    Claim(
        10,
        "Randomising the backbone, or the attention mechanism, changes the map drastically (rank correlation below 0.5).",
        tuple(
            Comparison(Cell(f, part, "rank correlation"), None, True, 0.5)
            for f in FAMILIES
            for part in ("whole backbone", "whole attention")
        ),
    ),
    Claim(
        11,
        "T-TAME needs one forward pass; RISE orders of magnitude more (up to 8000 in the paper; here: at least 100).",
        tuple(
            Comparison(Cell(f, method, "forwards"), None, less, bound, exact=True)
            for f in FAMILIES
            for method, less, bound in (("t-tame", True, 1), ("rise", False, 100))
        ),
    ),
    Claim(
        12,
        "Maps of the ViT cover larger regions than those of the CNNs.",
        tuple(
            Comparison(Cell("vit", *covered), Cell(cnn, *covered), False)
            for covered in [("t-tame", "coverage", 100.0)]
            for cnn in CNNS
        ),
    ),
)


def family(backbone: str) -> str | None:
    """Name the family a backbone belongs to, by torchvision's, timm's or the demo's name; None: to none.

    The paper has VGG-16, ResNet-50 and ViT-B/16. Other sizes stand in for them, and so do SqueezeNets (plain
    convolutions, as in a VGG) and EfficientNets (skip connections, as in a ResNet).
    """
    name = backbone.removeprefix("timm/")
    return next((key for key, starts in FAMILIES.items() if name.startswith(starts)), None)


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
        Of the ablations, one row an image.
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
    rows = ablated[ablated["table"].isin(["VI", "VII"])]
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


def compare(scores: pd.DataFrame, claims: Sequence[Claim] = CLAIMS) -> pd.DataFrame:
    """Make every comparison that the claims need, image by image.

    The intervals of a claim hold together at 95 % (Bonferroni: of the corrections the one whose intervals are
    what decides). They are over images, not over training seeds. Where an edition has several backbones of a
    family, the first is taken.

    Parameters
    ----------
    scores : DataFrame
        One row an image: backbone, method (or row of an ablation), measure, v, image_id, value.
    claims : sequence of Claim
        The paper's by default.

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
    return pd.DataFrame([row for claim in claims for row in _compared(claim, values, names)])


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


def _compared(claim: Claim, values: Mapping[Cell, pd.Series], names: Mapping[str, str]) -> Iterator:
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
