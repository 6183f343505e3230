"""Frozen classifiers with taps: logits and intermediate feature maps from one forward pass."""

import json
import math
import re
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ttame_core.data import Transform, centre_crop, random_crop_of, read_image
from ttame_core.errors import TTAMEError, nearest
from ttame_core.layers import capture, to_grid, unwrap_logits
from ttame_core.masking import ORDERS, mask_images
from ttame_core.taps import SPREAD, TAPS, blank, default_taps, prefix_tokens, tappable
from ttame_core.zoo import IMAGENET_CLASSES, Preprocessing, build, fingerprint


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
        taps = default_taps(model, self.preprocessing) if taps is None else taps
        modules = {layer: module for layer, module in model.named_modules() if layer}
        if not taps:
            raise TTAMEError(f"no taps for {name}; give at least one layer, see list_taps(name)")
        for tap in taps:
            if tap not in modules:
                layers = tappable(model, self.preprocessing.image_size)
                raise TTAMEError(f"{name} has no layer {tap!r} to tap; {nearest(tap, layers)}")
        self.taps = tuple(taps)
        outputs, logits = _probe(self, self.taps)
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
        self.prefix_tokens: int = (
            last.shape[1] - math.prod(self.shapes[-1][1:]) if self.tokens else 0
        )
        self.masking = masking or ("standardised" if self.tokens else "image")
        if self.masking not in ORDERS:
            raise TTAMEError(f"masking {masking!r} is unknown; {nearest(self.masking, ORDERS)}")
        self.to(logits.device)  # the statistics go where the classifier is

    def train(self, mode: bool = True) -> "Backbone":
        """Stay in evaluation mode whatever is asked: frozen means frozen (Sec. III-D)."""
        return super().train(False)

    def with_taps(self, taps: str | Sequence[str]) -> "Backbone":
        """Return another backbone around the same classifier, with other taps.

        Parameters
        ----------
        taps : str or sequence of str
            Layers, or the name of a set of them; see `load_backbone`.

        Returns
        -------
        Backbone

        Raises
        ------
        TTAMEError
            For an unknown set or layer, or a classifier that has no such set.
        """
        if isinstance(taps, str):
            presets = TAPS.get(self.name, {})
            known = [*presets, *SPREAD]
            if taps not in known:
                raise TTAMEError(
                    f"{self.name} has no set of taps {taps!r}; {nearest(taps, known)}; or give a list of layers"
                )
            taps = presets[taps] if taps in presets else SPREAD[taps](self.model, self.taps[-1])
        return Backbone(
            self.model,
            taps,
            name=self.name,
            preprocessing=self.preprocessing,
            masking=self.masking,
        )

    def standardise(self, images: Tensor) -> Tensor:
        """Standardise images channel by channel with the statistics of the weights.

        Parameters
        ----------
        images : Tensor
            ``(B, 3, H, W)`` in [0, 1], red, green, blue.

        Returns
        -------
        Tensor
            Same shape, in the channel order the classifier reads.
        """
        if self.preprocessing.bgr:
            images = images.flip(1)
        return (images - self.mean) / self.std

    def identity(self) -> dict[str, str]:
        """Say what explanations belong to: name, weights, preprocessing, taps, masking, number of classes."""
        return {
            "backbone": self.name,
            "backbone_fingerprint": fingerprint(self.model),
            "preprocessing": json.dumps(asdict(self.preprocessing)),
            "taps": json.dumps(self.taps),
            "masking": self.masking,
            "num_classes": str(self.num_classes),
        }

    def label(self, index: int) -> str:
        """Name a class in words: ImageNet's names where there are 1000, Hugging Face's own, or its number."""
        if self.num_classes == 1000:
            return IMAGENET_CLASSES[index]
        names = getattr(getattr(self.model, "config", None), "id2label", None) or {}
        return names.get(index, f"class {index}")

    def class_index(self, words: str) -> int:
        """Find a class by its number, its name, or a part of its name that no other has.

        Parameters
        ----------
        words : str
            For instance ``"285"``, ``"Egyptian cat"``, ``"egyptian_cat"`` or ``"egyptian"``.

        Returns
        -------
        int

        Raises
        ------
        TTAMEError
            If no class, or several, go by these words.
        """
        words = words.strip()
        if re.fullmatch(r"-?\d+", words):
            if not 0 <= int(words) < self.num_classes:
                raise TTAMEError(
                    f"class {words} of {self.name}; expected 0 to {self.num_classes - 1}"
                )
            return int(words)
        if not words:
            raise TTAMEError("the class is empty; give a name, a part of one, or a number")
        names = [self.label(i) for i in range(self.num_classes)]
        plain = [name.lower().replace("_", " ") for name in names]
        wanted = words.lower().replace("_", " ")
        found = [i for i, name in enumerate(plain) if name == wanted]
        found = found or [i for i, name in enumerate(plain) if wanted in name]
        if len(found) == 1:
            return found[0]
        if found:
            few = ", ".join(f"{names[i]} ({i})" for i in found[:8])
            raise TTAMEError(
                f"{len(found)} classes of {self.name} go by {words!r}: {few}; say which, by its number"
            )
        raise TTAMEError(f"{self.name} has no class {words!r}; {nearest(words, names, shown=8)}")

    @property
    def crop(self) -> Transform:
        """The weights' own resizing and cropping, for `ImageFolder`."""
        given = self.preprocessing
        return centre_crop(given.image_size, given.resize, given.interpolation)

    @property
    def random_crop(self) -> Transform:
        """The paper's training crop at the weights' own sizes, for `ImageFolder`."""
        given = self.preprocessing
        return random_crop_of(given.image_size, given.resize, given.interpolation)

    def read(self, *files: str | Path) -> Tensor:
        """Read image files, resized and cropped as the weights ask for.

        Parameters
        ----------
        *files : str or Path
            Of any mode; see `read_image`.

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
        rng = np.random.default_rng(0)  # centre crops draw nothing
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


def load_backbone(
    name: str,
    weights: str | Path | None = "DEFAULT",
    taps: str | Sequence[str] | None = None,
    *,
    masking: str | None = None,
    preprocessing: dict[str, Any] | None = None,
    **options: Any,
) -> Backbone:
    """Load a classifier by name, frozen and tapped.

    Parameters
    ----------
    name : str
        A torchvision classifier, a demo backbone, ``efficientnet_lite0``, ``vit_ti_16``, a timm model
        (``timm/NAME`` where torchvision has one of that name too), or one of Hugging Face's: ``hf/`` and
        its name on the hub, or a folder written by ``save_pretrained``.
    weights : str or Path or None
        ``"DEFAULT"`` or another published name; a ``.safetensors`` or state-dict file; None: random.
    taps : str or sequence of str, optional
        Layers to tap, or the name of a set of them (``vgg16``: ``max-pool``, ``conv``); by default
        the last three stages of a pyramid or the last three blocks of a transformer. ``"spread"``: the
        blocks at a quarter, half and three quarters of a transformer's depth; ``"spread-norms"``: the norms in
        front of their attention.
    masking : {"image", "standardised"}, optional
        Masking order; the family's own by default.
    preprocessing : dict, optional
        Fields of `Preprocessing` in place of those published with the weights, for weights of your own.
    **options
        Passed on to the model's constructor, for instance ``num_classes=10`` (Hugging Face's: ``num_labels``).

    Returns
    -------
    Backbone

    Raises
    ------
    TTAMEError
        For an unknown name, tap or masking, weights that do not fit or cannot be had.
    """
    model, published = build(name, weights, **options)
    try:
        expected = replace(published, **(preprocessing or {}))
    except TypeError as error:
        raise TTAMEError(
            f"preprocessing {preprocessing} of {name}: {error}; expected fields of {published}"
        ) from error
    layers = None if isinstance(taps, str) else taps
    if layers is None:
        layers = next(iter(TAPS.get(name, {}).values()), None)
    backbone = Backbone(model, layers, name=name, preprocessing=expected, masking=masking)
    return backbone.with_taps(taps) if isinstance(taps, str) else backbone


@torch.no_grad()
def _probe(backbone: Backbone, layers: Sequence[str]) -> tuple[dict[str, Any], Tensor]:
    model = backbone.model
    with capture(model, layers) as outputs:
        logits = unwrap_logits(model(blank(model, backbone.preprocessing.image_size)))
    missing = [layer for layer in layers if layer not in outputs]
    if missing:
        raise TTAMEError(
            f"the layers {missing} did not run in a forward pass, so they cannot be tapped"
        )
    return outputs, logits
