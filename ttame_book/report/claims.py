"""The paper's twelve claims as data: text, cells compared, direction."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ttame_book.studies.ablations import LABELS, MATCHED, MISMATCHED, Shown
from ttame_book.studies.randomisation import WHOLE_ATTENTION, WHOLE_BACKBONE
from ttame_core.metrics.measures import MEASURES, direction

VERDICTS = ("confirmed", "not confirmed", "undecided at this sample size", "not applicable here")
LEVEL = 0.05  # of all comparisons of a claim together
FAR = 5.0  # per cent; the paper says "large" and "much greater"
RIVALS = (
    *("t-tame", "l-cam-img", "grad-cam", "grad-cam++", "score-cam", "ablation-cam", "rise", "iia"),
    "transformer-lrp",
)
"""The methods of the paper's tables."""
FAMILIES = {"vgg": "VGG-16", "resnet": "ResNet-50", "vit": "ViT-B/16"}
"""The paper's classifiers; an edition says which backbones stand for them."""


@dataclass(frozen=True)
class Cell:
    """Per-image values of one method on one family of backbones."""

    family: str  # one of FAMILIES
    method: str  # or row of an ablation, or what is randomised
    measure: str
    v: float = 0  # percentage; 0 for averages
    minus: str = ""  # another method, whose values are subtracted
    table: str = ""  # of the ablations; empty for what is no ablation


@dataclass(frozen=True)
class Comparison:
    """What a claim says of two sides: left minus right is less, or more, than a bound."""

    left: Cell
    right: Cell | None  # without it the left itself is compared with the bound
    less: bool
    bound: float = 0
    exact: bool = False  # counts, which need no interval; the bound itself will do
    optional: bool = False  # left out where an edition has no right side


@dataclass(frozen=True)
class Claim:
    """A claim of the paper, by its number in the book's list."""

    number: int
    text: str
    tests: tuple[Comparison, ...]  # all must come out as claimed
    mixed: tuple[Comparison, ...] = ()  # one at least must come out one way, and one the other
    exception: str | None = None  # the method that may be better in one of the tests
    title: str = ""  # the text in short, for figures


Places = Sequence[tuple[str, float]]
"""Measures and percentages."""


def _masked(*vs: float) -> Places:
    return [(measure, v) for measure in ("ad", "ic") for v in vs]


def _curve(measure: str, first: int, last: int) -> Places:
    return [(measure, v) for v in range(first, last + 1, 10)]


def _better(
    family: str,
    first: str,
    second: str,
    places: Places,
    by: float = 0,
    optional: bool = False,
    table: str = "",
) -> Iterator[Comparison]:
    """One method is better than another in every place, by more than so much."""
    for measure, v in places:
        left, right = (Cell(family, method, measure, v, table=table) for method in (first, second))
        less = direction(measure) < 0
        yield Comparison(left, right, less, -by if less else by, optional=optional)


def _best(family: str, method: str, places: Places, but: str = "") -> Iterator[Comparison]:
    """A method is better than all others, one perhaps apart, in every place."""
    for rival in RIVALS:
        if rival not in (method, but):
            yield from _better(family, method, rival, places, optional=True)


def _parts(families: Sequence[str], first: str, second: str, *vs: float) -> Iterator[Comparison]:
    """One variant in Table VI is better than another."""
    rows = LABELS[first], LABELS[second]
    for name in families:
        yield from _better(name, *rows, _masked(*vs), table=Shown.PARTS)


def _harm(worse: str, milder: str, by: float) -> Comparison:
    """Mismatched masking adds more AD(50) in one family than in another, by more than so much."""
    left, right = (
        Cell(f, MISMATCHED, "ad", 50, minus=MATCHED, table=Shown.ORDERS) for f in (worse, milder)
    )
    return Comparison(left, right, False, by)


MORF, LERF = ([(MEASURES[name].averaged.name, 0.0)] for name in ("morf", "lerf"))
COVERED, CNNS = ("t-tame", "coverage", 100.0), ("vgg", "resnet")
CLAIMS = (
    Claim(
        1,
        "VGG-16: T-TAME is best in AD and IC at 50 % and 15 %; RISE is best at 100 %.",
        (*_best("vgg", "t-tame", _masked(50, 15)), *_best("vgg", "rise", _masked(100))),
        title="VGG-16: best in AD and IC",
    ),
    Claim(
        2,
        "VGG-16, ROAD: T-TAME has the best MoRF; RISE the best LeRF, T-TAME the second.",
        (
            *_best("vgg", "t-tame", MORF),
            *_best("vgg", "rise", LERF),
            *_best("vgg", "t-tame", LERF, but="rise"),
        ),
        title="VGG-16: ROAD, best or second",
    ),
    Claim(
        3,
        "ResNet-50: T-TAME is best in all AD and IC cells but one, where it is second to Score-CAM.",
        tuple(_best("resnet", "t-tame", _masked(100, 50, 15))),
        exception="score-cam",
        title="ResNet-50: best in AD and IC",
    ),
    Claim(
        4,
        "ResNet-50, ROAD: RISE has the best MoRF average, T-TAME is better than RISE from 50 % on; RISE has the best LeRF.",
        (
            *_best("resnet", "rise", [*MORF, *LERF]),
            *_better("resnet", "t-tame", "rise", _curve("morf", 50, 90)),
        ),
        title="ResNet-50: ROAD, against RISE",
    ),
    Claim(
        5,
        "ViT-B/16: T-TAME is best in all AD and IC cells.",
        tuple(_best("vit", "t-tame", _masked(100, 50, 15))),
        title="ViT-B/16: best in AD and IC",
    ),
    Claim(
        6,
        "ViT-B/16, ROAD: T-TAME has the best MoRF except at 10 %, far ahead of Transformer LRP from 30 to 70 % (by more "
        "than 5 points); in LeRF it comes second to RISE, and is ahead of it at 80 and 90 %.",
        (
            *_best("vit", "t-tame", _curve("morf", 20, 90)),
            *_better("vit", "t-tame", "transformer-lrp", _curve("morf", 30, 70), FAR),
            *_best("vit", "rise", LERF),
            *_best("vit", "t-tame", LERF, but="rise"),
            *_better("vit", "t-tame", "rise", _curve("lerf", 80, 90)),
        ),
        title="ViT-B/16: ROAD, best or second",
    ),
    Claim(
        7,
        "CNNs: two layers beat one in all AD and IC cells; three against two is mixed.",
        tuple(_parts(CNNS, "two_taps", "one_tap", 100, 50, 15)),
        tuple(_parts(CNNS, "proposed", "two_taps", 100, 50, 15)),
        title="Two layers beat one; three: mixed",
    ),
    Claim(
        8,
        "Without skip connection it is worse: at 50 % and 15 % for VGG-16 and ResNet-50, at 15 % for ViT-B/16.",
        (*_parts(CNNS, "proposed", "no_skip", 50, 15), *_parts(["vit"], "proposed", "no_skip", 15)),
        title="Worse without skip connection",
    ),
    Claim(
        9,
        "Mismatched masking hurts ResNet-50 far more than VGG-16 (adds 5 points more of AD(50)), and VGG-16 more than ViT-B/16.",
        (_harm("resnet", "vgg", FAR), _harm("vgg", "vit", 0)),
        title="Mismatched masks: ResNet suffers most",
    ),
    Claim(
        10,
        "Randomising the backbone, or the attention mechanism, changes the map drastically (here: mean rank correlation below 0.5).",
        tuple(
            Comparison(Cell(f, part, "rank correlation"), None, True, 0.5)
            for f in FAMILIES
            for part in (WHOLE_BACKBONE, WHOLE_ATTENTION)
        ),
        title="Random weights change the map",
    ),
    Claim(
        11,
        "T-TAME needs one forward pass; RISE orders of magnitude more (up to 8,000 in the paper; here: at least 100).",
        tuple(
            Comparison(Cell(f, method, "forwards"), None, less, bound, exact=True)
            for f in FAMILIES
            for method, less, bound in (("t-tame", True, 1), ("rise", False, 100))
        ),
        title="One forward pass; RISE: many",
    ),
    Claim(
        12,
        "Maps of the ViT cover larger regions than those of the CNNs.",
        tuple(Comparison(Cell("vit", *COVERED), Cell(cnn, *COVERED), False) for cnn in CNNS),
        title="A ViT's maps cover more",
    ),
)
