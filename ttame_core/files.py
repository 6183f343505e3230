"""Files that are never half-written."""

import os
import platform
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory

from ttame_core.errors import TTAMEError

MACHINE = f".part-{platform.node()}"


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Give a temporary name for a file, with its suffix, and rename it when the block ends well.

    The file's folder is made if need be. The temporary lies in a folder of its own, where no search
    beside the file finds it. It is removed if the block raises; what a killed process leaves, the
    next one that writes beside it removes. A TTAMEError is raised if the file cannot be written.
    """
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _sweep(path.parent.absolute())
        own = f"{MACHINE}-{os.getpid()}-"
        with TemporaryDirectory(prefix=own, dir=path.parent) as folder:
            temporary = Path(folder, path.name)
            yield temporary
            # the name may reach the disk before what it names, and a full disk may tell only now
            with temporary.open("rb+") as file:
                os.fsync(file.fileno())
            os.replace(temporary, path)
    except OSError as error:
        raise TTAMEError(
            f"{path} cannot be written ({error.strerror or error}); make room there or choose another folder, and "
            "run again: what was there before is untouched"
        ) from error


@lru_cache
def _sweep(folder: Path) -> None:
    """Remove what processes of this machine that are gone left, and what others did an hour ago."""
    for left in folder.glob(".part-*"):
        machine, pid, _ = left.name.rsplit("-", 2)
        try:
            gone = time.time() - left.stat().st_mtime > 3600
            if machine == MACHINE and os.name == "posix":  # Windows would end it
                os.kill(int(pid), 0)
        except ProcessLookupError:
            gone = True
        except OSError:  # another user's process, or one that has just removed it
            gone = False
        if gone:
            shutil.rmtree(left, ignore_errors=True)
