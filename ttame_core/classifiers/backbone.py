"""Frozen classifiers with taps: logits and intermediate feature maps from one forward pass."""

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ttame_core.classifiers.hooks import capture, unwrap_logits
from ttame_core.classifiers.labels import IMAGENET_CLASSES, find_class
from ttame_core.classifiers.taps import (
    OVER_DEPTH,
    TAPS,
    blank,
    default_taps,
    prefix_tokens,
    tappable,
    to_grid,
)
from ttame_core.errors import TTAMEError, nearest
from ttame_core.images.reading import Preprocessing, Transform, read_image
from ttame_core.masking import mask_images
from ttame_core.recipes import ORDERS


class Backbone(nn.Module):
    """A frozen image classifier whose tapped layers can be read.

    It always stays in evaluation mode and its parameters never need gradients.

    Parameters
    ----------
    model : nn.Module
        Maps standardised images ``(B, 3, H, W)`` to logits ``(B, K)`` (or to an object that holds
        them as ``.logits``, or to a tuple that starts with them).
    taps : sequence of str, optional
        Names of modules, earliest first, whose outputs are feature maps ``(B, C, h, w)``,
        channels-last grids ``(B, h, w, C)`` or tokens ``(B, N, D)``; by default see `default_taps`.
    name : str
        What to call it in tables.
    preprocessing : Preprocessing, optional
        Image size and statistics of its weights.
    masking : {"image", "standardised"}, optional
        Masking order (Eq. 13, 14); by default ``standardised`` where the last tap holds tokens.

    Attributes
    ----------
    shapes : tuple of (C, h, w)
        Shapes of the tapped feature maps at the preprocessing's image size.
    num_classes : int
        K.
    tokens : bool
        Whether the last tap holds tokens.
    prefix_tokens : int
        How many of them stand before the patches: class token, registers.

    Raises
    ------
    TTAMEError
        For a tap that does not exist or is no feature map, or an unknown masking order.
    """

    def __init__(
        self,
        model: nn.Module,
        taps: Sequence[str] | None = None,
        *,
        name: str = "backbone",
        preprocessing: Preprocessing | None = None,
        masking: str | None = None,
    ):
        super().__init__()
        self.name = name
        self.preprocessing = preprocessing or Preprocessing()
        # channels last: the same numbers, and convolutions up to twice as fast
        self.model = model.requires_grad_(False).to(memory_format=torch.channels_last)
        self.eval()
        self.mean: Tensor
        self.std: Tensor
        self.register_buffer("mean", torch.tensor(self.preprocessing.mean)[:, None, None])
        self.register_buffer("std", torch.tensor(self.preprocessing.std)[:, None, None])
        size = self.preprocessing.image_size
        self.taps = tuple(default_taps(model, size) if taps is None else taps)
        outputs, logits = self._probe()
        self.num_classes: int = logits.shape[-1]
        self._prefix = prefix_tokens(model)
        grids = [to_grid(outputs[tap], tap, self._prefix) for tap in self.taps]
        for tap, grid in zip(self.taps, grids, strict=True):
            if len(grid) != 2:
                raise TTAMEError(
                    f"the output of {tap!r} is no feature map of whole images: {len(grid)} for 2 images (windows?); "
                    "list_taps(name) shows which layers will do"
                )
        self.shapes = tuple(tuple(g.shape[1:]) for g in grids)
        last = outputs[self.taps[-1]]
        self.tokens: bool = last.ndim == 3
        patches = math.prod(self.shapes[-1][1:])
        self.prefix_tokens: int = last.shape[1] - patches if self.tokens else 0
        self.masking = masking or ("standardised" if self.tokens else "image")
        if self.masking not in ORDERS:
            raise TTAMEError(f"masking {masking!r} is unknown; {nearest(self.masking, ORDERS)}")
        self.to(logits.device)  # the statistics go where the classifier is

    @torch.no_grad()
    def _probe(self) -> tuple[dict[str, Any], Tensor]:
        """Run black images: the taps' outputs and the logits, or an error where a tap cannot be."""
        size, layers = self.preprocessing.image_size, dict(self.model.named_modules())
        if not self.taps:
            raise TTAMEError(
                f"no taps for {self.name}; give at least one layer, see list_taps(name)"
            )
        for tap in self.taps:
            if not tap or tap not in layers:
                hint = nearest(tap, tappable(self.model, size))
                raise TTAMEError(f"{self.name} has no layer {tap!r} to tap; {hint}")
        with capture(self.model, self.taps) as outputs:
            logits = unwrap_logits(self.model(blank(self.model, size)))
        missing = [tap for tap in self.taps if tap not in outputs]
        if missing:
            raise TTAMEError(
                f"the layers {missing} did not run in a forward pass, so they cannot be tapped"
            )
        return outputs, logits

    def train(self, mode: bool = True) -> "Backbone":
        """Stay in evaluation mode whatever is asked: frozen means frozen (Sec. III-D)."""
        return super().train(False)

    def with_taps(self, taps: str | Sequence[str]) -> "Backbone":
        """Return another backbone around the same classifier, with other taps.

        Takes layers, or the name of a set of them (see `load_backbone`); raises a TTAMEError for an
        unknown set or layer, or a classifier that has no such set.
        """
        if isinstance(taps, str):
            presets = TAPS.get(self.name, {})
            known = [*presets, *OVER_DEPTH]
            if taps not in known:
                raise TTAMEError(
                    f"{self.name} has no set of taps {taps!r}; {nearest(taps, known)}; or give a list of layers"
                )
            taps = presets[taps] if taps in presets else OVER_DEPTH[taps](self.model, self.taps[-1])
        return Backbone(
            self.model,
            taps,
            name=self.name,
            preprocessing=self.preprocessing,
            masking=self.masking,
        )

    def standardise(self, images: Tensor) -> Tensor:
        """Standardise images ``(B, 3, H, W)`` in [0, 1] with the statistics of the weights.

        They are given as red, green, blue, and come in the channel order that the classifier reads.
        """
        if self.preprocessing.bgr:
            images = images.flip(1)
        return (images - self.mean) / self.std

    def identity(self) -> dict[str, str]:
        """Say what explanations belong to: classifier, preprocessing, taps and masking order."""
        return {
            "backbone": self.name,
            "backbone_fingerprint": fingerprint(self.model),
            "preprocessing": json.dumps(asdict(self.preprocessing)),
            "taps": json.dumps(self.taps),
            "masking": self.masking,
            "num_classes": str(self.num_classes),
        }

    @cached_property
    def labels(self) -> tuple[str, ...]:
        """The classes in words: ImageNet's where there are 1000, Hugging Face's own, or numbers."""
        if self.num_classes == len(IMAGENET_CLASSES):
            return IMAGENET_CLASSES
        names = getattr(getattr(self.model, "config", None), "id2label", None) or {}
        return tuple(names.get(i, f"class {i}") for i in range(self.num_classes))

    def label(self, index: int) -> str:
        """Name a class in words."""
        return self.labels[index]

    def class_index(self, words: str) -> int:
        """Find a class by its number, its name, or a part of its name that no other has.

        For instance ``"285"``, ``"Egyptian cat"``, ``"egyptian_cat"`` or ``"egyptian"``; raises a
        TTAMEError if no class, or several, go by these words.
        """
        return find_class(words, self.labels, self.name)

    @property
    def crop(self) -> Transform:
        """The weights' own resizing and cropping, for `ImageFolder`."""
        return self.preprocessing.crop

    @property
    def random_crop(self) -> Transform:
        """The paper's training crop at the weights' own sizes, for `ImageFolder`."""
        return self.preprocessing.random_crop

    def read(self, *files: str | Path) -> Tensor:
        """Read image files, resized and cropped as the weights ask for.

        Parameters
        ----------
        *files : str or Path
            Images of any mode; see `read_image`.

        Returns
        -------
        Tensor
            ``(B, 3, H, W)`` in [0, 1], on the backbone's device.

        Raises
        ------
        TTAMEError
            If a file is missing or no readable image.
        """
        if not files:
            raise TTAMEError("no files to read; give at least one path")
        rng = np.random.default_rng(0)  # asked for by any crop; centre crops draw nothing from it
        pictures = [self.crop(read_image(file), rng) for file in files]
        return torch.stack(pictures).to(self.mean.device)

    def forward(self, images: Tensor, masks: Tensor | None = None) -> Tensor:
        """Compute logits of images, masked by this backbone's procedure where masks are given.

        Parameters
        ----------
        images : Tensor
            ``(B, 3, H, W)`` in [0, 1].
        masks : Tensor, optional
            ``(B, h, w)`` in [0, 1].

        Returns
        -------
        Tensor
            ``(B, K)``.
        """
        if masks is None:
            return self.logits(self.standardise(images))
        return self.logits(mask_images(images, masks, self.standardise, self.masking))

    def logits(self, inputs: Tensor) -> Tensor:
        """Compute logits ``(B, K)`` of images that are standardised already."""
        return unwrap_logits(self.model(inputs))

    def features(self, images: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Compute logits and tapped feature maps in one forward pass.

        Parameters
        ----------
        images : Tensor
            ``(B, 3, H, W)`` in [0, 1].

        Returns
        -------
        tuple of Tensor and list of Tensor
            Logits ``(B, K)``, and a map ``(B, C_i, h_i, w_i)`` a tap, earliest first.
        """
        with capture(self.model, self.taps) as outputs:
            logits = self(images)
        return logits, [to_grid(outputs[tap], tap, self._prefix) for tap in self.taps]

    def grid(self, output: Any) -> Tensor:
        """Adapt any of its layers' outputs to a feature map ``(B, C, h, w)``; see `to_grid`."""
        return to_grid(output, self.name, self._prefix)

    def output_of(self, layer: nn.Module, images: Tensor) -> Tensor:
        """Compute one layer's feature map ``(B, C, h, w)`` of images ``(B, 3, H, W)`` in [0, 1]."""
        name = next(name for name, module in self.model.named_modules() if module is layer)
        with capture(self.model, [name]) as outputs:
            self(images)
        return self.grid(outputs[name])


def fingerprint(model: nn.Module) -> str:
    """Hash a model's parameters and buffers, to 16 hexadecimal digits."""
    digest = hashlib.sha256()
    for name, value in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


def batch_that_suits(images: Tensor) -> int:
    """Choose how many images ``(B, 3, H, W)`` to pass at once, for their size and device."""
    # 8 images' maps at 224 x 224 about fill a CPU's caches, more are slower; a GPU wants to be full
    share = 8 if images.device.type == "cpu" else 64
    return max(1, share * 224**2 // (images.shape[-1] * images.shape[-2]))
