"""Files that are never half-written, and what is in them."""

import hashlib
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Give a temporary name beside a file, and rename it when the block ends well.

    Parameters
    ----------
    path : str or Path
        The file wanted; its folder is made if need be.

    Yields
    ------
    Path
        Where to write. It keeps the file's suffix, and is removed if the block raises.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.stem}.{os.getpid()}{path.suffix}")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def version_of(files: Iterable[Path]) -> str:
    """Hash what is in files, in their order: twelve hexadecimal digits."""
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()[:12]
