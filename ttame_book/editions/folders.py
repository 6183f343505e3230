"""Splits of a folder that holds ``train`` and ``val``."""

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from torch import Tensor

from ttame_core.images.folders import ImageFolder, check_split
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
    return ImageFolder(folder, transform, part, on_error=spec.get("on_error", "raise"))


def _as_cropped_before(
    picture: Image.Image, rng: np.random.Generator, preprocessing: Preprocessing
) -> Tensor:
    """Take a photograph of the classifier's size as it is: such a set was cropped before."""
    if picture.size == (preprocessing.image_size,) * 2:
        return to_tensor(picture)
    return preprocessing.crop(picture, rng)
