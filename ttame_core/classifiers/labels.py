"""Classes in words: their names, and how users ask for them."""

import re
from collections.abc import Mapping, Sequence
from numbers import Integral
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torchvision.models import ResNet50_Weights

from ttame_core.errors import TTAMEError, check_kind, nearest, told

IMAGENET_CLASSES = tuple(ResNet50_Weights.DEFAULT.meta["categories"])


def class_names(model: nn.Module, count: int) -> tuple[str, ...]:
    """Name the classes of a classifier, by what comes with it before what is usual.

    Hugging Face's ``id2label``, timm's names of its weights or of the parts of ImageNet that they
    know; ImageNet's for any other of 1000 classes; numbers where there are no names.
    """
    of_timm = getattr(model, "pretrained_cfg", None)
    of_timm = of_timm if isinstance(of_timm, Mapping) else {}
    names = getattr(getattr(model, "config", None), "id2label", None)
    if not names and of_timm.get("num_classes") == count:
        names = of_timm.get("label_names")
    if isinstance(names, Mapping | Sequence) and 0 < len(names) <= count:
        # transformers calls classes LABEL_7 that have no names
        pairs = _numbered(names)
        own = {i: str(n) for i, n in pairs if n is not None and n != f"LABEL_{i}"}
        words = of_timm.get("label_descriptions") or {}
        if own:
            own = {i: words.get(name, name) for i, name in own.items()}
            return tuple(own.get(i, f"class {i}") for i in range(count))
    if count == len(IMAGENET_CLASSES):
        return IMAGENET_CLASSES
    if of_timm:
        from timm.data import ImageNetInfo, infer_imagenet_subset  # loaded, where a model is timm's

        if subset := infer_imagenet_subset({"num_classes": count}):
            return tuple(ImageNetInfo(subset).label_descriptions())
    return tuple(f"class {i}" for i in range(count))


def _numbered(names: Mapping | Sequence) -> list[tuple[int, Any]]:
    """Pair names with their numbers: by what they are listed by, or by their places."""
    if isinstance(names, Mapping):
        try:
            return [(int(i), name) for i, name in names.items()]
        except (TypeError, ValueError):
            names = list(names.values())
    return list(enumerate(names))


def find_class(words: str | int, labels: Sequence[str], classifier: str) -> int:
    """Find a class by its name, its number, or a part of its name; see `Backbone.class_index`."""
    last = len(labels) - 1
    if isinstance(words, Integral) and not isinstance(words, bool):
        if not 0 <= words <= last:
            raise TTAMEError(f"class {words} of {classifier}; expected 0 to {last}")
        return int(words)
    check_kind(f"a class of {classifier}", words, str, "its name, a part of it, or its number")
    words = str(words).strip()
    if not words:
        raise TTAMEError("the class is empty; give a name, a part of one, or a number")
    plain = [_plain(label) for label in labels]
    found = [i for i, label in enumerate(labels) if label.strip() == words]
    found = found or [i for i, label in enumerate(plain) if label == _plain(words)]
    if not found and re.fullmatch(r"-?\d{1,18}", words):  # behind the names, which may be numbers
        return find_class(int(words), labels, classifier)
    found = found or [i for i, label in enumerate(plain) if _plain(words) in label]
    if len(found) == 1:
        return found[0]
    if found:
        few = ", ".join(f"{labels[i]} ({i})" for i in found[:8])
        raise TTAMEError(
            f"{len(found)} classes of {classifier} go by {words!r}: {few}; say which, by its number"
        )
    raise TTAMEError(f"{classifier} has no class {words!r}; {nearest(words, labels, shown=8)}")


def _plain(label: str) -> str:
    return label.strip().casefold().replace("_", " ")


def chosen_classes(classes: Any, scores: Tensor, labels: Sequence[str], classifier: str) -> Tensor:
    """Turn classes, however they are asked for, into a tensor ``(B,)`` or ``(B, k)`` int64.

    Such a tensor is taken as it is. An int asks for each image's k most confident classes by the
    scores ``(B, K)``; a string for one class in words, a sequence for several in words or numbers;
    None for the model truths. Raises a TTAMEError if they do not go with images or classifier; the
    values of a tensor on an accelerator are not waited for.
    """
    count = len(scores)
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
        listed = isinstance(classes, Sequence) and not isinstance(classes, bytes | bytearray)
        listed = listed or (isinstance(classes, np.ndarray) and classes.ndim == 1)
        if not listed or not len(classes):
            raise TTAMEError(
                f"classes are {told(classes)}; expected a tensor, how many of the most confident ones (an int), "
                "one in words, or a list of words and numbers"
            )
        # numbers are numbers, also where classes are called by some
        named = [find_class(c, labels, classifier) for c in classes]
        classes = torch.tensor(named).expand(count, -1)
    check_classes(classes, count, len(labels), many=True, look=classes.is_cpu)
    return classes.to(scores.device)


def check_classes(
    classes: Any, count: int, num_classes: int, many: bool = False, look: bool = True
) -> None:
    """Raise a TTAMEError unless classes are ``(B,)`` int64 of a classifier, one an image.

    Where there may be ``many`` an image, ``(B, k)`` too; where nobody is to ``look`` at the values,
    any will do.
    """
    expected = f"({count},) or ({count}, k) int64" if many else f"({count},) int64, one an image"
    if not isinstance(classes, Tensor):
        raise TTAMEError(f"classes are a {type(classes).__name__}; expected a tensor {expected}")
    shapes = (1, 2) if many else (1,)
    whole = classes.dtype == torch.int64 and classes.layout == torch.strided
    if not whole or classes.ndim not in shapes or len(classes) != count or not classes.numel():
        raise TTAMEError(f"classes are {tuple(classes.shape)} {classes.dtype}; expected {expected}")
    if look and not (classes.min() >= 0 and classes.max() < num_classes):
        raise TTAMEError(
            f"classes range from {classes.min()} to {classes.max()}; the classifier has 0 to {num_classes - 1}"
        )
