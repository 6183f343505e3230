"""Images of any folder, and choices of them.

An item is a dict: ``image`` ``(3, H, W)`` float in [0, 1], ``id``, and where they exist ``label``
(int) and ``mask`` ``(H, W)`` bool, the object's pixels.
"""

import os
import warnings
from collections import Counter
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from timm.data import ImageNetInfo
from torch import Tensor
from torch.utils.data import Dataset, Subset

from ttame_core.errors import TTAMEError, nearest
from ttame_core.images.reading import UNREADABLE, Transform, read_image

GOLDEN = (5**0.5 - 1) / 2  # its multiples, modulo 1, fill [0, 1) evenly however many are taken
SPLITS = ("train", "val", "test")
SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".gif", ".tif", ".tiff", ".webp"}


def image_files(root: Path) -> list[Path]:
    """List the images in a folder and those in it, links to folders followed, in sorted order."""
    walk = os.walk(root, followlinks=True)  # links: sets are often put together of such
    found = (Path(folder) / name for folder, _, names in walk for name in names)
    return sorted(file for file in found if file.suffix.lower() in SUFFIXES)


class ImageFolder(Dataset):
    """Images of a folder and the folders in it, in sorted order or a seeded choice of them.

    Class folders are not needed, and labels are not used for training. Where all folders have the
    names of ImageNet classes (``n02102040``) items say the ``label`` too.

    Parameters
    ----------
    root : str or Path
        The folder.
    transform : callable
        Makes ``(3, H, W)`` in [0, 1] of a picture, with a random generator.
    part : slice, optional
        Part of the images in a seeded order, so that disjoint parts can be validation and test.
    seed : int
        Seed of that order and of the transform.
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
            raise TTAMEError(f"there is no image folder {self.root}; correct the path")
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
        # an image's own generator: its crop depends on neither the workers nor where a run began
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


def stack(images: Any) -> Tensor:
    """Stack the pictures of a small data set, ``(B, 3, H, W)`` in [0, 1]."""
    return torch.stack([item["image"] for item in images])


def evenly(images: Any, count: int) -> Subset:
    """Take so many of the images, or all there are, evenly spaced; fewer are always among more."""
    order = np.argsort(np.arange(len(images)) * GOLDEN % 1, kind="stable")
    return Subset(images, np.sort(order[:count]).tolist())


def check_split(split: str) -> None:
    """Raise a TTAMEError unless the split is known."""
    if split not in SPLITS:
        raise TTAMEError(f"split {split!r} is unknown; {nearest(split, SPLITS)}")


def find_photos(places: Sequence[Path]) -> list[tuple[Path, Path]]:
    """List image files, those given and those in folders given, each with a name for its outputs.

    The name is the path without suffix, relative to the folder given. Raises a TTAMEError if one is
    missing, cannot be read, or has another's name, or a folder holds none: before any work is done.
    """
    found: list[tuple[Path, Path]] = []
    for place in places:
        if place.is_dir():
            files = image_files(place)
            if not files:
                raise TTAMEError(f"no images in {place}; looked for {', '.join(sorted(SUFFIXES))}")
            found += [(file, file.relative_to(place).with_suffix("")) for file in files]
        elif place.is_file():
            found.append((place, Path(place.stem)))
        else:
            raise TTAMEError(f"there is no photograph or folder {place}; correct the path")
    for file, _ in found:
        read_image(file)
    times = Counter(name for _, name in found)
    for file, name in found:
        if times[name] > 1:
            raise TTAMEError(
                f"several photographs would be written as {name} ({file} is one); rename them, or run once for each"
            )
    return found


def check_writable(out: Path) -> None:
    """Raise a TTAMEError unless a folder is there, or can be made, and may be written to."""
    there = next(place for place in (out, *out.absolute().parents) if place.exists())
    if not there.is_dir():
        raise TTAMEError(f"{there} is no folder; name another folder")
    if not os.access(there, os.W_OK):
        raise TTAMEError(f"{there} may not be written to; name another folder")
