"""Splits of a folder that holds ``train`` and ``val``."""

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from torch import Tensor

from ttame_book.editions.splits import lists_of
from ttame_core.errors import TTAMEError, check_known
from ttame_core.images.decoding import printable
from ttame_core.images.folders import SPLITS, ImageFolder, read_list
from ttame_core.images.listing import identity, image_files
from ttame_core.images.reading import Preprocessing, Transform, random_resized, to_tensor


def open_split(
    spec: dict[str, Any], split: str, root: Path, preprocessing: Preprocessing
) -> ImageFolder:
    """Open a split of a folder that holds ``train`` and ``val``, as a configuration describes it.

    ``test`` and ``val`` are parts of the folder ``val``: those that lists name, or disjoint draws,
    as in Sec. IV-A. They are cropped as the classifier's weights ask for; ``train`` is cropped at
    random.

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
        For what `ImageFolder` and `read_list` refuse, where a link makes a file a part of both
        folders, and where two lists name one image.
    """
    check_known("split", split, SPLITS)
    folder = root / spec["root"] / ("train" if split == "train" else "val")
    part, listed = None, None
    if split == "train":
        part = slice(spec["train"]) if spec.get("train") else None
        transform: Transform = preprocessing.random_crop
        if spec.get("train_crop") == "random-resized":
            transform = random_resized(preprocessing.image_size, preprocessing.interpolation)
    else:
        transform = partial(_as_cropped_before, preprocessing=preprocessing)
        if lists := lists_of(spec, root):
            listed = _read_apart(lists)[split]
        elif split == "val":
            part = slice(spec["val"])
        else:
            part = slice(spec["val"], spec["val"] + spec["test"])
    on_error = spec.get("on_error", "raise")
    images = ImageFolder(folder, transform, part, on_error=on_error, listed=listed)
    if split == "train":
        _check_apart(images.files, folder.with_name("val"))
    return images


def _read_apart(lists: dict[str, Path]) -> dict[str, dict[str, int]]:
    """Read the lists of all splits; raise a TTAMEError where two of them name one image."""
    listed = {split: read_list(file) for split, file in lists.items()}
    shared = [name for name in listed["val"] if name in listed["test"]]
    if shared:
        raise TTAMEError(
            f"{len(shared)} images are in both {lists['val']} and {lists['test']}, the first {shared[0]!r}; expected "
            "other images to validate and to test on"
        )
    return listed


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
