"""The measures: what each does to an image, and how it reads the answer (Sec. IV-B)."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from ttame_core.errors import TTAMEError
from ttame_core.metrics.adapters import direction_of, of_quantus

Percentages = Mapping[str, Sequence[float]]
"""Measures by name with their percentages v."""


@dataclass(frozen=True)
class Measure:
    """One measure: how it is made, and how it is told.

    ``read`` takes the confidences ``(B,)`` of the image as it is and once changed, in [0, 1]; where
    no classifier is asked, maps ``(B, H, W)`` and the object's pixels ``(B, H, W)`` bool. It gives
    scores ``(B,)``, 0 to 100.
    """

    name: str  # in tables of scores
    label: str  # in words; {v} stands for the percentage
    direction: int = 0  # 1 where more is better, -1 where less is, 0 where neither is
    perturbation: str = ""  # see `perturbations.perturb`; empty where no classifier is asked
    read: Callable[[Tensor, Tensor], Tensor] | None = None
    percentages: tuple[float, ...] = (100,)  # the v that are asked for by default
    title: str = ""  # above its curve over v, where it is drawn as one
    axis: str = ""  # below that curve
    average: str = ""  # the name of its average over v, where that is told (Tables IV, V)

    def arrowed(self, text: str) -> str:
        """Put an arrow to the better side behind a text."""
        return text + {1: " ↑", -1: " ↓", 0: ""}[self.direction]

    @property
    def averaged(self) -> "Measure":
        """The measure that its average over v is."""
        name, label = f"mean {self.name}", self.average
        return replace(self, name=name, label=label, perturbation="", read=None)


def average_drop(full: Tensor, masked: Tensor) -> Tensor:
    """Drop of each image's confidence in the model truth once masked, in per cent; its mean: AD."""
    return 100 * (full - masked).clamp(min=0) / full


def increase_in_confidence(full: Tensor, masked: Tensor) -> Tensor:
    """100 where an image's confidence rises once it is masked, 0 elsewhere; its mean is IC."""
    return 100.0 * (masked > full)


def percent(full: Tensor, changed: Tensor) -> Tensor:
    """Confidence of each image once changed, in per cent (Eq. 22, 23, and of the curves)."""
    return 100 * changed


def pointing_game(maps: Tensor, truth: Tensor) -> Tensor:
    """Share of the pixels at a map's maximum that are on the object, in per cent.

    The pointing game of Zhang et al., IJCV 2018; maps and truth are ``(B, H, W)``, scores ``(B,)``.
    """
    # all of the maximum, not the first pixel of it: a constant map scores what a blind guess would
    at_maximum = maps == maps.amax((1, 2), keepdim=True)
    return 100 * (at_maximum & truth).sum((1, 2)) / at_maximum.sum((1, 2))


def energy_inside(maps: Tensor, truth: Tensor) -> Tensor:
    """Share of a map's sum that lies on the object, in per cent; NaN for a map of zeros.

    The energy-based pointing game of Wang et al., CVPRW 2020; as `pointing_game`.
    """
    return 100 * (maps * truth).sum((1, 2)) / maps.sum((1, 2))


TENTHS, WHOLE = tuple(range(10, 100, 10)), tuple(range(0, 101, 10))
_MADE = (
    Measure("ad", "AD({v})", -1, "masked", average_drop, (100, 50, 15)),
    Measure("ic", "IC({v})", 1, "masked", increase_in_confidence, (100, 50, 15)),
    Measure("pointing", "pointing game", 1, read=pointing_game),
    Measure("energy", "energy inside", 1, read=energy_inside),
    Measure(
        *("morf", "MoRF({v})", -1, "morf", percent, TENTHS),
        *("ROAD, most relevant first", "pixels imputed (%)", "ROAD, MoRF"),
    ),
    Measure(
        *("lerf", "LeRF({v})", 1, "lerf", percent, TENTHS),
        *("ROAD, least relevant first", "pixels imputed (%)", "ROAD, LeRF"),
    ),
    Measure(
        *("insertion", "insertion({v})", 1, "insertion", percent, WHOLE),
        *("insertion", "pixels shown (%)", "insertion"),
    ),
    Measure(
        *("deletion", "deletion({v})", -1, "deletion", percent, WHOLE),
        *("deletion", "pixels deleted (%)", "deletion"),
    ),
    # told beside the others, no contest
    Measure("confidence", "confidence"),
    Measure("coverage", "coverage"),
    Measure("rank correlation", "rank correlation"),
    Measure("ssim", "SSIM"),
)
MEASURES = {m.name: m for m in (*_MADE, *(m.averaged for m in _MADE if m.average))}
"""Every measure by name, those of curves by their averages too."""


def _asked(*perturbations: str) -> Percentages:
    """Names of the measures that these perturbations make, with their percentages v."""
    return {m.name: m.percentages for m in _MADE if m.perturbation in perturbations}


MASKING = _asked("masked")
"""AD and IC, as Tables II and III have them."""
ROAD = _asked("morf", "lerf")
"""MoRF and LeRF, of whose curves Tables IV and V have the averages over v."""
CURVES = _asked("insertion", "deletion")
"""Insertion and deletion (Petsiuk et al., BMVC 2018), of whose curves the averages are told."""
LOCALISATION = tuple(m.name for m in _MADE if m.read and not m.perturbation)
"""Measures that know the object's pixels."""
AVERAGES = tuple(m.averaged.name for m in _MADE if m.average)
"""Averages of curves over v."""


def measure_label(name: Any, v: Any = 0) -> str:
    """Say a measure in words, with an arrow to the better side; one that is unknown by its name."""
    measure = MEASURES.get(name, Measure(name, name, direction(name)))
    return measure.arrowed(measure.label.format(v=f"{v:g}"))


def direction(name: Any) -> int:
    """1 where more of a measure is better, -1 where less is, 0 where neither is, or none says."""
    if of_quantus(name):
        return direction_of(name)
    return MEASURES[name].direction if name in MEASURES else 0


def check_maps(maps: Tensor, count: int, of: str = "the method") -> None:
    """Raise a TTAMEError unless maps are ``(B, h, w)`` floats in [0, 1], one an image.

    Values that are not finite may be among them: such maps are told as invalid.
    """
    if not isinstance(maps, Tensor) or not maps.is_floating_point():
        found = maps.dtype if isinstance(maps, Tensor) else type(maps).__name__
        raise TTAMEError(f"the maps of {of} are {found}; expected a tensor of floats")
    if maps.ndim != 3 or len(maps) != count or not maps.numel():
        raise TTAMEError(f"{of} gives maps {tuple(maps.shape)}; expected ({count}, h, w)")
    finite = maps[maps.isfinite()]
    if len(finite) and (finite.min() < -1e-6 or finite.max() > 1 + 1e-6):
        raise TTAMEError(
            f"the maps of {of} range from {finite.min():.3g} to {finite.max():.3g}; expected [0, 1]: scale each, as "
            "tt.minmax does"
        )


def invalid_maps(maps: Tensor, allow_constant: bool = False) -> Tensor:
    """Find maps that explain nothing: not finite, outside [0, 1], or the same value everywhere.

    Takes ``(B, h, w)`` and gives ``(B,)`` bool. ``allow_constant`` lets maps pass that are the same
    everywhere: the all-ones control.
    """
    low, high = maps.amin((1, 2)), maps.amax((1, 2))
    outside = (low < -1e-3) | (high > 1 + 1e-3)  # more than rounding
    constant = (low == high) & (not allow_constant)
    return ~torch.isfinite(maps).all(2).all(1) | outside | constant
