"""T-TAME: a frozen backbone and its attention mechanism, explaining in a single forward pass."""

import json
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from safetensors.torch import save as to_bytes
from torch import Tensor, nn

from ttame_core.attention import AttentionMechanism
from ttame_core.classifiers.backbone import Backbone
from ttame_core.classifiers.labels import chosen_classes
from ttame_core.errors import TTAMEError, nearest
from ttame_core.files import atomic_path
from ttame_core.images.explanation import Explanation
from ttame_core.images.reading import check_images, fit_whole, read_image
from ttame_core.masking import minmax, upsample
from ttame_core.recipes import VARIANTS


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
    """

    @torch.inference_mode(False)
    def __init__(self, backbone: Backbone, variant: str | dict = "proposed", seed: int = 0):
        super().__init__()
        if isinstance(variant, str) and variant not in VARIANTS:
            raise TTAMEError(f"variant {variant!r} is unknown; {nearest(variant, VARIANTS)}")
        options = VARIANTS[variant] if isinstance(variant, str) else variant
        self.backbone = backbone
        self.variant = variant
        channels = [shape[0] for shape in backbone.shapes]
        with torch.random.fork_rng(devices=[]):  # a seed of its own, and none taken from the caller
            torch.manual_seed(seed)
            self.attention = AttentionMechanism(channels, backbone.num_classes, **options)
        self.attention.to(backbone.mean.device)

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
            If the images are none, or the classes do not go with them or the classifier.
        """
        backbone = self.backbone
        box: tuple = (...,)
        if isinstance(images, (str, Path)):
            if whole:
                picture, box = fit_whole(read_image(images), backbone.preprocessing)
            images = picture[None] if whole else backbone.read(images)
        check_images(images)
        images = images.to(backbone.mean)
        with backbone.held():
            was_training = self.attention.training
            self.attention.eval()
            try:
                logits, features = backbone.features(images)
                scores = logits.softmax(1)
                classes = chosen_classes(classes, scores, backbone.labels, backbone.name)
                wanted = classes if classes.ndim == 2 else classes[:, None]  # (B, k)
                maps = self.attention(features, wanted)  # (B, k, h_e, w_e)
                maps = minmax(maps.sigmoid() if self.attention.squashed else maps)
            finally:
                self.attention.train(was_training)
        if whole:
            maps = minmax(upsample(maps, images.shape[-2:])[box])
        confidences = scores.gather(1, wanted)
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

        In half precision the file is half as large; ``metadata`` are further entries of its header.
        """
        state = {k: v.detach().cpu().contiguous() for k, v in self.attention.state_dict().items()}
        if half:
            state = {k: v.half() if v.is_floating_point() else v for k, v in state.items()}
        with atomic_path(path) as temporary:
            temporary.write_bytes(_in_order(to_bytes(state, {**metadata, **self.identity()})))

    @classmethod
    def load(cls, path: str | Path, backbone: Backbone) -> "TTAME":
        """Read an attention mechanism that `save` wrote for this very backbone, in evaluation mode.

        Raises a TTAMEError if the file is missing or broken, or was trained on another classifier,
        other weights, other preprocessing, other taps or another masking order.
        """
        metadata = cls.metadata(path)
        explainer = cls(backbone, json.loads(metadata["variant"]))
        expected = explainer.identity()
        told, own = (json.loads(each.get("preprocessing", "{}")) for each in (metadata, expected))
        if told and own | told == own:  # an older file lacks fields that came later
            metadata["preprocessing"] = expected["preprocessing"]
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
        """Read what an explainer's file says of itself; raise a TTAMEError where it is none."""
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
        return metadata


def _in_order(file: bytes) -> bytes:
    """Sort the header of a safetensors file, whose order is another in every process."""
    start = 8 + int.from_bytes(file[:8], "little")
    header = json.loads(file[8:start])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # the tensors are aligned
    return len(text).to_bytes(8, "little") + text + file[start:]
