"""What costs much is kept as it is computed, and found again by all that it depends on: a killed run goes on."""

import hashlib
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ttame_core.backbones import Backbone
from ttame_core.files import atomic_path, version_of
from ttame_core.methods import Method
from ttame_core.perturbations import perturbed_confidences

HERE = Path(__file__).parent


@lru_cache
def methods_version() -> str:
    """Hash the sources that a compared method's maps depend on."""
    shared = [HERE / f"{name}.py" for name in ("backbones", "layers", "masking")]
    return version_of([*sorted((HERE / "methods").glob("*.py")), *shared])


@lru_cache
def measures_version() -> str:
    """Hash the sources that confidences in changed images depend on."""
    names = ["backbones", "imputation", "imputation_compiled", "layers", "masking", "perturbations"]
    return version_of(HERE / f"{name}.py" for name in names)


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
            file = self.folder / f"{_key(f'{self.about} {int(c)}', image)}.npy"
            if file.is_file():
                maps.append(torch.from_numpy(np.load(file)).to(images))
                continue
            maps.append(self.method(image[None], c[None])[0])
            with atomic_path(file) as path:
                np.save(path, maps[-1].cpu().numpy())
        return torch.stack(maps)


class RememberedConfidences:
    """`perturbed_confidences` of a classifier, each batch's computed now or found in a folder.

    Whose maps they are of does not matter: an explainer that two tables show is scored once.

    Parameters
    ----------
    folder : str or Path
        Where they are kept, a file a batch and its maps.
    backbone : Backbone
        The classifier.
    """

    def __init__(self, folder: str | Path, backbone: Backbone):
        self.folder, self.backbone = Path(folder), backbone
        self.about = f"{measures_version()} {backbone.identity()}"

    def __call__(
        self,
        images: Tensor,
        classes: Tensor,
        maps: Tensor,
        perturbations: Iterable[tuple[str, float]],
        seed: int = 0,
        chunk: int | None = None,
    ) -> dict[tuple[str, float], Tensor]:
        """Take and return what `perturbed_confidences` does."""
        wanted = list(dict.fromkeys(perturbations))
        file = self.folder / f"{_key(f'{self.about} {wanted} {seed}', images, classes, maps)}.npy"
        if file.is_file():
            return dict(zip(wanted, torch.from_numpy(np.load(file)).to(images), strict=True))
        computed = perturbed_confidences(self.backbone, images, classes, maps, wanted, seed, chunk)
        with atomic_path(file) as path:
            np.save(path, torch.stack(list(computed.values())).cpu().numpy())
        return computed


def _key(about: str, *tensors: Tensor) -> str:
    for tensor in tensors:
        about += f" {tuple(tensor.shape)} {tensor.dtype}"
    digest = hashlib.sha256(about.encode())
    for tensor in tensors:
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:24]
