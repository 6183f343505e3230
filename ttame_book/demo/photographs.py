"""Photographs that come inside the dependencies' packages."""

import importlib.util
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from torch.utils.data import Dataset

from ttame_core.errors import TTAMEError, check_known
from ttame_core.images.folders import SPLITS
from ttame_core.images.reading import Preprocessing, random_resized, read_image

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
"""Colour photographs inside packages: (package, file)."""
FOOLBOX = {"train": slice(12, 20), "val": slice(8, 12), "test": slice(0, 8)}
"""Each split's part of foolbox's twenty photographs."""


@lru_cache
def package_photographs() -> tuple[Image.Image, ...]:
    """Read the colour photographs that come with scikit-image, scikit-learn and matplotlib."""
    return tuple(read_image(package_folder(package) / name) for package, name in PHOTOGRAPHS)


def package_folder(package: str) -> Path:
    """Find an installed package's folder without importing it; raise a TTAMEError without one."""
    found = importlib.util.find_spec(package)
    if found is None or found.origin is None:
        raise TTAMEError(
            f"the photographs of {package} are needed, but it is not installed; pip install it"
        )
    return Path(found.origin).parent


def split_generator(seed: int, split: str, *index: int) -> np.random.Generator:
    """Make the source of randomness of one image of a split."""
    return np.random.default_rng([seed, SPLITS.index(split), *index])


class PackagePhotographs(Dataset):
    """Real photographs out of the dependencies' packages, for ImageNet classifiers.

    Training: random-resized crops of `PHOTOGRAPHS` and of eight of foolbox's twenty. Validation and
    test: four and eight others of foolbox's, whole. The splits share no photograph.

    Parameters
    ----------
    split : {"train", "val", "test"}
        Part of the photographs.
    size : int, optional
        Number of images: any number of training crops, 500 by default; else what there is.
    seed : int
        Seed of the crops.
    preprocessing : Preprocessing, optional
        Sizes and filter of the classifier; by default 224 px of 256, bicubic.

    Raises
    ------
    TTAMEError
        For an unknown split, or more photographs than there are.
    """

    def __init__(
        self,
        split: str,
        size: int | None = None,
        seed: int = 0,
        preprocessing: Preprocessing | None = None,
    ):
        check_known("split", split, SPLITS)
        files = sorted((package_folder("foolbox") / "data").glob("imagenet_*.jpg"))[FOOLBOX[split]]
        if split == "train":
            files = [package_folder(package) / name for package, name in PHOTOGRAPHS] + files
        elif size is not None and size > len(files):
            raise TTAMEError(
                f"size is {size}; the packages hold {len(files)} photographs for {split}"
            )
        self.split, self.seed, self.epoch, self.files = split, seed, 0, files
        self.size = size or (500 if split == "train" else len(files))
        self.pictures = [read_image(f) for f in files]
        given = preprocessing or Preprocessing(interpolation="bicubic")
        training = random_resized(given.image_size, given.interpolation)
        self.transform = training if split == "train" else given.crop

    def set_epoch(self, epoch: int) -> None:
        """Draw other crops in each epoch, the same whenever that epoch is run."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> dict[str, Any]:
        # more crops than photographs: nothing else would end a loop over the images
        if not 0 <= index < self.size:
            raise IndexError(f"image {index} of {self.size}")
        which = index % len(self.files)
        rng = split_generator(self.seed, self.split, self.epoch, index)
        name = self.files[which].stem
        image_id = f"{name}-{index:05d}" if self.split == "train" else name
        return {"image": self.transform(self.pictures[which], rng), "id": image_id}


def open_split(
    spec: dict[str, Any], split: str, root: Path, preprocessing: Preprocessing
) -> PackagePhotographs:
    """Open a split as a configuration describes it; see `Edition.images`."""
    return PackagePhotographs(split, spec.get(split), preprocessing=preprocessing)
