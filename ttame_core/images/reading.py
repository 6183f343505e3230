"""Pictures: decoding files of any mode, resizing and cropping as a classifier's weights ask for."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from ttame_core.errors import TTAMEError

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
INTERPOLATIONS = {m.name.lower(): m for m in Image.Resampling}
"""Names of resampling filters, as classifiers' published preprocessing has them."""
UNREADABLE = (OSError, SyntaxError, ValueError, Image.DecompressionBombError)
"""What Pillow raises for files that are no images, or too large to be honest ones."""
Transform = Callable[[Image.Image, np.random.Generator], Tensor]
"""Makes ``(3, H, W)`` in [0, 1] of a picture, with a source of randomness."""
Resize = int | tuple[int, int]
"""The shorter side, or height and width whatever the picture's proportions, in pixels."""


@dataclass(frozen=True)
class Preprocessing:
    """What a classifier expects of its images, as published with its weights.

    ``resize`` is the shorter side - or height and width, where proportions are not kept - and
    ``image_size`` the crop, in pixels; ``mean`` and ``std`` are those of pixel values in [0, 1], in
    the channel order that the classifier reads (``bgr`` says that it is blue, green, red).
    """

    image_size: int = 224
    resize: Resize = 256
    interpolation: str = "bilinear"
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
    bgr: bool = False

    @property
    def crop(self) -> Transform:
        """The weights' own resizing and centre crop."""
        return centre_crop(self.image_size, self.resize, self.interpolation)

    @property
    def random_crop(self) -> Transform:
        """The paper's training crop at the weights' own sizes."""
        return random_crop_of(self.image_size, self.resize, self.interpolation)


def read_image(path: str | Path) -> Image.Image:
    """Decode an image of any mode to RGB.

    Parameters
    ----------
    path : str or Path
        Greyscale, palette and 16-bit images are converted, transparency is laid on white, and the
        camera's orientation is applied.

    Returns
    -------
    Image
        RGB, 8 bits a channel.

    Raises
    ------
    TTAMEError
        If the file is missing or no readable image.
    """
    if not Path(path).is_file():
        found = "a folder" if Path(path).is_dir() else "not there"
        raise TTAMEError(f"{path} is {found}; expected an image file: correct the path")
    try:
        with Image.open(path) as file:
            picture = ImageOps.exif_transpose(file)
            picture.load()
    except UNREADABLE as error:
        raise TTAMEError(
            f"{path} cannot be read as an image ({error}); remove it or put a whole one in its place"
        ) from error
    if picture.mode.startswith("I") or picture.mode == "F":
        grey = np.asarray(picture, dtype=np.float64)
        # integers hold 16 bits here, which Pillow's own conversion would cut off at 255
        grey *= 1 if picture.mode == "F" else 255 / 65535
        return Image.fromarray(grey.round().clip(0, 255).astype(np.uint8)).convert("RGB")
    if "A" in picture.mode or "transparency" in picture.info:
        picture = picture.convert("RGBA")
        white = Image.new("RGBA", picture.size, "white")
        return Image.alpha_composite(white, picture).convert("RGB")
    return picture.convert("RGB")


def to_tensor(picture: Image.Image) -> Tensor:
    """Turn an RGB picture into ``(3, H, W)`` float in [0, 1]."""
    return torch.from_numpy(np.array(picture)).permute(2, 0, 1).float() / 255


def centre_crop(size: int, resize: Resize, interpolation: str = "bicubic") -> Transform:
    """Make the evaluation transform: shorter side, or height and width, to ``resize``; centre crop.

    A picture that is already ``size`` x ``size`` has been cropped before and is taken as it is.
    """

    def transform(picture: Image.Image, rng: np.random.Generator) -> Tensor:
        if picture.size == (size, size):
            return to_tensor(picture)
        picture = _resized(picture, resize, interpolation)
        left, top = (picture.width - size) // 2, (picture.height - size) // 2
        return to_tensor(picture.crop((left, top, left + size, top + size)))

    return transform


def random_crop_of(size: int, resize: Resize, interpolation: str = "bicubic") -> Transform:
    """Make the paper's training transform: as `centre_crop` resizes, random crop (Sec. IV-C)."""

    def transform(picture: Image.Image, rng: np.random.Generator) -> Tensor:
        picture = _resized(picture, resize, interpolation)
        left = int(rng.integers(picture.width - size + 1))
        top = int(rng.integers(picture.height - size + 1))
        return to_tensor(picture.crop((left, top, left + size, top + size)))

    return transform


def random_resized(
    size: int, interpolation: str = "bicubic", scale: tuple[float, float] = (0.35, 1.0)
) -> Transform:
    """Make a transform for few or small images: a random square of the area, perhaps mirrored."""

    def transform(picture: Image.Image, rng: np.random.Generator) -> Tensor:
        side = int(min(picture.size) * np.sqrt(rng.uniform(*scale)))
        left = int(rng.integers(picture.width - side + 1))
        top = int(rng.integers(picture.height - side + 1))
        box = (left, top, left + side, top + side)
        picture = picture.resize((size, size), INTERPOLATIONS[interpolation], box=box)
        return to_tensor(ImageOps.mirror(picture) if rng.uniform() < 0.5 else picture)

    return transform


def _resized(picture: Image.Image, to: Resize, interpolation: str) -> Image.Image:
    """Resize so that the shorter side, or height and width, are ``to`` pixels."""
    if isinstance(to, int):
        scale = to / min(picture.size)
        # at least: a side that rounds below would leave no room for the crop
        size = (max(to, round(picture.width * scale)), max(to, round(picture.height * scale)))
    else:
        size = (to[1], to[0])
    return picture if size == picture.size else picture.resize(size, INTERPOLATIONS[interpolation])


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
