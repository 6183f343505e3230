"""The demo's images, out of the dependencies' wheels: digits in photographs, and photographs.

Items are dicts as `ttame_core.data` describes.
"""

import colorsys
import importlib.util
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from PIL import Image
from sklearn.datasets import load_digits
from torch import Tensor
from torch.utils.data import Dataset

from ttame_core.data import SPLITS, Resize, centre_crop, check_split, random_resized, read_image
from ttame_core.errors import TTAMEError

STRIPS = {
    "train": (0.0, 0.6),
    "val": (0.6, 0.8),
    "test": (0.8, 1.0),
}  # of each photograph's columns
PHOTOGRAPHS = (
    ("skimage", "data/astronaut.png"),
    ("skimage", "data/chelsea.png"),
    ("skimage", "data/coffee.png"),
    ("skimage", "data/rocket.jpg"),
    ("skimage", "data/motorcycle_left.png"),
    ("skimage", "data/hubble_deep_field.jpg"),
    ("skimage", "data/ihc.png"),
    ("skimage", "data/retina.jpg"),
    ("sklearn", "datasets/images/china.jpg"),
    ("sklearn", "datasets/images/flower.jpg"),
    ("matplotlib", "mpl-data/sample_data/grace_hopper.jpg"),
)
"""Colour photographs inside wheels: (package, file)."""


class DigitsInPhotographs(Dataset):
    """Handwritten digits on random crops of photographs, with the digit's pixels as ground truth.

    scikit-learn's 1,797 digits, enlarged to 26-34 px, coloured, 85-100 % opaque, brighter than the photograph, which is
    dimmed where need be: a mask that multiplies can then show a digit, never draw a dark one in its negative.
    Digits and regions of the photographs are disjoint between the splits. Image i depends on seed, split
    and i only.

    Parameters
    ----------
    split : {"train", "val", "test"}
        Part of the digits and of the photographs.
    size : int, optional
        Number of images.
    seed : int
        Of everything that is drawn.
    image_size : int
        Side in pixels, at least 40.

    Attributes
    ----------
    backgrounds, colours, opacity, labels : Tensor
        ``(n, 3, H, W)`` uint8, ``(n, 3)`` float, ``(n, H, W)`` uint8 and ``(n,)`` int64: what the
        images are composed of.

    Raises
    ------
    TTAMEError
        For an unknown split or a size below 1.
    """

    def __init__(self, split: str, size: int | None = 1000, seed: int = 0, image_size: int = 64):
        check_split(split)
        size = 1000 if size is None else size
        if size < 1 or image_size < 40:
            raise TTAMEError(f"size is {size}, image_size {image_size}; expected at least 1 and 40")
        self.split = split
        self.digits = _digit_indices(split)
        photographs = [_strip(np.asarray(p), split) for p in photographs_in_wheels()]
        parts = [
            _compose_parts(self.digits, photographs, _generator(seed, split, i), image_size)
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
        """Compose images.

        Parameters
        ----------
        chosen : Tensor or slice
            Which.
        fade : float or Tensor
            1: on the photograph; 0: on a flat colour; between: in between. For all, or ``(b, 1, 1, 1)``.
        flat : Tensor, optional
            ``(b, 3, 1, 1)``, the colours; the photographs' mean colours by default.
        digit : bool
            Whether the digit is there.

        Returns
        -------
        Tensor
            ``(b, 3, H, W)`` in [0, 1].
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

    Parameters
    ----------
    images : DigitsInPhotographs
        Where the digits come from.
    count : int
        Images wanted; fewer come back where no second digit fits.
    seed : int
        Of the choice of second digits.

    Returns
    -------
    list of dict
        ``image`` and ``id`` as ever, ``labels`` (two int) and ``masks`` ``(2, H, W)`` bool.
    """
    items: list[dict[str, Any]] = []
    rng = np.random.default_rng(seed)
    for i in range(len(images)):
        if len(items) == count:
            break
        for j in rng.permutation(len(images))[:200].tolist():
            apart = not (images.opacity[i].bool() & images.opacity[j].bool()).any()
            if apart and images.labels[i] != images.labels[j]:
                opacity = images.opacity[j].float() / 255
                first = images[i]
                image = torch.lerp(first["image"], images.colours[j][:, None, None], opacity)
                labels = (first["label"], int(images.labels[j]))
                masks = images.masks[[i, j]]
                name = f"{first['id']}+{j:05d}"
                items.append({"image": image, "id": name, "labels": labels, "masks": masks})
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
    behind = background[top : top + side, left : left + side].mean() / 255
    value = rng.uniform(0.5, 1.0)
    background = (background * min(1.0, 0.4 * value / max(behind, 0.01))).astype(np.uint8)
    colour = colorsys.hsv_to_rgb(rng.uniform(), rng.uniform(0.1, 0.6), value)
    return background, colour, opacity, int(bunch.target[digit])


def random_crop(photograph: np.ndarray, rng: np.random.Generator, size: int) -> np.ndarray:
    """Crop a random square of 1 to 2.5 times the size, scale it to the size, perhaps mirror it.

    Parameters
    ----------
    photograph : ndarray
        ``(h, w, 3)`` uint8.
    rng : Generator
        Source of randomness.
    size : int
        Side of the result in pixels.

    Returns
    -------
    ndarray
        ``(size, size, 3)`` uint8.
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
    """60, 20 and 20 % of each class's digits, in an order that never changes."""
    target = _digits().target
    low, high = STRIPS[split]
    parts = []
    for label in range(10):
        own = np.random.default_rng(label).permutation(np.flatnonzero(target == label))
        parts.append(own[int(low * len(own)) : int(high * len(own))])
    return np.concatenate(parts)


def _strip(photograph: np.ndarray, split: str) -> np.ndarray:
    """A split's columns of a photograph."""
    low, high = STRIPS[split]
    width = photograph.shape[1]
    return photograph[:, int(low * width) : int(high * width)]


def _generator(seed: int, split: str, *index: int) -> np.random.Generator:
    return np.random.default_rng([seed, SPLITS.index(split), *index])


@lru_cache
def photographs_in_wheels() -> tuple[Image.Image, ...]:
    """Read the colour photographs that come with scikit-image, scikit-learn and matplotlib."""
    return tuple(read_image(wheel_folder(package) / name) for package, name in PHOTOGRAPHS)


def wheel_folder(package: str) -> Path:
    """Find an installed package's folder without importing it.

    Raises
    ------
    TTAMEError
        If it is not installed.
    """
    found = importlib.util.find_spec(package)
    if found is None or found.origin is None:
        raise TTAMEError(
            f"the photographs of {package} are needed, but it is not installed; pip install it"
        )
    return Path(found.origin).parent


class WheelPhotographs(Dataset):
    """Real photographs out of the dependencies' wheels, for ImageNet classifiers.

    Training: random-resized crops of scikit-image's, scikit-learn's and matplotlib's photographs and of
    eight of foolbox's twenty. Validation and test: four and eight others of foolbox's, whole.

    Parameters
    ----------
    split : {"train", "val", "test"}
        The splits share no photograph.
    size : int, optional
        Images; training crops can be any number (500 by default), the others have what there is.
    seed : int
        Of the crops.
    image_size : int
        Side of the images, in pixels.
    resize : int or tuple of int
        The shorter side before they are cropped, or height and width.
    interpolation : str
        How they are resized.

    Raises
    ------
    TTAMEError
        For an unknown split, or more photographs than there are.
    """

    PARTS: ClassVar = {"train": slice(12, 20), "val": slice(8, 12), "test": slice(0, 8)}

    def __init__(
        self,
        split: str,
        size: int | None = None,
        seed: int = 0,
        image_size: int = 224,
        resize: Resize = 256,
        interpolation: str = "bicubic",
    ):
        check_split(split)
        files = sorted((wheel_folder("foolbox") / "data").glob("imagenet_*.jpg"))[self.PARTS[split]]
        if split == "train":
            files = [wheel_folder(package) / name for package, name in PHOTOGRAPHS] + files
        elif size is not None and size > len(files):
            raise TTAMEError(
                f"size is {size}; the wheels hold {len(files)} photographs for {split}"
            )
        self.split, self.seed, self.epoch = split, seed, 0
        self.size = size or (500 if split == "train" else len(files))
        self.files = files
        self.pictures = [read_image(f) for f in files]
        self.transform = (
            random_resized(image_size, interpolation)
            if split == "train"
            else centre_crop(image_size, resize, interpolation)
        )

    def set_epoch(self, epoch: int) -> None:
        """Draw other crops in each epoch, the same whenever that epoch is run."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> dict[str, Any]:
        if not 0 <= index < self.size:  # what ends a loop over the images
            raise IndexError(f"image {index} of {self.size}")
        which = index % len(self.files)
        rng = _generator(self.seed, self.split, self.epoch, index)
        name = self.files[which].stem
        image_id = f"{name}-{index:05d}" if self.split == "train" else name
        return {"image": self.transform(self.pictures[which], rng), "id": image_id}
