"""The attention mechanism: feature branches and the fusion of the needed classes only."""

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.transforms.functional import gaussian_blur

from ttame_core.errors import TTAMEError, check_kind, check_known, check_number, check_whole
from ttame_core.masking import upsample
from ttame_core.recipes import ACTIVATIONS


class FeatureBranch(nn.Module):
    """1x1 convolution, batch norm, skip, activation: ``L_i -> A_i`` at its native size.

    Skip connection and batch norm can be left out; the activation is of `ACTIVATIONS`.
    """

    def __init__(
        self, channels: int, skip: bool = True, batch_norm: bool = True, activation: str = "relu"
    ):
        super().__init__()
        check_known("activation", activation, ACTIVATIONS)
        self.conv = nn.Conv2d(channels, channels, kernel_size=1)
        self.norm = nn.BatchNorm2d(channels) if batch_norm else nn.Identity()
        self.skip = skip
        self.activation = nn.ReLU(inplace=True) if activation == "relu" else nn.Sigmoid()

    def forward(self, features: Tensor) -> Tensor:
        if features.is_cpu:  # all pixels at once: as a convolution, weights are read anew an image
            pixels, kernel = features.permute(0, 2, 3, 1), self.conv.weight.flatten(1)
            convolved = F.linear(pixels, kernel, self.conv.bias).permute(0, 3, 1, 2)
        else:
            convolved = self.conv(features)
        attention = self.norm(convolved)  # (B, C_i, h_i, w_i)
        return self.activation(attention.add_(features) if self.skip else attention)


class AttentionMechanism(nn.Module):
    """Feature branches and their fusion into one explanation map a class (Sec. III-B).

    Bilinear upsampling acts on each channel alone and the 1x1 fusion on each pixel alone, so the
    two commute: every branch is fused at its own size, for the classes asked for, and only those
    maps are upsampled and added. The concatenated tensor of the paper's figure is never built.

    Parameters
    ----------
    channels : sequence of int
        Channels ``C_i`` of the feature maps, earliest tap first.
    num_classes : int
        Classes ``K`` of the classifier.
    head : Tensor, optional
        The weights ``(K, C_head)`` of the classifier's head, for rows that are tied to it.
    skip, batch_norm, activation
        Options of every `FeatureBranch`.
    taps : int, optional
        Use the last so many feature maps only ("two layers", "one layer"); all by default.
    branches : bool
        Whether there are feature branches at all, or the taps are fused as they are.
    scaled : bool
        Beyond the paper: feature maps are divided by a number a tap, see `measure_scales`.
    smoothing : float
        Beyond the paper: standard deviation, in cells, of a Gaussian that blurs the maps.
    squashed : bool
        Beyond the paper: an explainer's maps keep the sigmoid that they are trained with; their
        order is the same, their middle values are larger.
    standardised : bool
        Beyond the paper: each map is brought to a mean of 1 and a standard deviation of 1.5 before
        the sigmoid, which can then neither saturate nor put a map's top at one value.
    tallest : int, optional
        Maps of more cells a side than this are computed with so many, as the released ones are.
    tied : bool
        Beyond the paper: a class's fusion row is its row of `tied_rows` times a matrix ``(C_head +
        1, C_i)`` for each tap, which all classes share. What is learnt from one class moves the
        maps of all, and the number of parameters does not depend on K.

    Raises
    ------
    TTAMEError
        For options that make no sense, or rows tied to no head.
    """

    def __init__(
        self,
        channels: Sequence[int],
        num_classes: int,
        head: Tensor | None = None,
        *,
        skip: bool = True,
        batch_norm: bool = True,
        activation: str = "relu",
        taps: int | None = None,
        branches: bool = True,
        scaled: bool = False,
        smoothing: float = 0.0,
        squashed: bool = False,
        tallest: int | None = None,
        tied: bool = False,
        standardised: bool = False,
    ):
        super().__init__()
        if not len(channels):
            raise TTAMEError(
                "channels is empty; expected one number or more, each of a tapped layer"
            )
        taps = len(channels) if taps is None else taps
        check_whole("taps", taps, 1, len(channels))
        check_whole("num_classes", num_classes, 1)
        check_number("smoothing", smoothing, 0, 100)
        if tallest is not None:
            check_whole("tallest", tallest, 1)
        flags = {"skip": skip, "batch_norm": batch_norm, "branches": branches, "scaled": scaled}
        flags |= {"squashed": squashed, "tied": tied, "standardised": standardised}
        for name, flag in flags.items():
            check_kind(name, flag, bool, "True or False")
        if tied:
            check_kind("head", head, Tensor, "the weights (K, C_head) of the classifier's head")
        self.channels = tuple(channels[-taps:])
        self.branches = nn.ModuleList(
            FeatureBranch(c, skip, batch_norm, activation) if branches else nn.Identity()
            for c in self.channels
        )
        self.head: Tensor | None
        # the classifier's own, which a saved explainer need not hold
        rows_of = None if head is None or not tied else tied_rows(head)
        self.register_buffer("head", rows_of, persistent=False)
        rows = num_classes if self.head is None else self.head.shape[1]  # K or C_head + 1
        self.fusion = nn.Conv2d(sum(self.channels), rows, kernel_size=1)
        # tokens know nothing of being neighbours: a transformer's maps are ragged, a CNN's not
        self.smoothing = smoothing
        self.squashed = squashed
        self.standardised = standardised
        self.tallest = tallest
        # classifiers' maps differ in scale by orders of magnitude; far from 1 the skip connection
        # drowns the branch, the sigmoid saturates, and no learning rate suits all taps
        self.scales: Tensor | None
        self.register_buffer("scales", torch.ones(taps) if scaled else None)

    @torch.no_grad()
    def measure_scales(self, features: Sequence[Tensor]) -> None:
        """Take the root mean squares of maps ``(B, C_i, h_i, w_i)`` as scales, where it has any."""
        if self.scales is not None:
            squares = [f.square().mean() for f in features[-len(self.branches) :]]
            scales = torch.stack(squares).sqrt()
            self.scales.copy_(scales.where(scales > 0, 1.0))  # a tap may be 0 throughout

    @property
    def num_classes(self) -> int:
        """Number of classes ``K``."""
        return self.fusion.out_channels if self.head is None else len(self.head)

    def rows(self, classes: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return the fusion's rows ``(K, sum C_i)`` and biases ``(K,)``, or those of some classes.

        Of classes ``(B, k)`` they are ``(B, k, sum C_i)`` and ``(B, k)``.
        """
        weight, bias = self.fusion.weight.flatten(1), self.fusion.bias
        of: Any = slice(None) if classes is None else classes
        if self.head is None:
            return weight[of], bias[of]  # type: ignore[index]
        return self.head[of] @ weight, self.head[of] @ bias  # type: ignore[operator]

    def forward(self, features: Sequence[Tensor], classes: Tensor | None = None) -> Tensor:
        """Compute explanation maps before their sigmoid.

        Takes the tapped maps ``(B, C_i, h_i, w_i)``, of more than there are branches the last, and
        the classes ``(B, k)`` int64 wanted of each image, all K by default. Gives ``(B, k, h_e,
        w_e)`` with ``(h_e, w_e)`` the size of the largest feature map, or ``tallest``.
        """
        features = features[-len(self.branches) :]
        if self.scales is not None:
            features = [f / scale for f, scale in zip(features, self.scales, strict=True)]
        size = max((tuple(f.shape[-2:]) for f in features), key=lambda s: s[0] * s[1])
        if self.tallest and max(size) > self.tallest:
            size = tuple(max(1, side * self.tallest // max(size)) for side in size)
        rows, bias = self.rows(classes)
        logits: Any = 0.0
        parts = rows.split(self.channels, dim=-1)  # (K, C_i) or (B, k, C_i) each
        for branch, part, feature in zip(self.branches, parts, features, strict=True):
            attention = branch(feature)  # (B, C_i, h_i, w_i)
            logits = logits + upsample(fuse(attention, part), size)
        maps = smooth(logits + bias[..., None, None], self.smoothing)
        return standardise(maps) if self.standardised else maps


def tied_rows(head: Tensor) -> Tensor:
    """Take the mean over classes off a head's rows ``(K, C_head)``; append 1, ``(K, C_head + 1)``.

    What maps of all classes have in common, such as where any object is, the last column learns.
    One factor makes the root mean square of the rows' lengths 1 without it: one learning rate then
    suits tied rows and a class's own, whatever the classifier's scale.

    A TTAMEError is raised if the rows are all alike.
    """
    rows = head.detach().flatten(1).float()
    lengths = rows.square().sum(1).mean().sqrt()
    rows = rows - rows.mean(0)
    size = rows.square().sum(1).mean().sqrt()
    if not size > 1e-6 * lengths:  # a NaN is not
        raise TTAMEError(
            "the rows of the classifier's head are all alike, so that rows tied to them would give all classes one map; "
            "take a trained classifier, or a variant that is not tied"
        )
    return torch.cat([rows / size, torch.ones_like(rows[:, :1])], 1)


def fuse(attention: Tensor, rows: Tensor) -> Tensor:
    """Weigh channels ``(B, C, h, w)`` by rows ``(K, C)``, or ``(B, k, C)`` of each image's own."""
    if rows.ndim == 2:
        return F.conv2d(attention, rows[..., None, None])
    maps = torch.bmm(rows, attention.flatten(2))  # (B, k, C) x (B, C, hw)
    return maps.unflatten(2, attention.shape[-2:])


def standardise(maps: Tensor) -> Tensor:
    """Bring each map ``(B, k, h, w)`` to a mean of 1 and a standard deviation of 1.5."""
    centred = maps - maps.mean((2, 3), keepdim=True)
    return 1 + 1.5 * centred / centred.std((2, 3), keepdim=True).clamp_min(1e-6)


def smooth(maps: Tensor, sigma: float) -> Tensor:
    """Blur maps ``(B, k, h, w)`` by a Gaussian of ``sigma`` cells; edges are continued."""
    if not sigma:
        return maps
    reach = math.ceil(3 * sigma)
    padded = F.pad(maps, [reach] * 4, mode="replicate")
    blurred = gaussian_blur(padded, [2 * reach + 1] * 2, [sigma] * 2)
    return blurred[..., reach:-reach, reach:-reach]
