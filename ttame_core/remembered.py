"""Maps that cost much are kept as they are made: a killed run goes on, and the next measure has them already."""

import hashlib
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ttame_core.files import atomic_path
from ttame_core.methods import Method


@lru_cache
def methods_version() -> str:
    """Hash the sources that a compared method's maps depend on."""
    here = Path(__file__).parent
    sources = [*sorted((here / "methods").glob("*.py"))]
    sources += [here / f"{name}.py" for name in ("backbones", "layers", "masking")]
    return hashlib.sha256(b"".join(file.read_bytes() for file in sources)).hexdigest()[:12]


class Remembered:
    """A method whose maps are kept, a file an image and class.

    Parameters
    ----------
    method : callable
        ``(images, classes) -> maps``; an image's map must not depend on the others of its batch.
    folder : str or Path
        Where the maps are kept.
    about : str
        What else they depend on: classifier, method, options, code.
    """

    def __init__(self, method: Method, folder: str | Path, about: str):
        self.method, self.folder, self.about = method, Path(folder), about

    def __call__(self, images: Tensor, classes: Tensor) -> Tensor:
        """Return the maps ``(B, h, w)``, each made now or found."""
        maps = []
        for image, c in zip(images, classes, strict=True):
            file = self.folder / f"{self._key(image, int(c))}.npy"
            if file.is_file():
                maps.append(torch.from_numpy(np.load(file)).to(images))
                continue
            maps.append(self.method(image[None], c[None])[0])
            with atomic_path(file) as path:
                np.save(path, maps[-1].cpu().numpy())
        return torch.stack(maps)

    def _key(self, image: Tensor, c: int) -> str:
        digest = hashlib.sha256(f"{self.about} {c} {tuple(image.shape)} {image.dtype}".encode())
        digest.update(image.detach().cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()[:24]
