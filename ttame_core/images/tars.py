"""Tar files of images, read where they lie: nothing is unpacked.

A data set of a million images is then a few files, or a thousand, on a disk of its own or one that
several machines share. Tar files within tar files are read too, as ImageNet comes.
"""

import io
import os
import tarfile
from collections.abc import Iterator
from functools import cache
from posixpath import normpath
from typing import BinaryIO

from ttame_core.errors import TTAMEError

TAR = ".tar"


def is_tar(path: str | os.PathLike) -> bool:
    """Say whether a path is that of a tar file which is there."""
    return os.fspath(path).lower().endswith(TAR) and os.path.isfile(path)


def members(path: str | os.PathLike) -> dict[str, tuple[int, int]]:
    """Say where the files in a tar file begin, and how many bytes they have, by their paths in it.

    Raises a TTAMEError if it is damaged, or compressed: what lies in the middle could not be read.
    """
    found = os.stat(path)
    return _members(os.fspath(path), found.st_mtime_ns, found.st_size)


@cache
def _members(path: str, changed: int, size: int) -> dict[str, tuple[int, int]]:
    try:
        with open(path, "rb") as file:
            return dict(_walk(file, "", 0))
    except (tarfile.TarError, OSError) as error:
        raise TTAMEError(
            f"the tar file {path} cannot be read ({error}); expected one that is whole and not compressed"
        ) from error


def _walk(file: BinaryIO, inside: str, begin: int) -> Iterator[tuple[str, tuple[int, int]]]:
    with tarfile.open(fileobj=file, mode="r:") as tar:
        for member in tar:
            name = normpath(inside + member.name)
            if not member.isfile() or member.issparse() or name.startswith(("/", "..")):
                continue
            start = begin + member.offset_data
            inner = tar.extractfile(member) if name.lower().endswith(TAR) else None
            if inner is None:
                yield name, (start, member.size)
            else:
                yield from _walk(inner, f"{name}/", start)  # type: ignore[arg-type]


def from_tar(path: str | os.PathLike) -> io.BytesIO | None:
    """Read a file by its path through a tar file, ``cats.tar/1.jpg``; None where there is none."""
    text = os.fspath(path)
    at = text.lower().find(TAR + os.sep)
    while at >= 0:
        tar, name = text[: at + len(TAR)], text[at + len(TAR) + 1 :]
        if os.path.isfile(tar):
            start, size = members(tar).get(name.replace(os.sep, "/"), (0, -1))
            if size < 0:
                return None
            with open(tar, "rb") as file:
                file.seek(start)
                return io.BytesIO(file.read(size))
        at = text.lower().find(TAR + os.sep, at + 1)
    return None
