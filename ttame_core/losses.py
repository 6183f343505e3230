"""The training loss (Eq. 11, 15-17) and the draw of the other classes."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ttame_core.errors import TTAMEError

EPSILON = 5e-4
"""Added to E before the power: E ** 0.3 has an infinite slope at 0."""


RELEASED_WEIGHT = 0.01
"""Weight, in all, of the released code's variation term."""


@dataclass(frozen=True)
class LossWeights:
    """The four lambdas of Eq. 11 and 17, the same for every backbone of the paper."""

    ce: float = 1.5  # lambda 1, cross-entropy of the masked image
    area: float = 2.0  # lambda 2, all that is asked of the maps
    variation: float = 0.005  # lambda 3, smoothness within that
    power: float = 0.3  # lambda 4, exponent of the area term
    released_variation: bool = False  # in place of lambda 3's term the one of the released code


@dataclass(frozen=True)
class LossTerms:
    """The loss and its parts, each a scalar tensor; the parts are not yet weighted."""

    total: Tensor
    ce: Tensor
    area: Tensor
    variation: Tensor


def area_loss(maps: Tensor, power: float = 0.3) -> Tensor:
    """Mean of ``(E + 5e-4) ** power`` over all values (Eq. 16).

    Parameters
    ----------
    maps : Tensor
        ``(B, k, h, w)`` in [0, 1].
    power : float
        lambda 4.

    Returns
    -------
    Tensor
        Scalar.
    """
    return ((maps + EPSILON) ** power).mean()


def variation_loss(maps: Tensor) -> Tensor:
    """Half the sum of squared differences between neighbours, over the number of values (Eq. 15).

    Parameters
    ----------
    maps : Tensor
        ``(B, k, h, w)``.

    Returns
    -------
    Tensor
        Scalar.
    """
    vertical = (maps[..., 1:, :] - maps[..., :-1, :]).square().sum()
    horizontal = (maps[..., :, 1:] - maps[..., :, :-1]).square().sum()
    return (vertical + horizontal) / (2 * maps.numel())


def released_variation_loss(maps: Tensor) -> Tensor:
    """Smoothness as the released code has it: summed over a map's pixels, border values added.

    Parameters
    ----------
    maps : Tensor
        ``(B, k, h, w)``.

    Returns
    -------
    Tensor
        Scalar: half the sum of squared differences, plus 0.3 times the sum of the border's values, a map.
    """
    differences = variation_loss(maps) * maps[0, 0].numel()
    rows = maps[..., [0, -1], :].sum((2, 3))
    columns = maps[..., 1:-1, [0, -1]].sum((2, 3))
    return differences + 0.3 * (rows + columns).mean()


def ttame_loss(
    masked_logits: Tensor, truth: Tensor, maps: Tensor, weights: LossWeights | None = None
) -> LossTerms:
    """Compute the loss of Eq. 17.

    Parameters
    ----------
    masked_logits : Tensor
        ``(B, K)``, the classifier's logits for the images masked by the maps of their truth.
    truth : Tensor
        ``(B,)`` int64, model truth.
    maps : Tensor
        ``(B, k, h, w)`` in [0, 1]: Psi, the maps of the truth and of the other classes.
    weights : LossWeights, optional
        The lambdas; the paper's by default.

    Returns
    -------
    LossTerms
        ``l1 * ce + l2 * (area + l3 * variation)`` and its parts.
    """
    weights = weights or LossWeights()
    ce = F.cross_entropy(masked_logits, truth)
    area = area_loss(maps, weights.power)
    if weights.released_variation:
        variation = released_variation_loss(maps)
        total = weights.ce * ce + weights.area * area + RELEASED_WEIGHT * variation
    else:
        variation = variation_loss(maps)
        total = weights.ce * ce + weights.area * (area + weights.variation * variation)
    return LossTerms(total, ce, area, variation)


def sample_other_classes(
    truth: Tensor, num_classes: int, count: int, generator: torch.Generator
) -> Tensor:
    """Draw other classes for each image, uniformly, without replacement, never its own.

    Parameters
    ----------
    truth : Tensor
        ``(B,)`` int64, the class of each image that is not to be drawn.
    num_classes : int
        Classes ``K``.
    count : int
        Classes an image; more than ``K - 1`` means all others.
    generator : torch.Generator
        On the CPU, so that the draw is the same on every device.

    Returns
    -------
    Tensor
        ``(B, min(count, K - 1))`` int64.

    Raises
    ------
    TTAMEError
        If the classifier has a single class.
    """
    if num_classes < 2:
        raise TTAMEError(f"the classifier has {num_classes} class; other classes need at least 2")
    count = min(count, num_classes - 1)
    drawn = torch.rand(len(truth), num_classes - 1, generator=generator).argsort(1)[:, :count]
    drawn = drawn.to(truth.device)
    return drawn + (drawn >= truth[:, None])  # closes the gap at the image's own class


def in_batch_other_classes(truth: Tensor) -> Tensor:
    """Take the truths of the batch's other images as other classes, as the released code does.

    Parameters
    ----------
    truth : Tensor
        ``(B,)`` int64.

    Returns
    -------
    Tensor
        ``(B, B - 1)`` int64; an image whose class another image shares sees it again here.
    """
    count = len(truth)
    shifts = (torch.arange(count)[:, None] + torch.arange(1, count)) % count
    return truth[shifts.to(truth.device)]
