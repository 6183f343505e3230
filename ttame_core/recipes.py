"""What can be chosen of T-TAME: variants, recipes, trained methods, crops. Needs no torch."""

from dataclasses import dataclass, field
from typing import Any

from ttame_core.errors import TTAMEError, check_kind, check_known, check_number, check_whole

VARIANTS: dict[str, dict[str, Any]] = {
    "proposed": {},
    "no_skip": {"skip": False},
    "no_skip_no_batch_norm": {"skip": False, "batch_norm": False},
    "sigmoid": {"activation": "sigmoid"},
    "two_taps": {"taps": 2},
    "one_tap": {"taps": 1},
    "l_cam_img": {"taps": 1, "branches": False},
    "scaled": {"scaled": True},
    "smooth": {"scaled": True, "smoothing": 1.0},
    "squashed": {"scaled": True, "squashed": True},
    "tied": {"scaled": True, "squashed": True, "tied": True},
    "smooth_tied": {"scaled": True, "smoothing": 1.0, "squashed": True, "tied": True},
    "standardised": {"scaled": True, "squashed": True, "tied": True, "standardised": True},
}
VARIANTS["smooth_standardised"] = VARIANTS["standardised"] | {"smoothing": 1.0}
"""Options of `AttentionMechanism` by name: the rows of Table VI, the rival L-CAM-Img (Gkartzonika
et al., ECCVW 2022), and seven that go beyond the paper."""
ORDERS = ("image", "standardised")
"""``image``: mask, then standardise (Eq. 13, CNN); ``standardised``: the reverse (Eq. 14, ViT)."""
CROP_MODES = ("center", "floor", "pad", "border")
"""How a square is cut out of a resized picture; see `Preprocessing`."""
ACTIVATIONS = ("relu", "sigmoid")
OTHER_CLASSES = ("uniform", "in-batch")
STARTS = ("random", "warm", "zero")
MASKS = ("sigmoid", "min-max", "top")
OBJECTIVES = ("ttame", "rise", "both")
OPTIMIZERS = ("sgd", "adamw")
MODES = ("eval", "train")


@dataclass(frozen=True)
class LossWeights:
    """The four lambdas of Eq. 11 and 17, the same for every backbone of the paper, and two more.

    A value that makes no sense raises a TTAMEError.
    """

    ce: float = 1.5  # lambda 1, cross-entropy of the masked image
    area: float = 2.0  # lambda 2, all that is asked of the maps
    variation: float = 0.005  # lambda 3, smoothness within that
    power: float = 0.3  # lambda 4, exponent of the area term
    released_variation: bool = False  # the released code's term in place of lambda 3's
    q: float = 0.0  # beyond the paper, of `generalized_cross_entropy`: 0 is the cross-entropy
    rise: float = 12.0  # beyond the paper, amortised RISE beside it; on ViT-Tiny, 1 / its variance

    def __post_init__(self) -> None:
        _check_numbers(self, **dict.fromkeys(("ce", "area", "variation", "rise"), (0, 1e6)))
        _check_numbers(self, power=(1e-6, 100), q=(0, 1))
        check_kind("released_variation", self.released_variation, bool, "True or False")


@dataclass(frozen=True)
class Recipe:
    """How to train (Sec. IV-C): as the paper does, or the released code where it is silent.

    A value that makes no sense raises a TTAMEError.
    """

    steps: int = 320_000  # optimiser steps; 8 epochs of ImageNet-1k by 32
    # of all processes together, 2 at least; "auto": the largest that GPUs hold
    batch_size: Any = 32
    max_lr: float = 1e-3  # peak of OneCycleLR
    momentum: float = 0.9  # Nesterov; plain SGD where it is 0; AdamW's first beta
    weight_decay: float = 5e-4  # on weights only, not on biases and batch norm
    other_classes: str = "uniform"  # or "in-batch", as released
    # or "train", as released: dropout on, batch norm drifting, in a copy
    backbone_mode: str = "eval"
    # beyond the paper: "warm", the classifier's class activation map; "zero", a fusion of zeros
    start: str = "random"
    mask: str = "sigmoid"  # beyond the paper: "min-max", scaled as evaluated; "top", its top v %
    objective: str = "ttame"  # the paper's, Eq. 17; or "rise", amortised RISE; or "both"
    masks: int = 3  # amortised RISE alone, for each image: random masks,
    cells: int = 7  # the side of their grids,
    p: float = 0.5  # and the probability that a cell shows
    optimizer: str = "sgd"  # or "adamw", beyond the paper
    loss: LossWeights = field(default_factory=LossWeights)

    def __post_init__(self) -> None:
        choices = {"other_classes": OTHER_CLASSES, "backbone_mode": MODES, "start": STARTS}
        choices |= {"mask": MASKS, "objective": OBJECTIVES, "optimizer": OPTIMIZERS}
        for name, valid in choices.items():
            check_known(name, getattr(self, name), valid)
        # a single mask says nothing beside the mean of an image's masks
        for name, least in (("steps", 1), ("batch_size", 2), ("masks", 2), ("cells", 1)):
            if (value := getattr(self, name)) != "auto" or name != "batch_size":
                check_whole(name, value, least)
                object.__setattr__(self, name, int(value))
        _check_numbers(self, max_lr=(1e-12, 100), momentum=(0, 0.999999), weight_decay=(0, 1))
        _check_numbers(self, p=(1e-6, 0.999999))
        for name in ("masks", "cells", "p") if self.objective == "ttame" else ():
            if (value := getattr(self, name)) != getattr(Recipe, name):
                raise TTAMEError(f"{name} is {value}, of amortised RISE; set objective='rise' too")
        check_kind("loss", self.loss, LossWeights, "tt.LossWeights(ce=1.5, ...)")


def _check_numbers(settings: Any, **ranges: tuple[float, float]) -> None:
    """Raise a TTAMEError unless fields are numbers of their ranges; make plain ones of NumPy's."""
    for name, (least, most) in ranges.items():
        check_number(name, value := getattr(settings, name), least, most)
        if type(value) is not int:  # 1 stays 1: recipes are compared by what is written of them
            object.__setattr__(settings, name, float(value))


@dataclass(frozen=True)
class TrainedMethod:
    """A method that is trained, by what sets it apart from T-TAME as the paper trains it.

    ``settings`` are a variant, fields of a `Recipe`, and of its ``loss`` what differs;
    ``on_tokens`` further ones, and taps, for transformers, or None where it is for CNNs alone.
    """

    kind: str  # "paper", "beyond" it, or "rival"
    settings: dict[str, Any] = field(default_factory=dict)
    on_tokens: dict[str, Any] | None = field(default_factory=dict)


ADAMW = {"optimizer": "adamw", "max_lr": 1e-3}
TRAINED = {
    "t-tame": TrainedMethod("paper"),
    "t-tame-matched": TrainedMethod(
        *("beyond", {"variant": "scaled", "mask": "min-max"}),
        on_tokens={"variant": "smooth", "taps": "spread-norms"},
    ),
    "t-tame-warm-matched": TrainedMethod(
        *("beyond", {"variant": "squashed", "start": "warm", "mask": "min-max"}),
        on_tokens=None,  # a class token's weights, put to the patches, are no good start to match
    ),
    "t-tame-rise": TrainedMethod(
        *("beyond", {"variant": "tied", "objective": "rise", "start": "zero", **ADAMW}),
        on_tokens={"variant": "smooth_tied", "taps": "spread-norms"},
    ),
    "t-tame-top": TrainedMethod(
        *("beyond", {"variant": "standardised", "mask": "top", "start": "warm", **ADAMW}),
        on_tokens={"variant": "smooth_standardised", "taps": "spread-norms"}
        | {"start": "random", "loss": {"q": 0.5}},
    ),
    "l-cam-img": TrainedMethod("rival", {"variant": "l_cam_img"}, None),
}
"""T-TAME, four variants of it that go beyond the paper, and the rival that is trained alike."""
OURS = tuple(name for name, trained in TRAINED.items() if trained.kind != "rival")
"""T-TAME in all its variants."""
