"""Classes in words: their names, and how users ask for them."""

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torchvision.models import ResNet50_Weights

from ttame_core.errors import TTAMEError, nearest

IMAGENET_CLASSES = tuple(ResNet50_Weights.DEFAULT.meta["categories"])


def find_class(words: str, labels: Sequence[str], classifier: str) -> int:
    """Find a class by its number, its name, or a part of its name; see `Backbone.class_index`."""
    words, last = words.strip(), len(labels) - 1
    if re.fullmatch(r"-?\d+", words):
        if not 0 <= int(words) <= last:
            raise TTAMEError(f"class {words} of {classifier}; expected 0 to {last}")
        return int(words)
    if not words:
        raise TTAMEError("the class is empty; give a name, a part of one, or a number")
    plain = [label.lower().replace("_", " ") for label in labels]
    wanted = words.lower().replace("_", " ")
    found = [i for i, label in enumerate(plain) if label == wanted]
    found = found or [i for i, label in enumerate(plain) if wanted in label]
    if len(found) == 1:
        return found[0]
    if found:
        few = ", ".join(f"{labels[i]} ({i})" for i in found[:8])
        raise TTAMEError(
            f"{len(found)} classes of {classifier} go by {words!r}: {few}; say which, by its number"
        )
    raise TTAMEError(f"{classifier} has no class {words!r}; {nearest(words, labels, shown=8)}")


def chosen_classes(classes: Any, scores: Tensor, labels: Sequence[str], classifier: str) -> Tensor:
    """Turn classes, however they are asked for, into a tensor ``(B,)`` or ``(B, k)`` int64.

    Such a tensor is taken as it is. An int asks for each image's k most confident classes by the
    scores ``(B, K)``; a string for one class in words, a sequence for several in words or numbers;
    None for the model truths. Raises a TTAMEError if they do not go with images or classifier.
    """
    count, last = len(scores), len(labels) - 1
    if classes is None:
        return scores.argmax(1)
    if isinstance(classes, int | np.integer) and not isinstance(classes, bool):
        if not 1 <= classes <= len(labels):
            raise TTAMEError(f"{classes} classes are asked for; expected 1 to {len(labels)}")
        return scores.topk(int(classes)).indices
    if isinstance(classes, str):
        index = find_class(classes, labels, classifier)
        return torch.full((count,), index, device=scores.device)
    if not isinstance(classes, Tensor):
        if not isinstance(classes, Sequence | np.ndarray) or not len(classes):
            raise TTAMEError(
                f"classes are {classes!r}; expected a tensor, how many of the most confident ones (an int), "
                "one in words, or a list of words and numbers"
            )
        named = [find_class(str(c), labels, classifier) for c in classes]
        classes = torch.tensor(named).expand(count, -1)
    if classes.dtype != torch.int64 or classes.ndim not in (1, 2) or len(classes) != count:
        raise TTAMEError(
            f"classes are {tuple(classes.shape)} {classes.dtype}; expected ({count},) or ({count}, k) int64"
        )
    if classes.numel() and not (classes.min() >= 0 and classes.max() <= last):
        raise TTAMEError(
            f"classes range from {classes.min()} to {classes.max()}; the classifier has 0 to {last}"
        )
    return classes.to(scores.device)
