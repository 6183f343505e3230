"""Imagenette, downloaded by torchvision where its folder is missing."""

import io
import os
import re
import shutil
from contextlib import redirect_stderr
from http.client import HTTPException
from pathlib import Path

from filelock import FileLock
from torchvision.datasets import Imagenette

from ttame_core.errors import TTAMEError
from ttame_core.progress import Tell


def obtain_imagenette(folder: Path, progress: Tell) -> None:
    """Download Imagenette where its folder is missing: ``train`` and ``val``, in full size.

    A killed download is never taken for a whole one. Of several processes one downloads, the others
    wait for it. ``progress`` is called with (per cent downloaded, 100). Where the download fails, a
    TTAMEError says so, and nothing of it is left.
    """
    if folder.is_dir():
        return
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(folder.with_name(f".{folder.name}.lock")):
            if not folder.is_dir():
                _download(folder, progress)
    except (OSError, RuntimeError, HTTPException) as error:  # what torchvision raises
        raise TTAMEError(
            f"there is no image folder {folder}, and torchvision cannot download Imagenette into it ({error}); "
            "run again where there is a network, or name another folder that holds train/ and val/ by data_root "
            "(make book: DATA=FOLDER)"
        ) from error


def _download(folder: Path, progress: Tell) -> None:
    part = folder.with_name(f".{folder.name}.part")
    extracted = part / "imagenette2"
    # what a killed run extracted may be torn; its archive is checked by torchvision, and used
    shutil.rmtree(extracted, ignore_errors=True)
    try:
        with redirect_stderr(_Percentages(progress)):
            for split in ("train", "val"):
                Imagenette(part, split, size="full", download=True)
        os.replace(extracted, folder)
    finally:
        shutil.rmtree(part, ignore_errors=True)


class _Percentages(io.StringIO):
    """Tells the percentages of torchvision's progress bar, which would fill a notebook's page."""

    def __init__(self, progress: Tell):
        super().__init__()
        self.progress = progress

    def write(self, text: str) -> int:
        if found := re.search(r"([1-9]\d*)%", text):
            self.progress(int(found[1]), 100)
        return len(text)
