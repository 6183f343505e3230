"""T-TAME: a frozen backbone and its attention mechanism, explaining in a single forward pass."""

import inspect
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from safetensors.torch import save as to_bytes
from torch import Tensor, nn

from ttame_core.attention import AttentionMechanism
from ttame_core.classifiers.backbone import Backbone
from ttame_core.classifiers.checks import check_backbone
from ttame_core.classifiers.heads import head_of
from ttame_core.classifiers.labels import chosen_classes
from ttame_core.errors import TTAMEError, check_kind, check_seed, nearest, told
from ttame_core.files import atomic_path
from ttame_core.images.explanation import Explanation
from ttame_core.images.reading import check_at_hand, fit_whole, in_range, read_image
from ttame_core.masking import minmax, upsample
from ttame_core.recipes import ORDERS, VARIANTS

OPTIONS = inspect.getfullargspec(AttentionMechanism.__init__).kwonlyargs
PATH = (str, os.PathLike)


class TTAME(nn.Module):
    """A frozen classifier with a trainable attention mechanism on its tapped layers.

    Parameters
    ----------
    backbone : Backbone
        The classifier to be explained.
    variant : str or dict
        A row of Table VI (`VARIANTS`), or options of `AttentionMechanism`.
    seed : int
        Seed of the attention mechanism's initial weights.

    Raises
    ------
    TTAMEError
        For what is no backbone, no variant or no seed; a `NotServedError` where the variant ties
        its rows to the classifier's head and there is none.
    """

    seed: int | None  # None where the weights are a file's
    notes: dict[str, str]  # what else its file says of it, such as how it was trained

    @torch.inference_mode(False)
    def __init__(self, backbone: Backbone, variant: str | dict = "proposed", seed: int = 0):
        super().__init__()
        check_backbone(backbone)
        options = options_of(variant)
        check_seed(seed)
        self.backbone, self.variant, self.seed, self.notes = backbone, variant, int(seed), {}
        channels = [shape[0] for shape in backbone.shapes]
        head = head_of(backbone).weight if options.get("tied") else None
        with torch.random.fork_rng(devices=[]):  # a seed of its own, and none taken from the caller
            torch.manual_seed(self.seed)
            self.attention = AttentionMechanism(channels, backbone.num_classes, head, **options)
        self.attention.to(backbone.mean)  # device and precision

    @torch.no_grad()
    def forward(
        self,
        images: Tensor | str | Path,
        classes: Tensor | int | str | Sequence[int | str] | None = None,
        whole: bool = False,
    ) -> Explanation:
        """Explain images: classify, tap, attend, scale each map to [0, 1].

        Parameters
        ----------
        images : Tensor or str or Path
            ``(B, 3, H, W)`` in [0, 1], or the file of a photograph.
        classes : Tensor, int, str or sequence, optional
            ``(B,)`` or ``(B, k)`` int64; or k: each image's k most confident ones; or one class in
            words, see `Backbone.class_index`, or several, in words or numbers; by default each
            image's model truth.
        whole : bool
            Explain the whole of a photograph, whatever its proportions, in place of a square crop:
            see `fit_whole`. Images and maps are then of its proportions, and of its pixels.

        Raises
        ------
        TTAMEError
            If the images are none, or the classes do not go with them or the classifier. Values
            on an accelerator are not waited for: out of range, they get maps that are NaN.
        """
        backbone = self.backbone
        box: tuple = (...,)
        if isinstance(images, (str, Path)):
            if whole:
                picture, box = fit_whole(read_image(images), backbone.preprocessing)
            images = picture[None] if whole else backbone.read(images)
        check_at_hand(images)
        images = images.to(backbone.mean)
        with backbone.held():
            was_training = self.attention.training
            self.attention.eval()
            try:
                logits, features = backbone.features(images)
                scores = logits.softmax(1)
                classes = chosen_classes(classes, scores, backbone.labels, backbone.name)
                wanted = classes if classes.ndim == 2 else classes[:, None]  # (B, k)
                fine = None
                if not images.is_cpu:  # nobody waits to look: what is none gets NaN below
                    fine = in_range(images)[:, None] & (wanted >= 0) & (wanted < scores.shape[1])
                    wanted = wanted.clamp(0, scores.shape[1] - 1)
                maps = self.attention(features, wanted)  # (B, k, h_e, w_e)
                maps = minmax(maps.sigmoid() if self.attention.squashed else maps)
            finally:
                self.attention.train(was_training)
        if whole:
            maps = minmax(upsample(maps, images.shape[-2:])[box])
        confidences = scores.gather(1, wanted)
        if fine is not None:
            maps = maps.where(fine[..., None, None], torch.nan)
            confidences = confidences.where(fine, torch.nan)
        ranks = 1 + (scores[:, None] > confidences[..., None]).sum(2)
        if classes.ndim == 1:
            maps, confidences, ranks = maps[:, 0], confidences[:, 0], ranks[:, 0]
        return Explanation(maps, classes, confidences, ranks, images[box], backbone.labels)

    def explain(self, images: Tensor, classes: Tensor | None = None) -> Tensor:
        """Return the maps alone, ``(B, h_e, w_e)`` or ``(B, k, h_e, w_e)``; see `forward`."""
        return self(images, classes).maps

    def identity(self) -> dict[str, str]:
        """Say what the attention mechanism belongs to: the classifier, and the variant."""
        return {**self.backbone.identity(), "variant": json.dumps(self.variant)}

    def save(self, path: str | Path, half: bool = False, **metadata: str) -> None:
        """Write the attention mechanism and what it belongs to, as safetensors.

        In half precision the file is half as large; ``metadata`` are entries of its header beside
        the explainer's ``notes``.
        A TTAMEError is raised for what is no path or no text, and if the file cannot be written.
        """
        check_kind("path", path, PATH, "the name of a file to write, such as 'mine.safetensors'")
        for key, value in metadata.items():
            check_kind(key, value, str, "a text: str(...) or json.dumps(...)")
        state = {k: v.detach().cpu().contiguous() for k, v in self.attention.state_dict().items()}
        if half:
            state = {k: v.half() if v.is_floating_point() else v for k, v in state.items()}
        with atomic_path(path) as temporary:
            temporary.write_bytes(
                _in_order(to_bytes(state, {**self.notes, **metadata, **self.identity()}))
            )

    @classmethod
    def load(cls, path: str | Path, backbone: Backbone) -> "TTAME":
        """Read an attention mechanism that `save` wrote for this very backbone, in evaluation mode.

        Raises a TTAMEError if the file is missing or broken, its values do not fit or are not
        finite, or it was trained on another classifier, other weights, other preprocessing, other
        taps or another masking order.
        """
        metadata = cls.metadata(path)
        explainer = cls(backbone, json.loads(metadata["variant"]))
        expected = explainer.identity()
        said, own = (json.loads(each.get("preprocessing", "{}")) for each in (metadata, expected))
        if said and own | said == own:  # an older file lacks fields that came later
            metadata["preprocessing"] = expected["preprocessing"]
        for key in ("taps", "num_classes", "masking", "preprocessing", "backbone_fingerprint"):
            value = expected[key]
            if metadata.get(key) != value:
                raise TTAMEError(
                    f"the explainer {path} was trained with {key} {metadata.get(key)} (backbone "
                    f"{metadata.get('backbone')}), but this backbone has {value}; load that backbone, or train anew"
                )
        state = load_file(path)
        broken = [key for key, value in state.items() if not value.isfinite().all()]
        try:
            if broken:
                raise RuntimeError(f"there are values that are not finite: {', '.join(broken)}")
            explainer.attention.load_state_dict(state)
        except RuntimeError as error:
            raise TTAMEError(
                f"the explainer {path} does not hold what its header says ({' '.join(str(error).split())}); train "
                "anew, or take a whole copy"
            ) from error
        explainer.seed = None
        explainer.notes = {key: said for key, said in metadata.items() if key not in expected}
        return explainer.eval()

    @staticmethod
    def metadata(path: str | Path) -> dict[str, str]:
        """Read what an explainer's file says of itself; raise a TTAMEError where it is none."""
        check_kind("path", path, PATH, "the name of a file that TTAME.save wrote")
        if not Path(path).is_file():
            raise TTAMEError(f"there is no explainer at {path}; train one or correct the path")
        expected = "expected a file written by TTAME.save"
        try:
            with safe_open(path, framework="pt") as file:
                metadata = file.metadata() or {}
        except SafetensorError as error:
            raise TTAMEError(f"{path} is no explainer ({error}); {expected}") from error
        if "variant" not in metadata:
            raise TTAMEError(f"{path} is no explainer; {expected}")
        for key, fits in HEADER.items():
            value = metadata.get(key, "{}" if key == "preprocessing" else None)  # that came later
            try:
                fine = fits(value)
            except (TypeError, ValueError, RecursionError):  # no JSON, or no variant
                fine = False
            if not fine:
                raise TTAMEError(
                    f"{path} is no explainer that can be read, its header says {key} {told(value)}; train anew, or "
                    "take a whole copy"
                )
        return metadata


def options_of(variant: Any) -> dict[str, Any]:
    """Return a variant's options of `AttentionMechanism`; raise a TTAMEError where it is none."""
    if isinstance(variant, str) and variant in VARIANTS:
        return VARIANTS[variant]
    if isinstance(variant, dict) and variant.keys() <= {*OPTIONS}:
        return variant
    unknown, valid = variant, [*VARIANTS]
    if isinstance(variant, dict):
        unknown, valid = next(key for key in variant if key not in OPTIONS), OPTIONS
    elif not isinstance(variant, str):
        raise TTAMEError(f"variant is {told(variant)}; expected a name, or a dict of {OPTIONS}")
    raise TTAMEError(f"variant {told(unknown)} is unknown; {nearest(unknown, valid)}")


def _layers(value: str) -> bool:
    layers = json.loads(value)
    return isinstance(layers, list) and all(isinstance(layer, str) for layer in layers)


HEADER = {
    "backbone": lambda value: value is not None,
    "masking": lambda value: value in ORDERS,
    "taps": _layers,
    "num_classes": lambda value: int(value) > 0,
    "preprocessing": lambda value: isinstance(json.loads(value), dict),
    "variant": lambda value: options_of(json.loads(value)) is not None,
}
"""What a file's header has to say, each with a check of the text that it is."""


def _in_order(file: bytes) -> bytes:
    """Sort the header of a safetensors file, whose order is another in every process."""
    start = 8 + int.from_bytes(file[:8], "little")
    header = json.loads(file[8:start])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # the tensors are aligned
    return len(text).to_bytes(8, "little") + text + file[start:]
