"""What an explanation is, how it is drawn - a map's colours over its image - and its files."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from torch import Tensor

from ttame_core.errors import TTAMEError, needed
from ttame_core.masking import upsample

SOFTWARE = "ttame_core"  # what overlays say that wrote them, so that none is taken for a photograph
OPACITY = 0.6
# matplotlib's inferno at sixteen equal steps: even in lightness, so readable by the colour-blind
# and in grey
COLOURS = (
    *("#000004", "#0c0826", "#240c4f", "#420a68", "#5d126e", "#781c6d", "#932667", "#ae305c"),
    *("#c73e4c", "#dd513a", "#ed6925", "#f8850f", "#fca50a", "#fac62d", "#f2e661", "#fcffa4"),
)


def colours_of(heat: np.ndarray) -> np.ndarray:
    """Colour values in [0, 1] of any shape ``(...)``, as ``(..., 3)`` in [0, 1]."""
    anchors = np.array([[int(c[i : i + 2], 16) / 255 for i in (1, 3, 5)] for c in COLOURS])
    places = np.linspace(0, 1, len(anchors))
    return np.stack([np.interp(heat, places, channel) for channel in anchors.T], -1)


def overlay(image: Tensor, heat: Tensor) -> Image.Image:
    """Lay a map's colours over its image in grey.

    Parameters
    ----------
    image : Tensor
        ``(3, H, W)`` in [0, 1].
    heat : Tensor
        ``(h, w)`` in [0, 1]; upsampled bilinearly.

    Returns
    -------
    Image
        ``H`` x ``W``, RGB.
    """
    large = upsample(heat.detach().cpu()[None].float(), tuple(image.shape[-2:]))[0]
    grey = image.detach().cpu().mean(0).numpy()[..., None]
    mixed = OPACITY * colours_of(large.numpy()) + (1 - OPACITY) * grey
    return Image.fromarray((255 * mixed).round().astype(np.uint8))


def save_overlay(path: Path, image: Tensor, heat: Tensor) -> None:
    """Write an `overlay` as PNG that says what wrote it."""
    software = PngInfo()
    software.add_text("Software", SOFTWARE)
    overlay(image, heat).save(path, pnginfo=software)


def earlier_explanations(record: Path, about: dict[str, str]) -> dict[tuple[str, int], dict]:
    """Read the rows of an ``explanations.json`` by photograph and class, none where it is missing.

    Raises a TTAMEError if it is another kind of file, or of another explainer than ``about`` says.
    """
    if not record.exists():
        return {}
    try:
        found = json.loads(record.read_text())
        rows = {(row["photo"], row["index"]): row for row in found.pop("explanations")}
        {row["map"].lower() for row in rows.values()}
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise TTAMEError(
            f"{record} is no record of explanations ({error!r}); move it away, or name another folder by --out"
        ) from error
    if found != about:
        raise TTAMEError(
            f"the maps in {record.parent} are those of {found}, these would be of {about}; name another folder by --out"
        )
    return rows


@dataclass(frozen=True)
class Explanation:
    """Maps and what they explain; of one class an image, or of k where these were asked for.

    Attributes
    ----------
    maps : Tensor
        ``(B, h_e, w_e)`` or ``(B, k, h_e, w_e)`` in [0, 1].
    classes, confidences, ranks : Tensor
        ``(B,)`` or ``(B, k)``: int64 classes explained; their softmax scores in [0, 1]; int64
        ranks, 1 for the class with the highest score.
    images : Tensor
        ``(B, 3, H, W)`` in [0, 1], what was explained.
    labels : sequence of str
        The classifier's K classes in words.
    """

    maps: Tensor
    classes: Tensor
    confidences: Tensor
    ranks: Tensor
    images: Tensor
    labels: Sequence[str] = ()

    def plot(self) -> Any:
        """Draw each image with its maps beside it, as a figure of matplotlib's."""
        pyplot = needed("matplotlib.pyplot", "matplotlib", "Explanation.plot")
        maps = self.maps.reshape(len(self.images), -1, *self.maps.shape[-2:])  # (B, k, h, w)
        rows, columns = len(maps), maps.shape[1] + 1
        figure, axes = pyplot.subplots(
            rows, columns, figsize=(3 * columns, 3.2 * rows), squeeze=False, layout="constrained"
        )
        named = zip(
            self.classes.flatten().tolist(), self.confidences.flatten().tolist(), strict=True
        )
        for row, image, heats in zip(axes, self.images, maps, strict=True):
            row[0].imshow(image.detach().cpu().permute(1, 2, 0).numpy())
            for axis, heat in zip(row[1:], heats, strict=True):
                index, confidence = next(named)
                label = self.labels[index] if self.labels else f"class {index}"
                axis.imshow(overlay(image, heat))
                axis.set_title(f"{label}, {percent(confidence)}")
            for axis in row:
                axis.set_axis_off()
        return figure


def percent(share: float) -> str:
    """Write a share in per cent; no line breaks in front of the sign."""
    return f"{100 * share:.0f}\N{NO-BREAK SPACE}%"
