"""The attention mechanism: feature branches and the fusion of the needed classes only."""

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.transforms.functional import gaussian_blur

from ttame_core.errors import TTAMEError, check_kind, check_number, check_whole, nearest
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
        if activation not in ACTIVATIONS:
            raise TTAMEError(
                f"activation {activation!r} is unknown; {nearest(activation, ACTIVATIONS)}"
            )
        self.conv = nn.Conv2d(channels, channels, kernel_size=1)
        self.norm = nn.BatchNorm2d(channels) if batch_norm else nn.Identity()
        self.skip = skip
        self.activation = nn.ReLU(inplace=True) if activation == "relu" else nn.Sigmoid()

    def forward(self, features: Tensor) -> Tensor:
        attention = self.norm(self.conv(features))  # (B, C_i, h_i, w_i)
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
    tallest : int, optional
        Maps of more cells a side than this are computed with so many, as the released ones are.
    """

    def __init__(
        self,
        channels: Sequence[int],
        num_classes: int,
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
        flags = {"skip": skip, "batch_norm": batch_norm, "branches": branches}
        for name, flag in {**flags, "scaled": scaled, "squashed": squashed}.items():
            check_kind(name, flag, bool, "True or False")
        self.channels = tuple(channels[-taps:])
        self.branches = nn.ModuleList(
            FeatureBranch(c, skip, batch_norm, activation) if branches else nn.Identity()
            for c in self.channels
        )
        self.fusion = nn.Conv2d(sum(self.channels), num_classes, kernel_size=1)
        # tokens know nothing of being neighbours: a transformer's maps are ragged, a CNN's not
        self.smoothing = smoothing
        self.squashed = squashed
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
        return self.fusion.out_channels

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
        weights = self.fusion.weight.flatten(1).split(self.channels, dim=1)  # K x C_i each
        logits: Any = 0.0
        for branch, weight, feature in zip(self.branches, weights, features, strict=True):
            attention = branch(feature)  # (B, C_i, h_i, w_i)
            logits = logits + upsample(fuse(attention, weight, classes), size)
        bias: Any = self.fusion.bias
        bias = bias if classes is None else bias[classes]  # (K,) or (B, k)
        return smooth(logits + bias[..., None, None], self.smoothing)


def fuse(attention: Tensor, weight: Tensor, classes: Tensor | None) -> Tensor:
    """Weigh channels for the wanted classes, or all: ``(B, C, h, w)`` to ``(B, k, h, w)``."""
    if classes is None:
        return F.conv2d(attention, weight[..., None, None])
    maps = torch.bmm(weight[classes], attention.flatten(2))  # (B, k, C) x (B, C, hw)
    return maps.unflatten(2, attention.shape[-2:])


def smooth(maps: Tensor, sigma: float) -> Tensor:
    """Blur maps ``(B, k, h, w)`` by a Gaussian of ``sigma`` cells; edges are continued."""
    if not sigma:
        return maps
    reach = math.ceil(3 * sigma)
    padded = F.pad(maps, [reach] * 4, mode="replicate")
    blurred = gaussian_blur(padded, [2 * reach + 1] * 2, [sigma] * 2)
    return blurred[..., reach:-reach, reach:-reach]
