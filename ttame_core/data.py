"""Images of any folder: decoding, transforms, splits.

An item is a dict: ``image`` ``(3, H, W)`` float in [0, 1], ``id``, and where they exist ``label``
(int) and ``mask`` ``(H, W)`` bool, the object's pixels.
"""

import os
import warnings
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps
from timm.data import ImageNetInfo
from torch import Tensor
from torch.utils.data import Dataset, Subset

from ttame_core.errors import TTAMEError, nearest

GOLDEN = (5**0.5 - 1) / 2
SPLITS = ("train", "val", "test")
SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".gif", ".tif", ".tiff", ".webp"}
INTERPOLATIONS = {m.name.lower(): m for m in Image.Resampling}
"""Names of resampling filters, as classifiers' published preprocessing has them."""
UNREADABLE = (OSError, SyntaxError, ValueError, Image.DecompressionBombError)
"""What Pillow raises for files that are no images, or too large to be honest ones."""
Transform = Callable[[Image.Image, np.random.Generator], Tensor]
"""Picture and source of randomness to ``(3, H, W)`` in [0, 1]."""
Resize = int | tuple[int, int]
"""The shorter side, or height and width whatever the picture's proportions, in pixels."""


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
        grey *= 1 if picture.mode == "F" else 255 / 65535  # integers of this kind are 16 bits
        return Image.fromarray(grey.round().clip(0, 255).astype(np.uint8)).convert("RGB")
    if "A" in picture.mode or "transparency" in picture.info:
        picture = picture.convert("RGBA")
        white = Image.new("RGBA", picture.size, "white")
        return Image.alpha_composite(white, picture).convert("RGB")
    return picture.convert("RGB")


def to_tensor(picture: Image.Image) -> Tensor:
    """Turn an RGB picture into ``(3, H, W)`` float in [0, 1]."""
    return torch.from_numpy(np.array(picture)).permute(2, 0, 1).float() / 255


def image_files(root: Path) -> list[Path]:
    """List the images in a folder and those in it, links to folders followed, in sorted order."""
    found = (
        Path(folder) / name
        for folder, _, names in os.walk(root, followlinks=True)
        for name in names
    )
    return sorted(file for file in found if file.suffix.lower() in SUFFIXES)


class ImageFolder(Dataset):
    """Images of a folder and the folders in it, in sorted order or a seeded choice of them.

    Class folders are not needed, and labels are not used for training. Where all folders have the names of
    ImageNet classes (``n02102040``) items say the ``label`` too.

    Parameters
    ----------
    root : str or Path
        Folder.
    transform : callable
        Picture and random generator to ``(3, H, W)`` in [0, 1].
    part : slice, optional
        Part of the images in a seeded order, so that disjoint parts can be validation and test.
    seed : int
        Of that order and of the transform.
    on_error : {"raise", "skip"}
        What to do with an image that cannot be read.

    Attributes
    ----------
    skipped : list of str
        Images left out.

    Raises
    ------
    TTAMEError
        For a missing or empty folder, a part beyond its end, or an unreadable image.
    """

    def __init__(
        self,
        root: str | Path,
        transform: Transform,
        part: slice | None = None,
        seed: int = 0,
        on_error: str = "raise",
    ):
        self.root = Path(root)
        if on_error not in ("raise", "skip"):
            raise TTAMEError(f"on_error is {on_error!r}; {nearest(on_error, ['raise', 'skip'])}")
        if not self.root.is_dir():
            raise TTAMEError(
                f"there is no image folder {self.root}; correct the path (data_root, or root in config/)"
            )
        files = image_files(self.root)
        if not files:
            raise TTAMEError(
                f"no images in {self.root} or below; looked for {', '.join(sorted(SUFFIXES))}"
            )
        if part is not None:
            order = np.random.default_rng(seed).permutation(len(files))
            if (part.stop or 0) > len(files):
                raise TTAMEError(
                    f"{self.root} holds {len(files)} images, {part.stop} are asked for; ask for fewer"
                )
            files = [files[i] for i in sorted(order[part])]
        self.transform, self.seed, self.epoch = transform, seed, 0
        self.skipped: list[str] = []
        self.files = [f for f in files if self._readable(f, on_error)]
        known = imagenet_folders()
        self.labels = known if {f.parent.name for f in self.files} <= known.keys() else {}
        if not self.files:
            raise TTAMEError(
                f"none of the {len(files)} images in {self.root} can be read; check the folder"
            )
        if self.skipped:
            warnings.warn(
                f"{len(self.skipped)} of {len(files)} images in {self.root} cannot be read and are left out: "
                f"{', '.join(self.skipped[:5])}",
                stacklevel=2,
            )

    def _readable(self, file: Path, on_error: str) -> bool:
        """Check an image's header now, before any work is lost; the whole of it where skipping."""
        try:
            if on_error == "skip":
                read_image(file)
            else:
                with Image.open(file) as picture:
                    picture.verify()
        except UNREADABLE as error:
            if on_error == "raise":
                raise TTAMEError(
                    f"{file} cannot be read as an image ({error}); remove it, or ask for unreadable images "
                    "to be skipped (on_error: skip)"
                ) from error
            self.skipped.append(file.relative_to(self.root).as_posix())
            return False
        return True

    def set_epoch(self, epoch: int) -> None:
        """Draw other crops in each epoch, the same whenever that epoch is run."""
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> dict[str, Any]:
        file = self.files[index]
        rng = np.random.default_rng([self.seed, self.epoch, index])
        image_id = file.relative_to(self.root).as_posix()
        item = {"image": self.transform(read_image(file), rng), "id": image_id}
        if self.labels:
            item["label"] = self.labels[file.parent.name]
        return item


@lru_cache
def imagenet_folders() -> dict[str, int]:
    """Return the indices of ImageNet's 1000 classes by the names of their folders."""
    return {name: i for i, name in enumerate(ImageNetInfo("imagenet-1k").label_names())}


def folder_split(
    spec: dict[str, Any], split: str, root: Path, size: int, resize: Resize, interpolation: str
) -> ImageFolder:
    """Open a split of a folder that holds ``train`` and ``val``, as a configuration describes it.

    ``test`` and ``val`` are disjoint draws from the folder ``val``, as in Sec. IV-A.
    They are cropped as the classifier's weights ask for; ``train`` is cropped at random.

    Parameters
    ----------
    spec : dict
        An entry of the configuration's ``data`` of kind ``folder``.
    split : {"train", "val", "test"}
        Which part.
    root : Path
        Relative folders start here.
    size : int
        Side of the crop, in pixels.
    resize : int or tuple of int
        The shorter side before it, or height and width.
    interpolation : str
        A key of `INTERPOLATIONS`.

    Returns
    -------
    ImageFolder
    """
    check_split(split)
    folder = root / spec["root"] / ("train" if split == "train" else "val")
    if split == "train":
        part = slice(spec["train"]) if spec.get("train") else None
        if spec.get("train_crop") == "random-resized":
            transform = random_resized(size, interpolation)
        else:
            transform = random_crop_of(size, resize, interpolation)
    else:
        part = (
            slice(spec["val"]) if split == "val" else slice(spec["val"], spec["val"] + spec["test"])
        )
        transform = centre_crop(size, resize, interpolation)
    return ImageFolder(folder, transform, part, on_error=spec.get("on_error", "raise"))


def stack(images: Any) -> Tensor:
    """Stack the pictures of a small data set, ``(B, 3, H, W)`` in [0, 1]."""
    return torch.stack([item["image"] for item in images])


def spread(images: Any, count: int) -> Subset:
    """Take so many of the images, or all there are, evenly spread over their order.

    Fewer images are always among more: multiples of the golden ratio fill the order evenly however many are taken.
    """
    order = np.argsort(np.arange(len(images)) * GOLDEN % 1, kind="stable")
    return Subset(images, np.sort(order[:count]).tolist())


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
    """Make the paper's training transform: as `centre_crop` resizes, random crop."""

    def transform(picture: Image.Image, rng: np.random.Generator) -> Tensor:
        picture = _resized(picture, resize, interpolation)
        left = int(rng.integers(picture.width - size + 1))
        top = int(rng.integers(picture.height - size + 1))
        return to_tensor(picture.crop((left, top, left + size, top + size)))

    return transform


def random_resized(
    size: int, interpolation: str = "bicubic", scale: tuple[float, float] = (0.35, 1.0)
) -> Transform:
    """Make a transform for few or small images: a random square part of the area, perhaps mirrored."""

    def transform(picture: Image.Image, rng: np.random.Generator) -> Tensor:
        side = int(min(picture.size) * np.sqrt(rng.uniform(*scale)))
        left = int(rng.integers(picture.width - side + 1))
        top = int(rng.integers(picture.height - side + 1))
        box = (left, top, left + side, top + side)
        picture = picture.resize((size, size), INTERPOLATIONS[interpolation], box=box)
        return to_tensor(ImageOps.mirror(picture) if rng.uniform() < 0.5 else picture)

    return transform


def _resized(picture: Image.Image, to: Resize, interpolation: str) -> Image.Image:
    if isinstance(to, int):
        scale = to / min(picture.size)
        size = (max(to, round(picture.width * scale)), max(to, round(picture.height * scale)))
    else:
        size = (to[1], to[0])
    return picture if size == picture.size else picture.resize(size, INTERPOLATIONS[interpolation])


def check_split(split: str) -> None:
    """Raise a TTAMEError unless the split is known."""
    if split not in SPLITS:
        raise TTAMEError(f"split {split!r} is unknown; {nearest(split, SPLITS)}")
