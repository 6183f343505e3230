"""The paper's twelve claims as data, and what the scores of an edition say to each: a verdict, computed."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pandas as pd
from statsmodels.stats.multitest import multipletests

from ttame_core.statistics import paired_p
from ttame_core.tables import LOWER_IS_BETTER

VERDICTS = ("confirmed", "not confirmed", "undecided at this sample size", "not applicable here")
LEVEL = 0.05
RIVALS = (
    *("t-tame", "l-cam-img", "grad-cam", "grad-cam++", "score-cam", "ablation-cam", "rise", "iia"),
    "transformer-lrp",
)
"""The methods of the paper's tables."""
ABLATION = "ablation: "  # before the name of a row of Tables VI and VII
FAMILIES = {
    "vgg": ("vgg", "squeezenet"),
    "resnet": ("resnet", "resnext", "efficientnet"),
    "vit": ("vit", "deit"),
}
"""Members of a family by what their names hold; the paper's are VGG-16, ResNet-50 and ViT-B/16."""


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
    """

    family: str
    method: str
    measure: str
    v: float = 0


@dataclass(frozen=True)
class Comparison:
    """One comparison that a claim needs: the first cell is less (or more) than the second, or a number.

    Attributes
    ----------
    left : Cell
        First cell.
    right : Cell or float or tuple of two Cells
        What it is compared with; two cells: the difference of the first from ``minus`` is compared with theirs.
    less : bool
        Whether the claim says less, not more.
    minus : Cell, optional
        Subtracted from ``left`` first.
    exact : bool
        Whether the values are counts, which need no test.
    """

    left: Cell
    right: "Cell | float | tuple[Cell, Cell]"
    less: bool
    minus: Cell | None = None
    exact: bool = False

    @property
    def families(self) -> list[str]:
        """Families of all its cells."""
        right = self.right if isinstance(self.right, tuple) else (self.right,)
        return [cell.family for cell in (self.left, *right) if isinstance(cell, Cell)]


@dataclass(frozen=True)
class Claim:
    """A claim of the paper.

    Attributes
    ----------
    number : int
        As in the list of the book.
    text : str
        In words.
    best : tuple
        ``(family, method, measure, v, but)``: the method is better than all others there, those in ``but`` apart.
    tests : tuple of Comparison
        Further comparisons.
    exceptions : int
        So many cells of ``best`` may fail.
    """

    number: int
    text: str
    best: tuple[tuple[str, str, str, float, tuple[str, ...]], ...] = ()
    tests: tuple[Comparison, ...] = ()
    exceptions: int = 0


def _best(family: str, method: str, cells: Sequence[tuple[str, float]], but: tuple[str, ...] = ()):
    return tuple((family, method, measure, v, but) for measure, v in cells)


def _cells(*vs: float) -> list[tuple[str, float]]:
    return [(measure, v) for measure in ("ad", "ic") for v in vs]


def _better(family: str, first: str, second: str, v: float) -> tuple[Comparison, Comparison]:
    """AD is less and IC more for the first."""
    return (
        Comparison(Cell(family, first, "ad", v), Cell(family, second, "ad", v), True),
        Comparison(Cell(family, first, "ic", v), Cell(family, second, "ic", v), False),
    )


def _harm(worse: str, milder: str) -> Comparison:
    """Mismatched masking adds more AD(50) in one family than in another."""
    pairs = [
        (Cell(f, f"{ABLATION}mismatched", "ad", 50), Cell(f, f"{ABLATION}matched", "ad", 50))
        for f in (worse, milder)
    ]
    return Comparison(pairs[0][0], pairs[1], False, minus=pairs[0][1])


ROAD_HIGH = [("morf", v) for v in (50, 60, 70, 80, 90)]
CLAIMS = (
    Claim(
        1,
        "VGG-16: T-TAME is best in AD and IC at 50 % and 15 %; RISE is best at 100 %.",
        (*_best("vgg", "t-tame", _cells(50, 15)), *_best("vgg", "rise", _cells(100))),
    ),
    Claim(
        2,
        "VGG-16, ROAD: T-TAME has the best MoRF; RISE the best LeRF, T-TAME the second.",
        (
            *_best("vgg", "t-tame", [("mean morf", 0)]),
            *_best("vgg", "rise", [("mean lerf", 0)]),
            *_best("vgg", "t-tame", [("mean lerf", 0)], ("rise",)),
        ),
    ),
    Claim(
        3,
        "ResNet-50: T-TAME is best in all AD and IC cells but one, which Score-CAM wins.",
        _best("resnet", "t-tame", _cells(100, 50, 15)),
        exceptions=1,
    ),
    Claim(
        4,
        "ResNet-50, ROAD: RISE has the best MoRF average, T-TAME is better from 50 % on; RISE has the best LeRF.",
        (
            *_best("resnet", "rise", [("mean morf", 0), ("mean lerf", 0)]),
            *_best("resnet", "t-tame", ROAD_HIGH),
        ),
    ),
    Claim(
        5,
        "ViT-B/16: T-TAME is best in all AD and IC cells.",
        _best("vit", "t-tame", _cells(100, 50, 15)),
    ),
    Claim(
        6,
        "ViT-B/16, ROAD: T-TAME has the best MoRF except at 10 %, far ahead of Transformer LRP from 30 to 70 %; in LeRF it "
        "comes second to RISE.",
        (
            *_best("vit", "t-tame", [("morf", v) for v in range(20, 100, 10)]),
            *_best("vit", "rise", [("mean lerf", 0)]),
            *_best("vit", "t-tame", [("mean lerf", 0)], ("rise",)),
        ),
    ),
    Claim(
        7,
        "CNNs: two layers beat one.",
        tests=tuple(
            t
            for f in ("vgg", "resnet")
            for v in (50, 15)
            for t in _better(f, f"{ABLATION}two layers", f"{ABLATION}one layer", v)
        ),
    ),
    Claim(
        8,
        "Without skip connection it is worse: at 50 % and 15 % for VGG-16 and ResNet-50, at 15 % for ViT-B/16.",
        tests=tuple(
            t
            for f, vs in (("vgg", (50, 15)), ("resnet", (50, 15)), ("vit", (15,)))
            for v in vs
            for t in _better(f, f"{ABLATION}proposed", f"{ABLATION}no skip", v)
        ),
    ),
    Claim(
        9,
        "Mismatched masking hurts ResNet-50 far more than VGG-16, and VGG-16 more than ViT-B/16.",
        tests=(_harm("resnet", "vgg"), _harm("vgg", "vit")),
    ),
    Claim(
        10,
        "Randomising the backbone, or the attention mechanism, changes the map drastically (rank correlation below 0.5).",
        tests=tuple(
            Comparison(Cell(f, part, "rank correlation"), 0.5, True)
            for f in FAMILIES
            for part in ("whole backbone", "whole attention")
        ),
    ),
    Claim(
        11,
        "T-TAME needs one forward pass; RISE orders of magnitude more (up to 8000 in the paper; here: more than 100).",
        tests=tuple(
            test
            for f in FAMILIES
            for test in (
                Comparison(Cell(f, "t-tame", "forwards"), 1.0001, True, exact=True),
                Comparison(Cell(f, "rise", "forwards"), 100.0, False, exact=True),
            )
        ),
    ),
    Claim(
        12,
        "Maps of the ViT cover larger regions than those of the CNNs.",
        tests=tuple(
            Comparison(
                Cell("vit", "t-tame", "coverage", 100), Cell(f, "t-tame", "coverage", 100), False
            )
            for f in ("vgg", "resnet")
        ),
    ),
)


def family(backbone: str) -> str | None:
    """Name the family a backbone belongs to, by its name; None where it belongs to none of the paper's."""
    for name, parts in FAMILIES.items():
        if any(part in backbone for part in parts):
            return name
    return None


def evidence(
    scores: pd.DataFrame, ablated: pd.DataFrame, sanity: pd.DataFrame, costs: pd.DataFrame
) -> pd.DataFrame:
    """Bring together what the claims are judged by.

    Parameters
    ----------
    scores : DataFrame
        AD, IC, ROAD with its averages, coverage: one row an image.
    ablated : DataFrame
        Of Tables VI and VII, one row an image. A VGG counts with the paper's max-pool taps.
    sanity : DataFrame
        Rank correlations, one row an image.
    costs : DataFrame
        One row a method.

    Returns
    -------
    DataFrame
        Columns backbone, method, measure, v, image_id, value.
    """
    rows = ablated[ablated["table"].isin(["VI", "VII"])]
    rows = rows.assign(method=ABLATION + rows["method"].str.replace(", max-pool taps", ""))
    counted = costs.assign(measure="forwards", v=0, image_id="cost", value=costs["forwards"])
    columns = ["backbone", "method", "measure", "v", "image_id", "value"]
    return pd.concat([table[columns] for table in (scores, rows, sanity, counted)])


def verdicts(scores: pd.DataFrame, claims: Sequence[Claim] = CLAIMS) -> pd.DataFrame:
    """Judge claims by the scores of an edition.

    A claim is confirmed where every comparison it needs comes out its way, not confirmed where one comes
    out the other way, undecided otherwise; each at 5 % by paired t-tests, corrected by Holm within the claim. Where an edition has
    several backbones of a family the first is taken.

    Parameters
    ----------
    scores : DataFrame
        One row an image: backbone, method (or row of an ablation), measure, v, image_id, value.
    claims : sequence of Claim
        The paper's by default.

    Returns
    -------
    DataFrame
        A row a claim: number, claim, verdict, backbones, and how many comparisons came out each way.
    """
    values = _per_image(scores)
    names = dict(reversed([(family(b), b) for b in scores["backbone"].unique() if family(b)]))
    return pd.DataFrame([_judge(claim, values, names) for claim in claims])


Values = Mapping[tuple[str, str, str, float], pd.Series]


def _per_image(scores: pd.DataFrame) -> Values:
    kept = scores[scores["measure"] != "invalid"].dropna(subset="value")
    values: dict[tuple[str, str, str, float], pd.Series] = {}
    first = {family(b): b for b in reversed(list(kept["backbone"].unique()))}
    kept = kept[kept["backbone"].isin(first.values())]
    keys = ["backbone", "method", "measure", "v"]
    for (backbone, method, measure, v), group in kept.groupby(keys, sort=False):  # type: ignore[misc]
        place = (family(str(backbone)) or "", str(method), str(measure), float(v))  # type: ignore[arg-type]
        values[place] = group.groupby("image_id")["value"].mean()
    return values


def _judge(claim: Claim, values: Values, names: Mapping[str, str]) -> dict[str, object]:
    groups = [_against_all(cell, values) for cell in claim.best]
    groups += [_outcome([test], values) for test in claim.tests]
    found = groups if all(groups) else []  # a claim of which a part is missing is not judged
    families = dict.fromkeys(
        [cell[0] for cell in claim.best] + [f for test in claim.tests for f in test.families]
    )
    row = {
        "number": claim.number,
        "claim": claim.text,
        "verdict": VERDICTS[3],
        "backbones": ", ".join(names[f] for f in families if f in names),
    }
    counts = dict.fromkeys(("as claimed", "otherwise", "undecided"), 0)
    if found:
        corrected = iter(multipletests([p for g in found for _, p in g], method="holm")[1])
        results = [[_side(mean, next(corrected)) for mean, _ in g] for g in found]
        states = [-1 if -1 in r else 0 if 0 in r else 1 for r in results]
        flat = [side for r in results for side in r]
        counts = dict(zip(counts, (flat.count(1), flat.count(-1), flat.count(0)), strict=True))
        against, open_ = states.count(-1), states.count(0)
        if against > claim.exceptions:
            row["verdict"] = VERDICTS[1]
        else:
            settled = against + open_ <= claim.exceptions
            row["verdict"] = VERDICTS[0] if settled else VERDICTS[2]
    return row | counts


def _side(mean: float, p: float) -> int:
    return 0 if p >= LEVEL else 1 if mean > 0 else -1


def _against_all(
    cell: tuple[str, str, str, float, tuple[str, ...]], values: Values
) -> list[tuple[float, float]]:
    group, method, measure, v, but = cell
    rivals = [
        other
        for f, other, m, at in values
        if (f, m, at) == (group, measure, v) and other in RIVALS and other not in (method, *but)
    ]
    less = measure in LOWER_IS_BETTER
    left = Cell(group, method, measure, v)
    return _outcome([Comparison(left, Cell(group, r, measure, v), less) for r in rivals], values)


def _outcome(tests: Sequence[Comparison], values: Values) -> list[tuple[float, float]]:
    """Mean difference, positive where it is as claimed, and p, of each test; none where values lack."""
    found = []
    for test in tests:
        differences = _differences(test, values)
        if differences is None or not len(differences):
            return []
        signed = (-differences if test.less else differences).to_numpy()
        found.append((float(signed.mean()), 0.0 if test.exact else paired_p(signed)))
    return found


def _differences(test: Comparison, values: Values) -> pd.Series | None:
    def get(cell: Cell) -> pd.Series | None:
        return values.get((cell.family, cell.method, cell.measure, cell.v))

    left = get(test.left)
    if left is not None and test.minus is not None:
        subtracted = get(test.minus)
        left = None if subtracted is None else left - subtracted
    if isinstance(test.right, float):
        return None if left is None else left - test.right
    if isinstance(test.right, tuple):
        first, second = (get(cell) for cell in test.right)
        right = None if first is None or second is None else first - second
    else:
        right = get(test.right)
    return None if left is None or right is None else (left - right).dropna()
