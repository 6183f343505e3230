"""The demo's images: handwritten digits in photographs, out of the dependencies' packages."""

import colorsys
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from sklearn.datasets import load_digits
from torch import Tensor
from torch.utils.data import Dataset

from ttame_book.demo.photographs import package_photographs, split_generator
from ttame_core.errors import TTAMEError, check_known
from ttame_core.images.folders import SPLITS
from ttame_core.images.reading import Preprocessing

SHARES = {"train": (0.0, 0.6), "val": (0.6, 0.8), "test": (0.8, 1.0)}
"""Each split's share, from and to, of every class's digits and every photograph's columns."""


class DigitsInPhotographs(Dataset):
    """Handwritten digits on random crops of photographs, with the digit's pixels as ground truth.

    scikit-learn's 1,797 digits, enlarged to 26-34 px, coloured, 85-100 % opaque. The splits share
    neither digits nor regions of photographs, and image i depends on seed, split and i only.

    Parameters
    ----------
    split : {"train", "val", "test"}
        Part of the digits and of the photographs.
    size : int, optional
        Number of images, at least 1; 1,000 by default.
    seed : int
        Seed of everything that is drawn.
    image_size : int
        Side of an image in pixels, at least 40.

    Attributes
    ----------
    backgrounds, colours, opacity, labels : Tensor
        ``(n, 3, H, W)`` uint8, ``(n, 3)`` float, ``(n, H, W)`` uint8 and ``(n,)`` int64: what the
        images are composed of.

    Raises
    ------
    TTAMEError
        For an unknown split, or a size that is too small.
    """

    def __init__(self, split: str, size: int | None = 1000, seed: int = 0, image_size: int = 64):
        check_known("split", split, SPLITS)
        size = 1000 if size is None else size
        if size < 1 or image_size < 40:
            raise TTAMEError(f"size is {size}, image_size {image_size}; expected at least 1 and 40")
        self.split = split
        self.digits = _digit_indices(split)
        photographs = [_strip(np.asarray(p), split) for p in package_photographs()]
        parts = [
            _compose_parts(self.digits, photographs, split_generator(seed, split, i), image_size)
            for i in range(size)
        ]
        backgrounds, colours, opacity, labels = zip(*parts, strict=True)
        self.backgrounds = torch.from_numpy(np.stack(backgrounds)).permute(0, 3, 1, 2).contiguous()
        self.colours = torch.from_numpy(np.stack(colours)).float()
        self.opacity = torch.from_numpy(np.stack(opacity))
        self.labels = torch.tensor(labels)

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def masks(self) -> Tensor:
        """``(n, H, W)`` bool, pixels at least half covered by the digit."""
        return self.opacity >= 128

    def compose(
        self,
        chosen: Tensor | slice,
        fade: float | Tensor = 1.0,
        flat: Tensor | None = None,
        digit: bool = True,
    ) -> Tensor:
        """Compose the chosen images, ``(b, 3, H, W)`` in [0, 1], with their digits or without.

        The photograph fades, where ``fade`` goes from 1 to 0, to a ``flat`` colour, its mean by
        default: a number for all images or ``(b, 1, 1, 1)``, and ``(b, 3, 1, 1)``.
        """
        ground = self.backgrounds[chosen].float() / 255
        flat = ground.mean((2, 3), keepdim=True) if flat is None else flat
        ground = flat + fade * (ground - flat)
        if not digit:
            return ground
        opacity = self.opacity[chosen][:, None].float() / 255
        return torch.lerp(ground, self.colours[chosen][:, :, None, None], opacity)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {
            "image": self.compose(slice(index, index + 1))[0],
            "id": f"digits-{self.split}-{index:05d}",
            "label": int(self.labels[index]),
            "mask": self.opacity[index] >= 128,
        }


def two_digits(images: DigitsInPhotographs, count: int, seed: int = 0) -> list[dict[str, Any]]:
    """Paste on images the digit of another one, of another class and beside the first.

    At most so many items come back, fewer where no second digit fits: ``image`` and ``id`` as ever,
    ``labels`` (two int) and ``masks`` ``(2, H, W)`` bool.
    """
    items: list[dict[str, Any]] = []
    rng = np.random.default_rng(seed)
    for i in range(len(images)):
        if len(items) == count:
            break
        # about one in four fits: 200 tries find one, and bound the search where there is none
        for j in rng.permutation(len(images))[:200].tolist():
            overlap = (images.opacity[i].bool() & images.opacity[j].bool()).any()
            if overlap or images.labels[i] == images.labels[j]:
                continue
            first, opacity = images[i], images.opacity[j].float() / 255
            item = {
                "image": torch.lerp(first["image"], images.colours[j][:, None, None], opacity),
                "id": f"{first['id']}+{j:05d}",
                "labels": (first["label"], int(images.labels[j])),
                "masks": images.masks[[i, j]],
            }
            items.append(item)
            break
    return items


def _compose_parts(
    digits: np.ndarray, photographs: list[np.ndarray], rng: np.random.Generator, size: int
) -> tuple[np.ndarray, tuple[float, ...], np.ndarray, int]:
    """Draw background, colour, opacity and label of one image."""
    bunch = _digits()
    digit = rng.choice(digits)
    background = random_crop(photographs[rng.integers(len(photographs))], rng, size)
    side = int(rng.integers(26, 35))
    small = Image.fromarray((bunch.images[digit] * 255 / 16).astype(np.uint8))
    strokes = np.asarray(small.resize((side, side), Image.Resampling.BICUBIC), dtype=float) / 255
    top, left = rng.integers(0, size - side + 1, 2)
    opacity = np.zeros((size, size), np.uint8)
    cover = np.clip((strokes - 0.3) / 0.3, 0, 1) * rng.uniform(0.85, 1.0)
    opacity[top : top + side, left : left + side] = (cover * 255).round()
    # the photograph is dimmed where need be, so that the digit is the brighter one: a mask that
    # multiplies can then show a digit, never draw a dark one in its negative
    behind = background[top : top + side, left : left + side].mean() / 255
    value = rng.uniform(0.5, 1.0)
    background = (background * min(1.0, 0.4 * value / max(behind, 0.01))).astype(np.uint8)
    colour = colorsys.hsv_to_rgb(rng.uniform(), rng.uniform(0.1, 0.6), value)
    return background, colour, opacity, int(bunch.target[digit])


def random_crop(photograph: np.ndarray, rng: np.random.Generator, size: int) -> np.ndarray:
    """Crop a random square of 1 to 2.5 times the size, scale it to the size, perhaps mirror it.

    Takes ``(h, w, 3)`` uint8, and returns ``(size, size, 3)`` uint8.
    """
    height, width = photograph.shape[:2]
    side = min(int(size * rng.uniform(1.0, 2.5)), height, width)
    top, left = rng.integers(0, height - side + 1), rng.integers(0, width - side + 1)
    crop = Image.fromarray(photograph[top : top + side, left : left + side])
    pixels = np.asarray(crop.resize((size, size), Image.Resampling.BILINEAR))
    return pixels[:, ::-1] if rng.uniform() < 0.5 else pixels


@lru_cache
def _digits() -> Any:
    return load_digits()


def _digit_indices(split: str) -> np.ndarray:
    """Choose a split's share of each class's digits, in an order that never changes."""
    target = _digits().target
    low, high = SHARES[split]
    parts = []
    for label in range(10):
        own = np.random.default_rng(label).permutation(np.flatnonzero(target == label))
        parts.append(own[int(low * len(own)) : int(high * len(own))])
    return np.concatenate(parts)


def _strip(photograph: np.ndarray, split: str) -> np.ndarray:
    """Cut a split's columns out of a photograph."""
    low, high = SHARES[split]
    width = photograph.shape[1]
    return photograph[:, int(low * width) : int(high * width)]


def open_split(
    spec: dict[str, Any], split: str, root: Path, preprocessing: Preprocessing
) -> DigitsInPhotographs:
    """Open a split as a configuration describes it; see `Edition.images`."""
    return _composed(split, spec.get(split), image_size=preprocessing.image_size)


_composed = lru_cache(maxsize=3)(DigitsInPhotographs)  # seconds of work, for each training
