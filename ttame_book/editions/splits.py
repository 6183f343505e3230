"""Splits of an edition's images, whatever their kind."""

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ttame_core.progress import Progress

if TYPE_CHECKING:
    from ttame_core.images.reading import Preprocessing

DATA = {
    "digits": "ttame_book.demo.digits",
    "photographs": "ttame_book.demo.photographs",
    "folder": "ttame_book.editions.folders",
}
"""The module whose ``open_split`` opens a split of each kind of data."""


def lists_of(spec: dict[str, Any], root: Path) -> dict[str, Path]:
    """Files that list the images of ``val`` and ``test``; none where these are drawn.

    They are drawn where a configuration has no lists, and where it says how many to draw and no
    list is there: who has ImageNet need not have the paper's lists.
    """
    files = {split: root / file for split, file in spec.get("lists", {}).items()}
    drawn = "test" in spec and not any(file.is_file() for file in files.values())
    return {} if drawn else files


def open_images(
    config: dict[str, Any], name: str, split: str, root: Path, preprocessing: "Preprocessing"
) -> Any:
    """Open a split of one of a configuration's sets of images, downloaded first where it says so.

    ``name`` is a key of its ``data``; for the rest see `folders.open_split`.
    """
    spec = config["data"][name]
    if name == config.get("download"):
        # by name: how it is fetched changes no image, and so reruns nothing
        fetch = import_module("ttame_book.demo.imagenette").obtain_imagenette
        fetch(root / spec["root"], Progress("Imagenette (1.5 GB), per cent downloaded"))
    return import_module(DATA[spec["kind"]]).open_split(spec, split, root, preprocessing)
