"""Checkpoints of trainings: never half-written, and read by one process for all."""

import io
import os
import warnings
from pathlib import Path
from typing import Any

import torch

from ttame_core.files import atomic_path


def save_checkpoint(fabric: Any, path: str | Path, state: dict[str, Any]) -> None:
    """Write a training's state under a temporary name, then rename it."""
    values = {k: v.state_dict() if hasattr(v, "state_dict") else v for k, v in state.items()}
    if fabric.is_global_zero:
        file = io.BytesIO()  # torch.save itself does not say that a disk is full
        torch.save(values, file)
        with atomic_path(path) as temporary:
            temporary.write_bytes(file.getbuffer())
    fabric.barrier()


def read_checkpoint(fabric: Any, path: str | Path) -> dict[str, Any] | None:
    """Read a training's state, if there is any; a file that is none is renamed, with a warning."""
    values = None
    if fabric.is_global_zero and Path(path).is_file():
        try:
            values = torch.load(path, map_location="cpu", weights_only=True)
            values["recipe"]["batch_size"]
        except Exception as error:  # of many types: damaged bytes raise what they come to
            values = None
            what = f"{path} is no checkpoint that can be read ({error!r}), and is named .broken now"
            warnings.warn(f"{what}; it is trained anew", stacklevel=5)  # the caller of train
            os.replace(path, f"{path}.broken")  # it is kept: it may have been named by mistake
    return fabric.broadcast(values)  # other machines may not see the file
