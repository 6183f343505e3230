"""Tar files of images, read where they lie: nothing is unpacked.

A data set of a million images is then a few files, or a thousand, on a disk of its own or one that
several machines share. Tar files within tar files are read too, as ImageNet comes.
"""

import io
import os
import re
import tarfile
from collections.abc import Iterator
from functools import cache
from posixpath import normpath
from typing import IO, Any

from ttame_core.errors import TTAMEError

TAR = ".tar"


def is_tar(path: str | os.PathLike) -> bool:
    """Say whether a path is that of a tar file which is there."""
    return os.fspath(path).lower().endswith(TAR) and os.path.isfile(path)


def members(path: str | os.PathLike) -> dict[str, tuple[int, int]]:
    """Say where the files in a tar file begin, and how many bytes they have, by their paths in it.

    Links are left out. Raises a TTAMEError if it is damaged, not whole, or compressed: what lies in
    the middle of that could not be read.
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


def _walk(file: IO[bytes], inside: str, begin: int) -> Iterator[tuple[str, tuple[int, int]]]:
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
                yield from _walk(inner, f"{name}/", start)
        # a header that is damaged or cut off ends the list without an error: a whole file ends in
        # blocks of zeros
        file.seek(tar.offset)
        if file.read(tarfile.BLOCKSIZE) != tarfile.NUL * tarfile.BLOCKSIZE:
            raise tarfile.ReadError(f"it breaks off at byte {begin + tar.offset}")


def through_tar(path: str | os.PathLike) -> tuple[str, str] | None:
    """Split a path through a tar file, ``cats.tar/1.jpg``, into the file and the path in it."""
    text = os.fspath(path)
    for found in re.finditer(r"\.tar(?=[\\/])", text, re.IGNORECASE):
        if os.path.isfile(tar := text[: found.end()]):
            return tar, text[found.end() + 1 :].replace(os.sep, "/")
    return None


def from_tar(path: str | os.PathLike) -> io.BufferedReader | None:
    """Open a file by its path through a tar file; None where there is none."""
    place = through_tar(path)
    found = members(place[0]).get(place[1]) if place else None
    return io.BufferedReader(_Part(place[0], *found)) if place and found else None


class _Part(io.RawIOBase):
    """Some bytes of a file, as a file: what is not asked for is not read."""

    def __init__(self, path: str, start: int, size: int):
        self.file = open(path, "rb", 0)  # noqa: SIM115
        self.start, self.size, self.at = start, size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        from_where = {io.SEEK_SET: 0, io.SEEK_CUR: self.at, io.SEEK_END: self.size}[whence]
        self.at = max(0, from_where + offset)
        return self.at

    def readinto(self, buffer: Any) -> int:
        self.file.seek(self.start + self.at)
        data = self.file.read(max(0, min(len(buffer), self.size - self.at)))
        buffer[: len(data)] = data
        self.at += len(data)
        return len(data)

    def close(self) -> None:
        self.file.close()
        super().close()
