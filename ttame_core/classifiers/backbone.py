"""Frozen classifiers with taps: logits and intermediate feature maps from one forward pass."""

import json
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ttame_core.classifiers.fast import Fast, dtype_of
from ttame_core.classifiers.hooks import Turn, capture, replaced_output, unwrap_logits
from ttame_core.classifiers.labels import class_names, find_class
from ttame_core.classifiers.probe import fingerprint, frozen_twin, probe, unwrapped
from ttame_core.classifiers.taps import (
    OVER_DEPTH,
    TAPS,
    blank,
    check_taps,
    default_taps,
    prefix_tokens,
    to_grid,
)
from ttame_core.errors import NotServedError, TTAMEError, check_kind, check_known, nearest
from ttame_core.images.reading import Preprocessing, Transform, check_at_hand, read_image
from ttame_core.masking import mask_images
from ttame_core.recipes import ORDERS


class Backbone(nn.Module):
    """A frozen image classifier whose tapped layers can be read.

    It is a twin of the model that is given, which stays as it is: the twin has modules of its own,
    always in evaluation mode and without gradients, and shares the memory of the weights. Changes
    of these count, but for what is written through ``weight.data`` in place, which leaves no trace:
    write under ``torch.no_grad()``. Several threads may use it: they take turns.

    Parameters
    ----------
    model : nn.Module
        Maps standardised images ``(B, 3, H, W)`` to logits ``(B, K)`` (or to an object or a dict
        that holds them as ``logits``, or to a tuple that starts with them), of any precision. It
        may be wrapped in `DataParallel` or compiled; what is explained is the module inside.
    taps : sequence of str, optional
        Names of modules whose outputs are feature maps ``(B, C, h, w)``, channels-last grids
        ``(B, h, w, C)`` or tokens ``(B, N, D)``; they are put in the order in which they run, and
        of a module that is called several times the last call counts. By default see
        `default_taps`.
    name : str
        What to call it in tables.
    preprocessing : Preprocessing, optional
        Image size and statistics of its weights.
    masking : {"image", "standardised"}, optional
        Masking order (Eq. 13, 14); by default ``standardised`` where the last tap holds tokens.
    precision : {"auto", "float32", "bfloat16", "own"}
        What the classifier runs in: ``auto`` is bfloat16 on a GPU that has it, and elsewhere the
        weights' own. What it returns, and T-TAME itself, is float32. A cheaper twin runs in its
        stead, with batch norms folded and layers packed; with ``own`` the classifier as it came.

    Attributes
    ----------
    taps : tuple of str
        The tapped layers, earliest first.
    shapes : tuple of (C, h, w)
        Shapes of the tapped feature maps at the preprocessing's image size.
    num_classes : int
        K.
    tokens : bool
        Whether the last tap holds tokens.
    prefix_tokens : int
        How many of them stand before the patches: class token, registers.
    calls : dict of str to int
        How often a forward pass calls each module.
    frozen : bool
        Whether every call puts the twin in evaluation mode; False in a copy that is trained.

    Raises
    ------
    TTAMEError
        For what is no classifier that can be explained (see `probe`), a tap that does not exist or
        is no feature map, or an unknown masking order.
    """

    @torch.inference_mode(False)  # what is made in it can take part in no gradient, ever
    def __init__(
        self,
        model: nn.Module,
        taps: Sequence[str] | None = None,
        *,
        name: str = "backbone",
        preprocessing: Preprocessing | None = None,
        masking: str | None = None,
        precision: str = "auto",
    ):
        super().__init__()
        self.name, self.frozen, self._turn = name, True, Turn()
        self._fast = Fast(precision)
        self.preprocessing = preprocessing or Preprocessing()
        check_kind("preprocessing", self.preprocessing, Preprocessing, "tt.Preprocessing(...)")
        if isinstance(model, Backbone):
            raise TTAMEError(
                f"{model.name} is a Backbone already; see its with_taps for other taps"
            )
        model, prefix = unwrapped(model)
        self.model = frozen_twin(model)
        self.mean: Tensor
        self.std: Tensor
        size, device = self.preprocessing.image_size, blank(self.model, 1).device
        for statistic in ("mean", "std"):
            values = torch.tensor(getattr(self.preprocessing, statistic), dtype=torch.float32)
            self.register_buffer(statistic, values[:, None, None].to(device))
        if taps is None:
            taps = default_taps(self.model, size)
        else:
            check_taps(self.model, taps, name, size, prefix)
            taps = [tap.removeprefix(prefix) for tap in taps]
        noise = torch.rand(2, 3, size, size, generator=torch.Generator().manual_seed(0))
        probed = probe(self.model, self._as_inputs(noise, self.model), taps, name)
        self.taps, self.calls = tuple(probed.outputs), probed.calls
        self.num_classes: int = probed.logits.shape[-1]
        self._prefix, self._size = prefix_tokens(self.model), (size, size)
        grids = {tap: self.grid(output, tap) for tap, output in probed.outputs.items()}
        for tap, grid in grids.items():
            if len(grid) != 2:
                raise TTAMEError(
                    f"the output of {tap!r} is no feature map of whole images: {len(grid)} for 2 images (windows?); "
                    "list_taps(name) shows which layers will do"
                )
        self.shapes = tuple(tuple(g.shape[1:]) for g in grids.values())
        last = probed.outputs[self.taps[-1]]
        self.tokens: bool = last.ndim == 3
        patches = math.prod(self.shapes[-1][1:])
        self.prefix_tokens: int = last.shape[1] - patches if self.tokens else 0
        self.masking = masking or ("standardised" if self.tokens else "image")
        check_known("masking", self.masking, ORDERS)
        self.eval()

    def train(self, mode: bool = True) -> "Backbone":
        """Stay in evaluation mode whatever is asked: frozen means frozen (Sec. III-D)."""
        return super().train(False)

    @property
    def precision(self) -> str:
        """In which precision the classifier runs where it is, for instance ``bfloat16``."""
        return str(dtype_of(self._fast.precision, blank(self.model, 1))).removeprefix("torch.")

    @contextmanager
    def _run_by(self, *layers: str) -> Iterator[nn.Module]:
        """Hold the classifier, or its cheaper twin, whichever is to run and to be listened to."""
        size, frozen = self.preprocessing.image_size, self.frozen
        with self.held(), self._fast.running(self.model, size, layers, frozen) as model:
            yield model

    @contextmanager
    def held(self) -> Iterator[None]:
        """Have the classifier to oneself, in evaluation mode, while the block runs.

        Every call does; what hooks its layers over several calls does so around all of them.
        """
        with self._turn as depth:
            if depth == 1 and self.frozen:
                self.model.eval()
            yield

    def with_taps(self, taps: str | Sequence[str]) -> "Backbone":
        """Return another backbone around the same classifier, with other taps.

        Takes layers, or the name of a set of them (see `load_backbone`); raises a TTAMEError for an
        unknown set or layer, or a classifier that has no such set.
        """
        if isinstance(taps, str):
            presets = TAPS.get(self.name, {})
            known = [*presets, *OVER_DEPTH]
            if taps in OVER_DEPTH and not self.tokens:
                why = f"the taps {taps!r} are a transformer's, and {self.name} is none; name layers"
                raise NotServedError(why)
            if taps not in known:
                raise TTAMEError(
                    f"{self.name} has no set of taps {taps!r}; {nearest(taps, known)}; or give a list of layers"
                )
            taps = presets[taps] if taps in presets else OVER_DEPTH[taps](self.model, self.taps[-1])
        same: dict[str, Any] = {"name": self.name, "preprocessing": self.preprocessing}
        same |= {"masking": self.masking, "precision": self._fast.precision}
        return Backbone(self.model, taps, **same)

    def same_classifier(self, other: "Backbone") -> bool:
        """Say whether another backbone's classifier has the same weights, whatever its taps."""
        return self is other or fingerprint(self.model) == fingerprint(other.model)

    def standardise(self, images: Tensor) -> Tensor:
        """Standardise images ``(B, 3, H, W)`` in [0, 1] with the statistics of the weights.

        They are given as red, green, blue, and come in the channel order that the classifier reads.
        """
        if self.preprocessing.bgr:
            images = images.flip(1)
        return (images - self.mean) / self.std

    def _as_inputs(self, images: Tensor, model: nn.Module) -> Tensor:
        """Put standardised images where a model's weights are, in their precision."""
        images = images.to(blank(model, 1))
        # the same numbers, and convolutions up to twice as fast
        return images.contiguous(memory_format=torch.channels_last)

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
        """The classes in words, by the names that come with the model; see `class_names`."""
        return class_names(self.model, self.num_classes)

    def label(self, index: int) -> str:
        """Name a class in words."""
        return self.labels[index]

    def class_index(self, words: str | int) -> int:
        """Find a class by its name, its number, or a part of its name that no other has.

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
            ``(B, K)``. A TTAMEError is raised for images that are none; see `check_at_hand`.
        """
        check_at_hand(images)
        if masks is None:
            return self.logits(self.standardise(images))
        return self.logits(mask_images(images, masks, self.standardise, self.masking))

    def logits(self, inputs: Tensor) -> Tensor:
        """Compute logits ``(B, K)`` of images that are standardised already.

        Raises a TTAMEError where they are of a size that the classifier does not take.
        """
        with self._run_by() as model:
            self._size = (inputs.shape[-2], inputs.shape[-1])
            inputs = self._as_inputs(inputs, model)
            try:
                output = model(inputs)
            except Exception as error:  # a foreign forward may raise anything
                own = self.preprocessing.image_size
                if self._size == (own, own):
                    raise
                raise TTAMEError(
                    f"{self.name} takes no images of {self._size[0]} x {self._size[1]} px ({error}); resize them to "
                    f"{own} x {own}, as backbone.read does, or load it for another size"
                ) from error
            return unwrap_logits(output).to(self.mean.dtype)

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
        with self._run_by(*self.taps) as model, capture(model, self.taps) as outputs:
            logits = self(images)
            return logits, [self.grid(outputs[tap], tap) for tap in self.taps]

    def grid(self, output: Any, layer: str = "a layer") -> Tensor:
        """Adapt a layer's output for the last images to a map ``(B, C, h, w)``; see `to_grid`."""
        return to_grid(output, layer, self._prefix, self._size).to(self.mean.dtype)

    def output_of(self, layer: str, images: Tensor) -> Tensor:
        """Compute one layer's feature map ``(B, C, h, w)`` of images ``(B, 3, H, W)`` in [0, 1]."""
        check_taps(self.model, [layer], self.name, self.preprocessing.image_size)
        with self._run_by(layer) as model, capture(model, [layer]) as outputs:
            self(images)
            return self.grid(outputs[layer], layer)

    @contextmanager
    def replaced(self, layer: str, edit: Callable[[Tensor], Tensor]) -> Iterator[None]:
        """Let what lies behind a layer see its last output edited; see `replaced_output`."""

        def edited(output: Tensor) -> Tensor:
            return edit(output.to(self.mean.dtype)).to(output.dtype)

        with self._run_by(layer) as model:
            module = model.get_submodule(layer)
            with replaced_output(module, edited, self.calls.get(layer, 1)):
                yield
