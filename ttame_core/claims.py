"""The paper's twelve claims as data: text, cells compared, direction."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ttame_core.tables import LOWER_IS_BETTER

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
        "Randomising the backbone, or the attention mechanism, changes the map drastically (here: mean rank correlation below 0.5).",
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
