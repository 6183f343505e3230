"""Is a classifier about as good as published? Where it is not, its images are prepared wrongly."""

import warnings
from pathlib import Path

import torchvision
from safetensors import SafetensorError, safe_open

from ttame_book.editions.configuration import SHIPPED

FEW = 30
"""Labelled images that tell nothing yet."""
BELOW = 25.0
"""Percentage points below the published accuracy that no sample of `FEW` images comes to."""
ADVICE = (
    "check its preprocessing: image_size and resize, mean and std (of pixels in [0, 1]), bgr, and "
    "whether the labels are of its classes"
)


def published_accuracy(name: str) -> float | None:
    """Look up the accuracy of a classifier's published weights, in per cent; None where none is.

    torchvision's weights tell theirs on ImageNet-1k, and the demo's on its own test images; timm's
    and Hugging Face's do not.
    """
    shipped: Path = SHIPPED / f"{name}.safetensors"
    if shipped.is_file():
        try:
            with safe_open(shipped, "pt") as file:
                return float(file.metadata()["test_accuracy"])
        except (SafetensorError, KeyError, TypeError, ValueError):  # weights of no run of ours
            return None
    if name not in torchvision.models.list_models(module=torchvision.models):
        return None
    weights = torchvision.models.get_model_weights(name).DEFAULT
    return weights.meta["_metrics"].get("ImageNet-1K", {}).get("acc@1")


def warn_of_accuracy(
    name: str, accuracy: float, images: int, classes: int, published: float | None = None
) -> None:
    """Warn of a classifier that labelled images find far worse than it should be.

    Parameters
    ----------
    name : str
        What the classifier is called.
    accuracy : float
        Share of labelled images that it gets right, in per cent.
    images : int
        How many there were; below `FEW` nothing is said.
    classes : int
        How many classes it tells apart.
    published : float, optional
        Accuracy of its weights as published, in per cent. It warns of `BELOW` points less, and
        where none is given, of less than twice what a guess would get.
    """
    if images < FEW:
        return
    chance = 100 / classes
    if published is not None and accuracy < published - BELOW:
        than = f"{published:.1f} % are published"
    elif published is None and accuracy < 2 * chance:
        than = f"a guess gets {chance:.2g} %"
    else:
        return
    warnings.warn(
        f"{name} is right on {accuracy:.1f} % of {images} labelled images, and {than}; {ADVICE}",
        stacklevel=2,
    )
