"""Pictures: resizing and cropping as a classifier's weights ask for; `decoding` reads them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from inspect import signature
from operator import index
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor
from torchvision.transforms import InterpolationMode
from torchvision.transforms import functional as F

from ttame_core.errors import TTAMEError, nearest, told
from ttame_core.images.decoding import read_image as read_image
from ttame_core.recipes import CROP_MODES

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
INTERPOLATIONS = {
    m.value: Image.Resampling[m.name]
    for m in InterpolationMode
    if m.name in Image.Resampling.__members__
}
"""Names of resampling filters, as classifiers' published preprocessing has them."""
Transform = Callable[[Image.Image, np.random.Generator], Tensor]
"""Makes ``(3, H, W)`` in [0, 1] of a picture, with a source of randomness."""
A_TRANSFORM = (
    "expected backbone.crop, or a callable of picture and NumPy generator that gives a tensor (3, H, W) in [0, 1]; of a "
    "torchvision transform t make one by lambda picture, rng: t(picture)"
)
Resize = int | tuple[int, int]
"""The shorter side, or height and width whatever the picture's proportions, in pixels."""


@dataclass(frozen=True)
class Preprocessing:
    """What a classifier expects of its images, as published with its weights.

    ``resize`` is the shorter side - or height and width, where proportions are not kept - and
    ``image_size`` the crop, in pixels; ``mean`` and ``std`` are those of pixel values in [0, 1], in
    the channel order that the classifier reads (``bgr`` says that it is blue, green, red).

    ``crop_mode`` is ``center`` where the middle is cut out as torchvision and timm do; ``floor`` as
    transformers does, which rounds margins of half a pixel down; ``pad`` where a picture that is
    smaller than the crop gets a black frame; ``border`` where ``resize`` is the longer side and
    the frame has the mean's colour. A field that makes no sense raises a TTAMEError.
    """

    image_size: int = 224
    resize: Resize = 256
    interpolation: str = "bilinear"
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
    bgr: bool = False
    crop_mode: str = "center"

    def __post_init__(self) -> None:
        both = isinstance(self.resize, Sequence)
        try:  # plain numbers and tuples, so that equal ones are equal, and written alike
            given: Any = self.resize if both else (self.resize,)
            if any(isinstance(side, bool) for side in (*given, self.image_size)):
                raise TypeError("True and False are no sizes")
            sides = tuple(map(index, given))
            plain: dict[str, Any] = {"image_size": index(self.image_size)}
            for field in ("mean", "std"):
                plain[field] = tuple(float(value) for value in getattr(self, field))
        except (TypeError, ValueError) as error:
            raise TTAMEError(
                f"{self}: {error}; expected sizes in whole pixels, mean and std of three numbers each"
            ) from error
        for field, value in {**plain, "resize": sides if both else sides[0]}.items():
            object.__setattr__(self, field, value)
        of_std = "expected three above 0 and at most 10, of pixels in [0, 1]"
        fits = self.crop_mode in ("pad", "border") or self.image_size <= min(sides, default=0)
        for field, fine, expected in (
            ("image_size", self.image_size > 0, "expected at least 1 pixel"),
            ("resize", len(sides) == 1 + both and min(sides) > 0, "expected pixels, one or two"),
            ("resize", fits, f"expected at least image_size, {self.image_size}: give a larger one"),
            ("mean", _three(self.mean, 0, 1), "expected three of [0, 1]: divide those of 0-255"),
            # a processor that leaves pixels at 0 to 255 has 1 / 255; no published one is above 1
            ("std", _three(self.std, 1e-6, 10), f"{of_std}: divide those of 0-255"),
            ("bgr", isinstance(self.bgr, bool), "expected True or False"),
            *(
                (field, getattr(self, field) in [*known], nearest(getattr(self, field), known))
                for field, known in (("interpolation", INTERPOLATIONS), ("crop_mode", CROP_MODES))
            ),
        ):
            if not fine:
                raise TTAMEError(
                    f"{field} of a preprocessing is {getattr(self, field)!r}; {expected}"
                )

    def of_size(self, size: Any) -> "Preprocessing":
        """Return it for images of another size, resized in proportion; None changes nothing.

        Raises a TTAMEError for a size that is no square.
        """
        if size is None:
            return self
        side, *others = list(size)[-2:] if isinstance(size, Sequence) else [size]
        if any(other != side for other in others) or not isinstance(side, int):
            raise TTAMEError(
                f"the image size is {size!r}; expected one number of pixels, as squares are explained"
            )
        scale, to = side / self.image_size, self.resize
        resize = round(to * scale) if isinstance(to, int) else tuple(round(s * scale) for s in to)
        return replace(self, image_size=side, resize=resize)  # type: ignore[arg-type]

    def crop(self, picture: Image.Image, rng: np.random.Generator | None = None) -> Tensor:
        """Resize and crop a picture as the weights ask for, to ``(3, H, W)`` in [0, 1]."""
        picture = self._resized(picture)
        size = self.image_size
        if self.crop_mode == "floor":
            margins = (picture.height - size) // 2, (picture.width - size) // 2
            return to_tensor(F.crop(picture, *margins, size, size))
        return to_tensor(F.center_crop(picture, [size]))

    def random_crop(self, picture: Image.Image, rng: np.random.Generator) -> Tensor:
        """The paper's training crop (Sec. IV-C), at the weights' own sizes."""
        picture, size = self._resized(picture), self.image_size
        left = int(rng.integers(picture.width - size + 1))
        top = int(rng.integers(picture.height - size + 1))
        return to_tensor(picture.crop((left, top, left + size, top + size)))

    def _resized(self, picture: Image.Image) -> Image.Image:
        """Resize a picture, and frame it where the crop is larger and the mode says so."""
        sides = [self.resize] if isinstance(self.resize, int) else list(self.resize)
        ratio, border = max(picture.size) / min(picture.size), self.crop_mode == "border"
        # at 1000:1 a quarter of a gigabyte is made for one square
        if round(sides[0] / ratio) < 1 if border else len(sides) == 1 and ratio > 1000:
            raise TTAMEError(
                f"a picture of {picture.width} x {picture.height} px is too narrow to be resized to {self.resize}; "
                "cut a part out of it"
            )
        # timm takes seconds to import, and few classifiers ask for a frame
        if border:
            from timm.data.transforms import ResizeKeepRatio

            resize = ResizeKeepRatio(self.resize, longest=1, interpolation=self.interpolation)
            picture = resize(picture)
        else:
            picture = F.resize(picture, sides, InterpolationMode(self.interpolation))
        if min(picture.size) < self.image_size:
            from timm.data.transforms import CenterCropOrPad

            colour = self.mean[::-1] if self.bgr else self.mean
            fill: Any = tuple(round(255 * value) for value in colour) if border else 0
            room = [max(self.image_size, side) for side in (picture.height, picture.width)]
            picture = CenterCropOrPad(room, fill)(picture)
        return picture


def to_tensor(picture: Image.Image) -> Tensor:
    """Turn an RGB picture into ``(3, H, W)`` float in [0, 1]."""
    return torch.from_numpy(np.array(picture)).permute(2, 0, 1).float() / 255


def check_transform(transform: Any) -> None:
    """Raise a TTAMEError unless it can be called with a picture and a generator."""
    try:
        signature(transform).bind(None, None)
    except TypeError as error:
        raise TTAMEError(f"transform is {told(transform)} ({error}); {A_TRANSFORM}") from error
    except ValueError:  # what is built in may not say what it takes
        pass


def transformed(transform: Transform, picture: Image.Image, rng: np.random.Generator) -> Tensor:
    """Apply a transform; raise a TTAMEError unless it gives a tensor ``(3, H, W)``."""
    image = transform(picture, rng)
    if not isinstance(image, Tensor) or image.ndim != 3:
        found = tuple(image.shape) if isinstance(image, Tensor) else told(image)
        raise TTAMEError(f"the transform gives {found} in place of (3, H, W); {A_TRANSFORM}")
    return image


def random_resized(
    size: int, interpolation: str = "bicubic", scale: tuple[float, float] = (0.35, 1.0)
) -> Transform:
    """Make a transform for few or small images: a random square of the area, perhaps mirrored."""

    def transform(picture: Image.Image, rng: np.random.Generator) -> Tensor:
        side = max(1, int(min(picture.size) * np.sqrt(rng.uniform(*scale))))
        left = int(rng.integers(picture.width - side + 1))
        top = int(rng.integers(picture.height - side + 1))
        box = (left, top, left + side, top + side)
        picture = picture.resize((size, size), INTERPOLATIONS[interpolation], box=box)
        return to_tensor(ImageOps.mirror(picture) if rng.uniform() < 0.5 else picture)

    return transform


def _three(values: Sequence[float], low: float, high: float) -> bool:
    """Say whether they are three numbers of a range."""
    return len(values) == 3 and all(low <= value <= high for value in values)


def fit_whole(picture: Image.Image, expected: Preprocessing) -> tuple[Tensor, tuple]:
    """Fit a whole picture into the square that a classifier takes, its proportions kept.

    The rest of the square is the mean colour, which is 0 once standardised.

    Returns
    -------
    tuple of Tensor and tuple
        ``(3, S, S)`` in [0, 1], and the index ``[..., rows, columns]`` of the picture in it.
    """
    side = expected.image_size
    scale = side / max(picture.size)
    width, height = (max(1, round(length * scale)) for length in picture.size)
    small = picture.resize((width, height), INTERPOLATIONS[expected.interpolation])
    left, top = (side - width) // 2, (side - height) // 2
    box = (..., slice(top, top + height), slice(left, left + width))
    mean = torch.tensor(expected.mean[::-1] if expected.bgr else expected.mean)
    square = mean.float()[:, None, None].expand(3, side, side).clone()
    square[box] = to_tensor(small)
    return square, box


def check_images(images: Tensor, look: bool = True) -> None:
    """Raise a TTAMEError unless images are ``(B, 3, H, W)`` floats in [0, 1].

    Where nobody is to ``look`` at the values, any will do.
    """
    if not isinstance(images, Tensor):
        raise TTAMEError(
            f"images are a {type(images).__name__}; expected a tensor (B, 3, H, W) in [0, 1], or the file of one photograph"
        )
    if images.is_meta or images.is_nested or images.layout != torch.strided:
        raise TTAMEError(
            "images are a tensor without values (meta), or sparse or nested; expected a dense one, (B, 3, H, W) in "
            "[0, 1]: images.to_dense(), or make it on a device"
        )
    # 8-bit floats have no order that could be asked for
    fine = images.is_floating_point() and images.dtype.itemsize > 1
    if images.ndim != 4 or images.shape[1] != 3 or not fine:
        raise TTAMEError(
            f"images are {tuple(images.shape)} {images.dtype}; expected (B, 3, H, W) floats in [0, 1]"
        )
    if not images.numel():
        raise TTAMEError(f"images are {tuple(images.shape)}; expected at least one, and a pixel")
    if look:
        check_range(images)


def check_at_hand(images: Tensor) -> None:
    """Check images, but for the values of those on an accelerator, which would be waited for."""
    check_images(images, look=getattr(images, "is_cpu", True))


def in_range(images: Tensor) -> Tensor:
    """Say of each image ``(B, C, H, W)`` whether its values are in [0, 1]: ``(B,)`` bool."""
    return ((images >= 0) & (images <= 1)).flatten(1).all(1)


def check_range(images: Tensor) -> None:
    """Raise a TTAMEError unless images ``(B, C, H, W)`` have finite values in [0, 1]."""
    low, high = images.aminmax()
    if low < 0 or high > 1 or not torch.isfinite(low + high):
        raise TTAMEError(
            f"images range from {low:.3g} to {high:.3g}; expected [0, 1]: the backbone standardises itself, "
            "so give pixel values / 255"
        )
