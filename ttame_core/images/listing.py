"""Lists of the images in a folder, in the folders below it, or in tar files."""

import os
import warnings
from collections import Counter
from collections.abc import Callable, Hashable
from heapq import heappop, heappush
from pathlib import Path

from ttame_core.errors import TTAMEError
from ttame_core.images.decoding import (
    DECODERS,
    NEVER_DECODED,
    PHOTOGRAPHS,
    decoded_suffixes,
    printable,
)
from ttame_core.images.explanation import SOFTWARE
from ttame_core.images.tars import is_tar, members, through_tar

HOUSEKEEPING = {
    *("__macosx", "@eadir", "#recycle", "$recycle.bin", "system volume information"),
    *("lost+found", "node_modules"),
}
"""Folders of file systems and tools, beside what begins with a dot, or ``~$`` as locks do."""
Report = Callable[[TTAMEError], object]
"""Is told of what cannot be read: it raises the error, or notes it and lets the rest be read."""


def refuse(error: TTAMEError) -> None:
    """Raise the error: where all is to be read, or nothing."""
    raise error


def image_files(root: Path, report: Report = refuse) -> list[Path]:
    """List the images in a folder and those below it, in sorted order.

    Links are followed, and each file or folder is read once, by its direct path where there is one;
    a link to a folder that holds this one leads back and is left out. So are hidden files and
    folders, those of file systems, and overlays that the command line wrote. Where there is no
    image, those in tar files are listed, by paths that go through them. A folder that cannot be
    read is reported; a warning counts pictures that nothing here decodes, or tar files beside
    images. Raises a TTAMEError if there is no image.
    """
    decoded, undecoded = decoded_suffixes(), Counter[str]()
    pictures = {*PHOTOGRAPHS, *NEVER_DECODED} - decoded.keys()
    seen = {identity(folder) for folder in Path(os.path.realpath(root)).parents}
    found: list[str] = []
    tars: list[str] = []
    queue = [(0, os.fspath(root))]
    while queue:
        links, path = heappop(queue)  # those with fewest links on their way first
        same = identity(path)
        if same in seen:
            continue
        seen.add(same)
        if not os.path.isdir(path):
            (tars if is_tar(path) else found).append(path)
            continue
        try:
            entries = [e for e in os.scandir(path) if not _is_housekeeping(e.name)]
        except OSError as error:
            why = f"cannot be read ({error.strerror}); change its permissions, or leave it out"
            report(TTAMEError(f"the folder {printable(path)} {why}"))
            continue
        for entry in entries:
            suffix = os.path.splitext(entry.name)[1].lower()
            if _is_overlay(entry.path):
                continue
            if suffix in decoded or os.path.isdir(entry.path) or is_tar(entry.path):
                heappush(queue, (links + entry.is_symlink(), entry.path))
            elif suffix in pictures:
                undecoded[suffix] += 1
    inside = []
    for tar in [] if found else tars:
        for file in _files_in(tar, report):
            suffix = os.path.splitext(file)[1].lower()
            if suffix in decoded:
                inside.append(f"{tar}/{file}")
            elif suffix in pictures:
                undecoded[suffix] += 1
    name, lacking = printable(root), _undecoded(undecoded)
    if found and tars:
        beside = f"{len(tars)} tar files, as there are images beside them"
        lacking = " and ".join(filter(None, (lacking, beside)))
    found += inside
    if not found:
        wanted = f"looked for {', '.join(decoded)}"
        raise TTAMEError(f"no images in {name} or below{lacking and f', but {lacking}'}; {wanted}")
    if lacking:
        warnings.warn(f"left out of {name}: {lacking}", stacklevel=3)
    return sorted(map(Path, found))


def _files_in(tar: str, report: Report) -> list[str]:
    """List the files in a tar file, without those that are hidden or of file systems."""
    try:
        names = members(tar)
    except TTAMEError as error:
        report(error)
        return []
    return [name for name in names if not any(map(_is_housekeeping, name.split("/")))]


def _is_housekeeping(name: str) -> bool:
    return name.startswith((".", "~$")) or name.lower() in HOUSEKEEPING


def _undecoded(suffixes: Counter[str]) -> str:
    """Say how many pictures cannot be decoded, of which kinds, and what can be done; or nothing."""
    if not suffixes:
        return ""
    kinds = ", ".join(f"{count} {suffix}" for suffix, count in sorted(suffixes.items()))
    install = sorted({DECODERS[suffix] for suffix in suffixes if suffix in DECODERS})
    remedy = "".join(f"pip install {package}, or " for package in install)
    return f"pictures that cannot be decoded here ({kinds}): {remedy}save them as PNG or JPEG"


def identity(path: str | Path) -> Hashable:
    """Say what a file or folder is, whatever links lead to it."""
    try:
        found = os.stat(path)
    except OSError:
        if place := through_tar(path):
            return identity(place[0]), place[1]
        return os.path.abspath(path)  # a link that leads nowhere
    # some network drives number nothing
    return (found.st_dev, found.st_ino) if found.st_ino else os.path.realpath(path)


def _is_overlay(path: str) -> bool:
    """Say whether a file is a picture that the command line wrote, wherever it has been put."""
    try:
        if path.endswith(".png") and os.path.isfile(path):  # a pipe would be waited for
            with open(path, "rb") as file:
                return f"Software\0{SOFTWARE}".encode() in file.read(256)
    except OSError:
        pass  # whoever reads it says so
    return False
