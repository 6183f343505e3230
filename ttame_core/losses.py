"""The training loss (Eq. 11, 15-17), the draw of the other classes, and amortised RISE.

Maps are Psi, ``(B, k, h, w)`` in [0, 1]: each image's map of its model truth, and of other classes.
Each term is a scalar; the parts are not yet weighted.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ttame_core.errors import TTAMEError
from ttame_core.recipes import LossWeights

EPSILON = 5e-4
"""Added to E before the power: E ** 0.3 has an infinite slope at 0."""
RELEASED_WEIGHT = 0.01
"""Weight, in all, of the released code's variation term."""


@dataclass(frozen=True)
class LossTerms:
    """The loss and its parts."""

    total: Tensor
    ce: Tensor
    area: Tensor
    variation: Tensor


def area_loss(maps: Tensor, power: float = 0.3) -> Tensor:
    """Mean of ``(E + 5e-4) ** power`` over all values (Eq. 16); the power is lambda 4."""
    return ((maps + EPSILON) ** power).mean()


def variation_loss(maps: Tensor) -> Tensor:
    """Half the sum of squared differences of neighbours, over the number of values (Eq. 15)."""
    return _squared_differences(maps) / (2 * maps.numel())


def _squared_differences(maps: Tensor) -> Tensor:
    """Sum the squared differences of vertical and horizontal neighbours over all maps."""
    vertical = (maps[..., 1:, :] - maps[..., :-1, :]).square().sum()
    horizontal = (maps[..., :, 1:] - maps[..., :, :-1]).square().sum()
    return vertical + horizontal


def released_variation_loss(maps: Tensor) -> Tensor:
    """Half an image's sum of squared differences, and 0.3 times its squared borders, as released.

    Both are sums over all k maps of an image, so that the term grows with k and the maps' size. A
    border is the four lines at a map's edges; corners, on two of them, count twice.
    """
    lines = (maps[..., 0, :], maps[..., -1, :], maps[..., 0], maps[..., -1])
    borders = sum(line.square().sum() for line in lines)
    # per image, not per map: so the mean over processes with equal shares is that of the batch
    return (_squared_differences(maps) + 0.3 * borders) / (2 * len(maps))


def ttame_loss(
    masked_logits: Tensor, truth: Tensor, maps: Tensor, weights: LossWeights | None = None
) -> LossTerms:
    """Compute the loss of Eq. 17: ``l1 * ce + l2 * (area + l3 * variation)``; ce see ``q``.

    Parameters
    ----------
    masked_logits : Tensor
        ``(B, K)``, the classifier's logits for the images masked by the maps of their truth.
    truth : Tensor
        ``(B,)`` int64, model truth.
    maps : Tensor
        ``(B, k, h, w)`` in [0, 1]: Psi.
    weights : LossWeights, optional
        The lambdas; the paper's by default.
    """
    weights = weights or LossWeights()
    ce = generalized_cross_entropy(masked_logits, truth, weights.q)
    area = area_loss(maps, weights.power)
    if weights.released_variation:
        variation = released_variation_loss(maps)
        total = weights.ce * ce + weights.area * area + RELEASED_WEIGHT * variation
    else:
        variation = variation_loss(maps)
        total = weights.ce * ce + weights.area * (area + weights.variation * variation)
    return LossTerms(total, ce, area, variation)


def generalized_cross_entropy(logits: Tensor, truth: Tensor, q: float) -> Tensor:
    """Mean of ``(1 - f_y ** q) / q`` over ``(B, K)`` logits: Zhang & Sabuncu, NeurIPS 2018.

    For a q of 1 that is the confidence lost, for 0 its limit, the cross-entropy.
    """
    kept = -F.cross_entropy(logits, truth, reduction="none")  # the logarithm of f_y
    return (1 - (q * kept).exp()).mean() / q if q else F.cross_entropy(logits, truth)


def rise_loss(shares: Tensor, maps: Tensor, masks: Tensor) -> tuple[Tensor, Tensor]:
    """Regress the confidence that random masks leave on the map under them: amortised RISE.

    ``f_y(m * I) / f_y(I) ~ b + mean(E_y * m)``, squared error; beyond the paper. RISE (Petsiuk et
    al., BMVC 2018) averages masks by confidence, anew for each image; here a mechanism learns to
    predict the outcome, from all images. The map is in shares of the confidence: where masks act
    linearly, what a pixel brings, times the number of pixels.

    Parameters
    ----------
    shares : Tensor
        ``(B, M)``, the confidence under each mask over that of the whole image.
    maps : Tensor
        ``(B, H, W)``, E_y before any sigmoid.
    masks : Tensor
        ``(B, M, H, W)`` in [0, 1], at least two for each image.

    Returns
    -------
    tuple of Tensor and Tensor
        Scalars: the loss, and what it would be of constant maps, the variance of an image's shares.
    """
    under = torch.bmm(masks.flatten(2), maps.flatten(1)[..., None])[..., 0]  # (B, M)
    under = under / maps[0].numel()
    # b is each image's own, in closed form: on ViT-Tiny the mean share differs as much between
    # images as the share does between masks (both 0.29), so three masks an image tell a third more
    # than with one b for all; and no process has to ask another. With it, m is as good as m - p.
    # There is no factor c: the map's own scale is one, and of a learnt one the sign would be open
    shares = shares - shares.mean(1, keepdim=True)
    under = under - under.mean(1, keepdim=True)
    return (shares - under).square().mean(), shares.square().mean()


def sample_other_classes(
    truth: Tensor, num_classes: int, count: int, generator: torch.Generator
) -> Tensor:
    """Draw other classes for each image, uniformly, without replacement, never its own.

    ``truth`` is ``(B,)`` int64; a ``count`` of more than ``K - 1`` means all others. The generator
    is the CPU's, so that the draw is the same on every device. Returns ``(B, min(count, K - 1))``
    int64; raises a TTAMEError for a classifier of a single class.
    """
    if num_classes < 2:
        raise TTAMEError(f"the classifier has {num_classes} class; other classes need at least 2")
    order = torch.rand(len(truth), num_classes - 1, generator=generator).argsort(1)
    drawn = order[:, : min(count, num_classes - 1)].to(truth.device)
    return drawn + (drawn >= truth[:, None])  # closes the gap at the image's own class


def in_batch_other_classes(truth: Tensor) -> Tensor:
    """Take the truths of a batch's other images, ``(B,)`` to ``(B, B - 1)``, as released.

    An image whose class another image shares sees it again.
    """
    count = len(truth)
    shifts = (torch.arange(count)[:, None] + torch.arange(1, count)) % count
    return truth[shifts.to(truth.device)]
