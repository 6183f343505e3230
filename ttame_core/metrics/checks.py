"""What is asked of an evaluation, checked before anything is computed."""

from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from numbers import Integral
from pathlib import PurePath
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ttame_core.classifiers.backbone import Backbone
from ttame_core.classifiers.checks import check_backbone, check_chunk
from ttame_core.errors import TTAMEError, check_kind, check_known, check_number, check_seed, told
from ttame_core.images.reading import check_images
from ttame_core.metrics.adapters import found, of_quantus
from ttame_core.metrics.measures import MEASURES

A_BATCH = "a dict {'image': images (B, 3, H, W) in [0, 1], 'id': a name for each image}"


def check_methods(methods: Any, backbone: Backbone) -> None:
    """Raise a TTAMEError unless methods are callables by name that explain this very classifier.

    The other classifier of an explainer is found behind partials, bound methods and wrappers too.
    """
    check_backbone(backbone)
    made = "{'grad-cam': tt.method('grad-cam', backbone)}"
    check_kind("methods", methods, Mapping, f"a dict of callables, as {made}")
    for name, method in methods.items():
        if not callable(method):
            named = isinstance(method, str)
            remedy = f"tt.method({method!r}, backbone)" if named else f"as in {made}"
            raise TTAMEError(
                f"the method {name!r} is {told(method)}; expected a callable of images and classes: {remedy}"
            )
        of = attribute_behind(method, "backbone", Backbone)
        if of is None:
            continue
        if not of.same_classifier(backbone):
            raise TTAMEError(
                f"{name} explains {of.name}, and {backbone.name} is to be asked, a classifier of other weights; make both "
                "of one backbone"
            )
        for field in ("mean", "std", "bgr"):
            theirs, own = (getattr(b.preprocessing, field) for b in (of, backbone))
            if theirs != own:
                raise TTAMEError(
                    f"{name} explains {of.name} behind another standardisation ({field} {theirs}) than that of the "
                    f"backbone that is to be asked ({field} {own}); make both of one backbone"
                )


def attribute_behind(method: Any, name: str, kind: type) -> Any:
    """Find an attribute of a kind: a method's own, or that of what it wraps or is bound to.

    Gives None where there is none: a closure cannot be looked into.
    """
    return next((v for m in _layers(method) if isinstance(v := getattr(m, name, None), kind)), None)


def _layers(method: Any) -> Iterator[Any]:
    """Yield a method, and what is behind it: of a partial, a bound method, a wrapper, kept maps."""
    seen: list[int] = []
    while method is not None and id(method) not in seen:
        seen.append(id(method))
        yield method
        behind = (getattr(method, n, None) for n in ("func", "__self__", "__wrapped__", "method"))
        method = next((layer for layer in behind if layer is not None), None)


def check_measures(measures: Any) -> None:
    """Raise a TTAMEError unless measures are known ones, each with its percentages v.

    One of Quantus has to be installed, and takes 100 alone.
    """
    expected = "a dict of names and percentages v, as {'ad': (100, 50, 15)} or tt.MASKING"
    check_kind("measures", measures, Mapping, expected)
    askable = [name for name, measure in MEASURES.items() if measure.perturbation]
    for name, percentages in measures.items():
        if of_quantus(name):
            found(name)
            if list(percentages) != [100]:
                raise TTAMEError(
                    f"v of the measure {name!r} is {told(percentages)}; it has none: give [100]"
                )
            continue
        check_known("measure", name, askable)
        what = f"v of the measure {name!r}"
        several = isinstance(percentages, Sequence) or (
            isinstance(percentages, np.ndarray) and percentages.ndim == 1
        )
        if isinstance(percentages, str | bytes) or not several:
            raise TTAMEError(
                f"{what} is {told(percentages)}; expected a list of percentages, as {{{name!r}: [50]}}"
            )
        for v in percentages:
            check_number(what, v, 0, 100)


def check_settings(seed: Any, chunk: Any, *called: Any) -> None:
    """Raise a TTAMEError unless seed and chunk are whole numbers, and what is called can be."""
    check_seed(seed)
    check_chunk(chunk)
    for function in called:
        if function is not None and not callable(function):
            raise TTAMEError(
                f"progress or confidences is {told(function)}; expected a callable, or None"
            )


def check_batches(batches: Any) -> None:
    """Raise a TTAMEError unless batches can be gone through; those of a list are all looked at."""
    if isinstance(batches, Mapping | Tensor | str | bytes):
        single = isinstance(batches, Mapping)
        remedy = "put the one batch into a list" if single else "give [{'image': ..., 'id': ...}]"
        kind = type(batches).__name__
        raise TTAMEError(f"batches are a {kind}; expected batches, each {A_BATCH}: {remedy}")
    if not isinstance(batches, Iterable) and not hasattr(batches, "__getitem__"):
        raise TTAMEError(
            f"batches are {told(batches)}; expected a list or a DataLoader of batches, each {A_BATCH}"
        )
    if isinstance(batches, list | tuple):
        seen: set[Hashable] = set()
        for batch in batches:
            check_batch(batch, seen)


def check_batch(batch: Any, seen: set[Hashable]) -> list[Hashable]:
    """Return the ids of a batch; raise a TTAMEError unless it is whole and they are its own.

    ``seen`` holds the ids of earlier batches, and is added to.
    """
    if not isinstance(batch, Mapping):
        raise TTAMEError(f"a batch is a {type(batch).__name__}; expected {A_BATCH}")
    for key, what in (("image", "images"), ("id", "ids")):
        if key not in batch:
            remedy = "pixels / 255" if key == "image" else "a name an image"
            raise TTAMEError(
                f"a batch has {sorted(map(str, batch))}; expected {what} too, as {key!r}: {remedy}"
            )
    check_images(batch["image"])
    count, ids = len(batch["image"]), batch["id"]
    expected = f"a list of {count} names (str or int), one an image"
    several = isinstance(ids, Sequence | np.ndarray | Tensor) and not isinstance(ids, str | bytes)
    ids = ids.tolist() if isinstance(ids, np.ndarray | Tensor) else ids
    if not several or not isinstance(ids, Sequence):
        raise TTAMEError(f"the ids of a batch are {told(ids)}; expected {expected}")
    if len(ids) != count:
        raise TTAMEError(f"a batch has {len(ids)} ids and {count} images; expected {expected}")
    for each in ids:
        check_kind("an id of a batch", each, (str, Integral, PurePath), expected)
        if each in seen:
            raise TTAMEError(
                f"the id {each!r} comes twice; expected an id of its own for each image of an evaluation: rename one, "
                "or take it out"
            )
        seen.add(each)
    if "mask" in batch:
        check_truth(batch["mask"], batch["image"], "mask")
    return list(ids)


def check_truth(truth: Any, images: Tensor, name: str = "truth") -> None:
    """Raise a TTAMEError unless the object's pixels are ``(B, H, W)`` bool, as the images are."""
    size = (len(images), *images.shape[2:])
    expected = f"a tensor {size} bool, true on the object"
    check_kind(name, truth, Tensor, expected)
    if truth.dtype != torch.bool or truth.shape != size:
        raise TTAMEError(f"{name} is {tuple(truth.shape)} {truth.dtype}; expected {expected}")


def check_full(full: Any, count: int) -> None:
    """Raise a TTAMEError unless confidences for images as they are, are ``(B,)`` in [0, 1]."""
    expected = f"a tensor ({count},) of softmax scores in [0, 1], for the images as they are"
    check_kind("full", full, Tensor, expected)
    if full.shape != (count,) or not full.is_floating_point():
        raise TTAMEError(f"full is {tuple(full.shape)} {full.dtype}; expected {expected}")
    if not ((full >= 0) & (full <= 1 + 1e-6)).all():
        raise TTAMEError(
            f"full ranges from {full.min():.3g} to {full.max():.3g}; expected {expected}"
        )


def check_confidences(full: Tensor, ids: Sequence[Hashable], backbone: Backbone) -> None:
    """Raise a TTAMEError that names the images whose confidences ``(B,)`` are not finite."""
    bad = [i for i, fine in zip(ids, full.isfinite().tolist(), strict=True) if not fine]
    if bad:
        more = f" and {len(bad) - 8} more" if len(bad) > 8 else ""
        raise TTAMEError(
            f"the confidences of {backbone.name} are not finite for the images {bad[:8]}{more}; take them out, or run "
            "the classifier in float32"
        )
