"""Splits of a folder that holds ``train`` and ``val``."""

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from torch import Tensor

from ttame_core.errors import TTAMEError
from ttame_core.images.decoding import printable
from ttame_core.images.folders import ImageFolder, check_split
from ttame_core.images.listing import identity, image_files
from ttame_core.images.reading import Preprocessing, random_resized, to_tensor


def open_split(
    spec: dict[str, Any], split: str, root: Path, preprocessing: Preprocessing
) -> ImageFolder:
    """Open a split of a folder that holds ``train`` and ``val``, as a configuration describes it.

    ``test`` and ``val`` are disjoint draws from the folder ``val``, as in Sec. IV-A. They are
    cropped as the classifier's weights ask for; ``train`` is cropped at random.

    Parameters
    ----------
    spec : dict
        An entry of the configuration's ``data`` of kind ``folder``.
    split : {"train", "val", "test"}
        Which part.
    root : Path
        Relative folders start here.
    preprocessing : Preprocessing
        Sizes and filter of the classifier.

    Raises
    ------
    TTAMEError
        For what `ImageFolder` refuses, and where a link makes a file a part of both folders.
    """
    check_split(split)
    folder = root / spec["root"] / ("train" if split == "train" else "val")
    if split == "train":
        part = slice(spec["train"]) if spec.get("train") else None
        transform = preprocessing.random_crop
        if spec.get("train_crop") == "random-resized":
            transform = random_resized(preprocessing.image_size, preprocessing.interpolation)
    else:
        part = (
            slice(spec["val"]) if split == "val" else slice(spec["val"], spec["val"] + spec["test"])
        )
        transform = partial(_as_cropped_before, preprocessing=preprocessing)
    images = ImageFolder(folder, transform, part, on_error=spec.get("on_error", "raise"))
    if split == "train":
        _check_apart(images.files, folder.with_name("val"))
    return images


def _check_apart(train: list[Path], val: Path) -> None:
    """Raise a TTAMEError if an image to train on is one to test on, by whatever links."""
    tested = {identity(file): file for file in image_files(val)} if val.is_dir() else {}
    shared = [file for file in train if identity(file) in tested]
    if shared:
        file = shared[0]
        raise TTAMEError(
            f"{len(shared)} of {len(train)} images to train on are images to test on, the first {printable(file)}, which "
            f"is {printable(tested[identity(file)])}; expected other photographs in train/ and in val/: remove the links"
        )


def _as_cropped_before(
    picture: Image.Image, rng: np.random.Generator, preprocessing: Preprocessing
) -> Tensor:
    """Take a photograph of the classifier's size as it is: such a set was cropped before."""
    if picture.size == (preprocessing.image_size,) * 2:
        return to_tensor(picture)
    return preprocessing.crop(picture, rng)
