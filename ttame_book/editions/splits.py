"""Splits of a folder that holds ``train`` and ``val``."""

from pathlib import Path
from typing import Any

from ttame_core.images.folders import ImageFolder, check_split
from ttame_core.images.reading import Preprocessing, random_resized


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
        transform = preprocessing.crop
    return ImageFolder(folder, transform, part, on_error=spec.get("on_error", "raise"))
