"""T-TAME: a frozen backbone and its attention mechanism, explaining in a single forward pass."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from safetensors.torch import save as to_bytes
from torch import Tensor, nn

from ttame_core.attention import VARIANTS, AttentionMechanism
from ttame_core.backbones import Backbone
from ttame_core.errors import TTAMEError, nearest
from ttame_core.files import atomic_path
from ttame_core.masking import minmax


@dataclass(frozen=True)
class Explanation:
    """Maps and what they explain.

    Attributes
    ----------
    maps : Tensor
        ``(B, h_e, w_e)``, or ``(B, k, h_e, w_e)`` where k classes were asked for; in [0, 1].
    classes : Tensor
        ``(B,)`` or ``(B, k)`` int64, the classes explained.
    confidences : Tensor
        Same shape, their softmax scores in [0, 1].
    ranks : Tensor
        Same shape, int64: 1 for the class with the highest score.
    """

    maps: Tensor
    classes: Tensor
    confidences: Tensor
    ranks: Tensor


class TTAME(nn.Module):
    """A frozen classifier with a trainable attention mechanism on its tapped layers.

    Parameters
    ----------
    backbone : Backbone
        The classifier to be explained.
    variant : str or dict
        A row of Table VI (`VARIANTS`), or options of `AttentionMechanism`.
    seed : int
        Of the attention mechanism's initial weights.

    Raises
    ------
    TTAMEError
        For an unknown variant.
    """

    def __init__(self, backbone: Backbone, variant: str | dict = "proposed", seed: int = 0):
        super().__init__()
        if isinstance(variant, str) and variant not in VARIANTS:
            raise TTAMEError(f"variant {variant!r} is unknown; {nearest(variant, VARIANTS)}")
        options = VARIANTS[variant] if isinstance(variant, str) else variant
        self.backbone = backbone
        self.variant = variant
        channels = [shape[0] for shape in backbone.shapes]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.attention = AttentionMechanism(channels, backbone.num_classes, **options)
        self.attention.to(backbone.mean.device)

    @torch.no_grad()
    def forward(
        self,
        images: Tensor | str | Path,
        classes: Tensor | int | str | Sequence[int | str] | None = None,
    ) -> Explanation:
        """Explain images: classify, tap, attend, scale each map to [0, 1].

        Parameters
        ----------
        images : Tensor or str or Path
            ``(B, 3, H, W)`` in [0, 1], or the file of a photograph.
        classes : Tensor, int, str or sequence, optional
            ``(B,)`` or ``(B, k)`` int64; or k: each image's k most confident ones; or one class in words, see
            `Backbone.class_index`, or several, in words or numbers; by default each image's model truth.

        Returns
        -------
        Explanation
            Maps at the size of the largest tapped feature map.

        Raises
        ------
        TTAMEError
            If the classes do not go with the images or the classifier.
        """
        if isinstance(images, (str, Path)):
            images = self.backbone.read(images)
        check_images(images)
        was_training = self.attention.training
        self.attention.eval()
        try:
            logits, features = self.backbone.features(images)
            scores = logits.softmax(1)
            if classes is None:
                classes = scores.argmax(1)
            elif isinstance(classes, int | np.integer) and not isinstance(classes, bool):
                check_count(classes, self.backbone.num_classes)
                classes = scores.topk(int(classes)).indices
            elif isinstance(classes, str):
                classes = torch.full((len(images),), self.backbone.class_index(classes))
            elif not isinstance(classes, Tensor):
                named = [self.backbone.class_index(str(c)) for c in class_names(classes)]
                classes = torch.tensor(named).expand(len(images), -1)
            classes = classes.to(scores.device)
            check_classes(classes, len(images), self.backbone.num_classes)
            wanted = classes if classes.ndim == 2 else classes[:, None]  # (B, k)
            maps = self.attention(features, wanted)  # (B, k, h_e, w_e)
            maps = minmax(maps.sigmoid() if self.attention.squashed else maps)
        finally:
            self.attention.train(was_training)
        confidences = scores.gather(1, wanted)
        ranks = 1 + (scores[:, None] > confidences[..., None]).sum(2)
        if classes.ndim == 1:
            maps, confidences, ranks = maps[:, 0], confidences[:, 0], ranks[:, 0]
        return Explanation(maps, classes, confidences, ranks)

    def explain(self, images: Tensor, classes: Tensor | None = None) -> Tensor:
        """Return the maps alone; see `forward`.

        Parameters
        ----------
        images : Tensor
            ``(B, 3, H, W)`` in [0, 1].
        classes : Tensor, optional
            ``(B,)`` or ``(B, k)`` int64; by default the model truth of each image.

        Returns
        -------
        Tensor
            ``(B, h_e, w_e)`` or ``(B, k, h_e, w_e)`` in [0, 1].
        """
        return self(images, classes).maps

    def identity(self) -> dict[str, str]:
        """Say what the attention mechanism belongs to: the classifier's identity, and the variant."""
        return {**self.backbone.identity(), "variant": json.dumps(self.variant)}

    def save(self, path: str | Path, half: bool = False, **metadata: str) -> None:
        """Write the attention mechanism and what it belongs to, as safetensors.

        Parameters
        ----------
        path : str or Path
            File to write; half-written files are never seen under this name.
        half : bool
            In half precision, for a file of half the size; it is read back in single precision.
        **metadata : str
            Further entries of the file's header.
        """
        state = {k: v.detach().cpu().contiguous() for k, v in self.attention.state_dict().items()}
        if half:
            state = {k: v.half() if v.is_floating_point() else v for k, v in state.items()}
        with atomic_path(path) as temporary:
            temporary.write_bytes(to_bytes(state, {**metadata, **self.identity()}))

    @classmethod
    def load(cls, path: str | Path, backbone: Backbone) -> "TTAME":
        """Read an attention mechanism trained for this very backbone.

        Parameters
        ----------
        path : str or Path
            File written by `save`.
        backbone : Backbone
            The classifier it was trained on.

        Returns
        -------
        TTAME
            In evaluation mode.

        Raises
        ------
        TTAMEError
            If the file is missing or broken, or was trained on another classifier, other weights,
            other preprocessing, other taps or another masking order.
        """
        metadata = cls.metadata(path)
        explainer = cls(backbone, json.loads(metadata["variant"]))
        expected = explainer.identity()
        for key in ("taps", "num_classes", "masking", "preprocessing", "backbone_fingerprint"):
            value = expected[key]
            if metadata.get(key) != value:
                raise TTAMEError(
                    f"the explainer {path} was trained with {key} {metadata.get(key)} (backbone "
                    f"{metadata.get('backbone')}), but this backbone has {value}; load that backbone, or train anew"
                )
        explainer.attention.load_state_dict(load_file(path))
        return explainer.eval()

    @staticmethod
    def metadata(path: str | Path) -> dict[str, str]:
        """Read what an explainer's file says of itself.

        Parameters
        ----------
        path : str or Path
            File written by `save`.

        Returns
        -------
        dict of str to str

        Raises
        ------
        TTAMEError
            If the file is missing or no explainer.
        """
        if not Path(path).is_file():
            raise TTAMEError(
                f"there is no explainer at {path}; train one (01_train) or correct the path"
            )
        try:
            with safe_open(path, framework="pt") as file:
                metadata = file.metadata() or {}
        except SafetensorError as error:
            raise TTAMEError(
                f"{path} is no explainer ({error}); expected a file written by TTAME.save"
            ) from error
        if "variant" not in metadata:
            raise TTAMEError(f"{path} is no explainer; expected a file written by TTAME.save")
        return metadata


def check_images(images: Tensor) -> None:
    """Raise a TTAMEError unless images are ``(B, 3, H, W)`` floats in [0, 1]."""
    if not isinstance(images, Tensor):
        raise TTAMEError(
            f"images are a {type(images).__name__}; expected a tensor (B, 3, H, W) in [0, 1], or the file of one photograph"
        )
    if images.ndim != 4 or images.shape[1] != 3 or not images.is_floating_point():
        raise TTAMEError(
            f"images are {tuple(images.shape)} {images.dtype}; expected (B, 3, H, W) floats in [0, 1]"
        )
    if not len(images) or images.shape[-1] != images.shape[-2]:
        raise TTAMEError(
            f"images are {tuple(images.shape)}; expected at least one, and square: crop them (backbone.read does)"
        )
    low, high = images.aminmax()
    if low < 0 or high > 1 or not torch.isfinite(low + high):
        raise TTAMEError(
            f"images range from {low:.3g} to {high:.3g}; expected [0, 1]: the backbone standardises itself, "
            "so give pixel values / 255"
        )


def class_names(classes: Any) -> list[int | str]:
    """Return several classes as a list; raise a TTAMEError where they are none."""
    if not isinstance(classes, Sequence | np.ndarray) or not len(classes):
        raise TTAMEError(
            f"classes are {classes!r}; expected a tensor, how many of the most confident ones (an int), "
            "one in words, or a list of words and numbers"
        )
    return list(classes)


def check_count(count: int, num_classes: int) -> None:
    """Raise a TTAMEError unless so many classes can be explained."""
    if not 1 <= count <= num_classes:
        raise TTAMEError(f"{count} classes are asked for; expected 1 to {num_classes}")


def check_classes(classes: Tensor, count: int, num_classes: int) -> None:
    """Raise a TTAMEError unless classes are ``(B,)`` or ``(B, k)`` int64 below K."""
    if classes.dtype != torch.int64 or classes.ndim not in (1, 2) or len(classes) != count:
        raise TTAMEError(
            f"classes are {tuple(classes.shape)} {classes.dtype}; expected ({count},) or ({count}, k) int64"
        )
    if classes.numel() and not (classes.min() >= 0 and classes.max() < num_classes):
        raise TTAMEError(
            f"classes range from {classes.min()} to {classes.max()}; the classifier has 0 to {num_classes - 1}"
        )
