"""What costs much is kept as it is computed, and found again: a killed run goes on."""

import hashlib
import warnings
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ttame_core.classifiers.backbone import Backbone
from ttame_core.files import atomic_path
from ttame_core.metrics.perturbations import perturbed_confidences


class KeptMaps:
    """A method whose maps are kept in a folder, a file an image and class.

    An image's map must not depend on the others of its batch; ``about`` says on what else it does:
    classifier, method, options, code.
    """

    def __init__(self, method: Callable[[Tensor, Tensor], Tensor], folder: str | Path, about: str):
        self.method, self.folder, self.about = method, Path(folder), about

    def __call__(self, images: Tensor, classes: Tensor) -> Tensor:
        """Return the maps ``(B, h, w)``, each made now or found."""
        # an image at a time: what a killed run has made by then is found by the next
        maps = []
        for image, c in zip(images, classes, strict=True):
            file = self.folder / f"{_key(f'{self.about} {int(c)}', image)}.npy"
            found = _found(file)
            if found is None:
                found = self.method(image[None], c[None])[0]
                with atomic_path(file) as path:
                    np.save(path, found.cpu().numpy())
            maps.append(found.to(images))
        return torch.stack(maps)


class KeptConfidences:
    """`perturbed_confidences` of a classifier, kept in a folder, a file a batch and its maps.

    Whose maps they are of does not matter: an explainer that two tables show is scored once.
    ``about`` says on what else they depend: code.
    """

    def __init__(self, backbone: Backbone, folder: str | Path, about: str = ""):
        self.backbone, self.folder = backbone, Path(folder)
        self.about = f"{about} {backbone.identity()}"

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
        found = _found(file)
        if found is not None:
            return dict(zip(wanted, found.to(images), strict=True))
        computed = perturbed_confidences(self.backbone, images, classes, maps, wanted, seed, chunk)
        with atomic_path(file) as path:
            np.save(path, torch.stack(list(computed.values())).cpu().numpy())
        return computed


def _found(file: Path) -> Tensor | None:
    """Read what was kept; None where there is nothing, or it is broken, which a warning says."""
    if not file.is_file():
        return None
    try:
        return torch.from_numpy(np.load(file))
    except Exception as error:  # of many types: damaged bytes raise what they come to
        warnings.warn(f"{file} is broken ({error!r}); it is made anew", stacklevel=3)
        return None


def _key(about: str, *tensors: Tensor) -> str:
    """Hash a description and the tensors' values to 24 hexadecimal digits, a file's name."""
    for tensor in tensors:
        about += f" {tuple(tensor.shape)} {tensor.dtype}"
    digest = hashlib.sha256(about.encode())
    for tensor in tensors:
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:24]
