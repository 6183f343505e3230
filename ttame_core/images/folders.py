"""Images of any folder, and choices of them.

An item is a dict: ``image`` ``(3, H, W)`` float in [0, 1], ``id``, and where they exist ``label``
(int) and ``mask`` ``(H, W)`` bool, the object's pixels.
"""

import hashlib
import os
import re
import tempfile
import unicodedata
import warnings
from collections import Counter
from collections.abc import Hashable, Iterable, Mapping, Sequence
from functools import lru_cache
from operator import attrgetter
from pathlib import Path
from typing import Any

import numpy as np
from timm.data import ImageNetInfo
from torch.utils.data import Dataset, Subset

from ttame_core.errors import TTAMEError, check_kind, check_whole, nearest
from ttame_core.images.decoding import opened, printable, read_image
from ttame_core.images.listing import Report, identity, image_files, refuse
from ttame_core.images.reading import Transform, check_transform, transformed
from ttame_core.images.tars import TAR, is_tar

GOLDEN = (5**0.5 - 1) / 2  # its multiples, modulo 1, fill [0, 1) evenly however many are taken
SPLITS = ("train", "val", "test")
LONGEST = 225  # bytes of a name, of the 255 that file systems take: a digest may be added


class ImageFolder(Dataset):
    """Images of a folder and the folders in it, in sorted order or a seeded choice of them.

    Class folders are not needed, and labels are not used for training. Where all folders have the
    names of ImageNet classes (``n02102040``) items say the ``label`` too.

    Parameters
    ----------
    root : str or Path
        The folder, or a tar file; a folder of tar files is read through them, without unpacking.
    transform : callable
        Makes ``(3, H, W)`` in [0, 1] of a picture, with a random generator: ``backbone.crop``.
    part : slice, optional
        Part of the images in a seeded order, so that disjoint parts can be validation and test.
    seed : int
        Seed of that order and of the transform.
    on_error : {"raise", "skip"}
        What to do with an image or a folder that cannot be read. ``raise`` looks at headers now,
        and what is damaged further in is an error when it is read; ``skip`` reads each image
        whole now, and warns of those that are left out.
    listed : mapping of str to int, optional
        The images to take, in this order, by the names of their files wherever in the folder they
        lie, with their classes, which items then say as ``label``; see `read_list`.

    Attributes
    ----------
    skipped : list of str
        Images left out.

    Raises
    ------
    TTAMEError
        For a missing or empty folder, a part beyond its end, an image that is listed and missing or
        there twice, or an unreadable image.
    """

    def __init__(
        self,
        root: str | Path,
        transform: Transform,
        part: slice | None = None,
        seed: int = 0,
        on_error: str = "raise",
        listed: Mapping[str, int] | None = None,
    ):
        check_kind("root", root, (str, os.PathLike), "the path of a folder of images")
        check_kind("part", part, (slice, type(None)), "a slice of images, such as slice(0, 100)")
        check_whole("seed", seed)
        check_transform(transform)
        self.root = Path(root)
        if on_error not in ("raise", "skip"):
            raise TTAMEError(f"on_error is {on_error!r}; {nearest(on_error, ['raise', 'skip'])}")
        skip, name = on_error == "skip", printable(self.root)
        if not (os.path.isdir(self.root) or is_tar(self.root)):
            raise TTAMEError(f"there is no image folder {name}; correct the path")
        report = (lambda error: warnings.warn(str(error), stacklevel=4)) if skip else refuse
        files = image_files(self.root, report)
        if listed is not None:
            files = _named(listed, files, name)
        if part is not None:
            order = np.random.default_rng(seed).permutation(len(files))
            first, last = part.start or 0, len(files) if part.stop is None else part.stop
            for end in (first, last):
                check_whole("an end of part", end, -len(files))
            if part.stop is not None and 0 <= last <= first:
                raise TTAMEError(f"{part} is empty; expected a part of 1 image or more of {name}")
            if last > len(files) or not len(order[part]):
                earlier = f" ({first} of them for another part)" if first else ""
                raise TTAMEError(
                    f"{name} holds {len(files)} images, {last} are asked for{earlier}; expected parts of 1 image or "
                    f"more, and of {len(files)} together: add images, or choose smaller parts"
                )
            files = [files[i] for i in sorted(order[part])]
        self.transform, self.seed, self.epoch = transform, seed, 0
        self.files: list[Path] = []
        self.skipped: list[str] = []
        why = ""
        for file in files:
            try:
                self._check(file, whole=skip)
                self.files.append(file)
            except TTAMEError as error:
                if not skip:
                    asked = "ask for unreadable images to be skipped (on_error: skip)"
                    raise TTAMEError(f"{error}; or {asked}") from error
                self.skipped.append(self._id(file))
                why = why or f"the first: {error}"
        self.class_of = _class if listed is None else attrgetter("name")
        known = imagenet_folders() if listed is None else listed
        self.labels = known if {*map(self.class_of, self.files)} <= known.keys() else {}
        if not self.files:
            raise TTAMEError(f"none of the {len(files)} images in {name} can be read; {why}")
        if self.skipped:
            warnings.warn(
                f"{len(self.skipped)} of {len(files)} images in {name} cannot be read and are left out: "
                f"{', '.join(map(printable, self.skipped[:5]))}; {why}",
                stacklevel=2,
            )

    def _check(self, file: Path, whole: bool) -> None:
        """Raise a TTAMEError for an image whose header, or which as a whole, cannot be read."""
        if whole:
            read_image(file)
        else:
            with opened(file) as picture:
                picture.verify()

    def _id(self, file: Path) -> str:
        """Name an image by its path in the folder, in characters that any file takes."""
        return file.relative_to(self.root).as_posix().encode(errors="backslashreplace").decode()

    def set_epoch(self, epoch: int) -> None:
        """Draw other crops in each epoch, the same whenever that epoch is run."""
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> dict[str, Any]:
        file = self.files[index]
        # an image's own generator: its crop depends on neither the workers nor where a run began
        rng = np.random.default_rng([self.seed, self.epoch, index])
        picture = read_image(file)
        try:
            item = {"image": transformed(self.transform, picture, rng), "id": self._id(file)}
        except TTAMEError as error:  # no crop of it is possible
            raise TTAMEError(f"{printable(file)}: {error}") from error
        if self.labels:
            item["label"] = self.labels[self.class_of(file)]
        return item


def _class(file: Path) -> str:
    """Name the folder that an image is in, or the tar file."""
    return file.parent.name.removesuffix(TAR)


def read_list(path: str | Path) -> dict[str, int]:
    """Read a list of images, a line ``ILSVRC2012_val_00010011.JPEG 248``: file and class index.

    Returns the classes by the names of the files, in the list's order. Raises a TTAMEError for a
    list that is missing or empty, and for a line that is malformed or names a file again.
    """
    path = Path(path)
    try:
        lines = path.read_text("utf-8").splitlines()
    except (OSError, ValueError) as error:
        raise TTAMEError(
            f"the list of images {printable(path)} cannot be read ({error}); correct the path"
        ) from error
    listed: dict[str, int] = {}
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        where, (name, *index) = f"{printable(path)}, line {number}", line.strip().rsplit(None, 1)
        if "/" in name or not (index and index[0].isascii() and index[0].isdigit()):
            raise TTAMEError(
                f"{where} is {line!r}; expected a file's name and its class: 'ILSVRC2012_val_00010011.JPEG 248'"
            )
        if name in listed:
            raise TTAMEError(f"{where} names {name} again; remove one of its lines")
        listed[name] = int(index[0])
    if not listed:
        raise TTAMEError(f"the list of images {printable(path)} is empty; take a whole copy")
    return listed


def _named(names: Iterable[str], files: Iterable[Path], folder: str) -> list[Path]:
    """Find files by their names; a TTAMEError tells of those that are missing or there twice."""
    places: dict[str, list[Path]] = {name: [] for name in names}
    for file in files:
        places.get(file.name, []).append(file)
    missing = [name for name, found in places.items() if not found]
    if missing:
        raise TTAMEError(
            f"{len(missing)} of {len(places)} listed images are not in {folder}, the first {missing[0]!r}; expected all "
            "of them, in that folder or in folders of classes in it: add them, or take another list"
        )
    for name, found in places.items():
        if len(found) > 1:
            raise TTAMEError(
                f"the listed image {name!r} is in {folder} more than once: {', '.join(map(printable, found[:3]))}; "
                "remove all but one"
            )
    return [found[0] for found in places.values()]


@lru_cache
def imagenet_folders() -> dict[str, int]:
    """Return the indices of ImageNet's 1000 classes by the names of their folders."""
    return {name: i for i, name in enumerate(ImageNetInfo("imagenet-1k").label_names())}


def evenly(images: Any, count: int) -> Subset:
    """Take so many of the images, or all there are, evenly spaced; fewer are always among more."""
    order = np.argsort(np.arange(len(images)) * GOLDEN % 1, kind="stable")
    return Subset(images, np.sort(order[:count]).tolist())


def find_photos(places: Sequence[Path], report: Report = refuse) -> list[tuple[Path, Path]]:
    """List image files, those given and those in folders given, each with a name for its outputs.

    The name is the path without suffix, relative to the folder given, in characters that every file
    system takes; where several have one name, or differ in case or accents' encoding alone, each
    has a digest of its path added. A file that is reached twice is listed once. A place that is
    missing, cannot be read or holds no image is reported; images are not read yet.
    """
    found: dict[Hashable, tuple[Path, Path]] = {}
    for place in places:
        files = [(place, Path(place.name))]
        try:
            if os.path.isdir(place) or is_tar(place):
                files = [(file, file.relative_to(place)) for file in image_files(place, report)]
            elif not os.path.lexists(place):
                gone = f"there is no photograph or folder {printable(place)}"
                raise TTAMEError(f"{gone}; correct the path")
        except TTAMEError as error:
            report(error)
            continue
        for file, path in files:
            name = Path(*map(_portable, path.with_suffix("").parts))
            found.setdefault(identity(file), (file, name))
    times = Counter(same_name(name) for _, name in found.values())
    return [
        (file, name if times[same_name(name)] == 1 else Path(f"{name}-{digest(file)}"))
        for file, name in found.values()
    ]


def _portable(part: str) -> str:
    """Change what file systems, shells or terminals do not take in the name of a file or folder."""
    part = "".join(c if c.isprintable() and c not in '<>:"/\\|?*' else "_" for c in part)
    part = re.sub(r"^[-. ]|[. ]$", "_", part.encode()[:LONGEST].decode(errors="ignore"))
    device = re.match(r"(con|prn|aux|nul|com\d|lpt\d)(\.|$)", part, re.IGNORECASE)
    return f"_{part}" if device else part


def same_name(name: str | Path) -> str:
    """Reduce a name to what tells files apart where case and accents' encoding do not."""
    return unicodedata.normalize("NFD", unicodedata.normalize("NFD", str(name)).casefold())


def digest(file: str | Path, what: object = "") -> str:
    """Hash a file's path, and what is made of it, to ten hexadecimal digits."""
    return hashlib.sha256(os.fsencode(f"{os.path.abspath(file)}\0{what}")).hexdigest()[:10]


def output_name(name: Path, tail: str) -> str:
    """Join a photograph's name and what is said of it, cut to what file systems take."""
    room = LONGEST - len(tail.encode())
    return name.with_name(name.name.encode()[:room].decode(errors="ignore") + tail).as_posix()


def check_writable(out: Path) -> None:
    """Raise a TTAMEError unless a folder is there, or can be made, and may be written to."""
    place, why = out.absolute(), "is no folder"
    try:
        while not (place.exists() or place.is_symlink()):
            place = place.parent
        if place.is_dir():
            tempfile.TemporaryFile(dir=place).close()
            return
    except OSError as error:
        why = f"may not be written to ({error.strerror})"
    raise TTAMEError(f"{printable(place)} {why}; name another folder")
