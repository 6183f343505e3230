"""Any class of the grad-cam library or of Captum as a method: ``grad-cam:HiResCAM``."""

from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from typing import Any

import torch
from torch import Tensor

from ttame_core.classifiers.backbone import Backbone
from ttame_core.errors import NotServedError, TTAMEError, check_seed, needed
from ttame_core.libraries import Found, drawing_from, find_class
from ttame_core.masking import minmax
from ttame_core.methods import EXTRA, Method
from ttame_core.methods.cams import from_library, target_layer

OURS = {
    *("model", "forward_func", "layer", "target_layers", "reshape_transform", "device_ids"),
    *("inputs", "input_tensor", "target", "targets", "additional_forward_args"),
    *("show_progress", "return_convergence_delta", "tta_transforms"),
}
"""Arguments of these classes that are no options: what we give, and what would break the map."""


def found(name: str) -> Found:
    """Find a class by ``grad-cam:Class`` or ``captum:Class``.

    Raises a TTAMEError if the library is not installed, or has no such class that makes a map.
    """
    what = f"the method {name!r}"
    if name.partition(":")[0] == "grad-cam":
        base = needed("pytorch_grad_cam.base_cam", EXTRA, what)
        room = needed("pytorch_grad_cam", EXTRA, what)
        return find_class(name, room, base.BaseCAM, "__call__", OURS)
    room = needed("captum.attr", EXTRA, what)
    return find_class(name, room, room.Attribution, "attribute", OURS)


def options_of(name: str) -> list[str]:
    """Name the options of a class: those of its constructor and of its call, and a seed."""
    return [*found(name).options(OURS), "seed"]


def of_grad_cam(backbone: Backbone, name: str, seed: int = 0, **options: Any) -> Method:
    """Make a method of a class of the grad-cam library, maps ``(B, H, W)``.

    It gets the layer that our CAM methods explain, and a ViT's tokens as their grid. Options are
    those of the class, for instance ``k``, and of its call, for instance ``eigen_smooth``.
    """
    check_seed(seed)
    cls = found(name)
    built, called = cls.sorted(options, OURS)
    if "ablation_layer" in cls.built and backbone.tokens:
        layers = needed("pytorch_grad_cam.ablation_layer", EXTRA, name)
        built.setdefault("ablation_layer", layers.AblationLayerVit())
    return one_by_one(from_library(cls.kind, backbone, built, called), backbone, name, seed)


def of_captum(backbone: Backbone, name: str, seed: int = 0, **options: Any) -> Method:
    """Make a method of a class of Captum.

    Maps are the positive part of the attributions' sum over the colours, or over the channels of
    the layer that our CAM methods explain, where the class is about a layer: ``(B, H, W)`` or
    ``(B, h, w)``. Baselines are black images by default. Options are those of the class and of its
    ``attribute``, for instance ``sliding_window_shapes=[3, 8, 8]``.
    """
    check_seed(seed)
    cls = found(name)
    built, called = cls.sorted(options, OURS)
    layer = target_layer(backbone) if "layer" in cls.built else ""
    module = backbone.model.get_submodule(layer)
    ours: dict[str, Any] = {"model": backbone, "forward_func": backbone, "layer": module}
    attribution = cls.kind(**{n: v for n, v in ours.items() if n in cls.built}, **built)

    def explain(images: Tensor, classes: Tensor) -> Tensor:
        target = {"target": classes} if "target" in cls.called else {}
        with torch.enable_grad():
            values = attribution.attribute(images.clone().requires_grad_(), **target, **called)
        values = values.detach().to(images)
        if values.shape != images.shape:
            try:
                values = backbone.grid(values, layer)
            except TTAMEError as error:
                raise NotServedError(f"{name} gives {backbone.name} no map: {error}") from error
        return minmax(values.sum(1).relu())

    return one_by_one(explain, backbone, name, seed)


def one_by_one(
    explain: Callable[[Tensor, Tensor], Tensor], backbone: Backbone, name: str, seed: int
) -> Method:
    """Let a class explain image by image, each from the same seed, whatever it draws.

    Once, here, it explains noise: a classifier that it cannot serve is found before any image, and
    raises a `NotServedError`; arguments that it does not take, a TTAMEError.
    """

    def alone(images: Tensor, classes: Tensor) -> Tensor:
        maps = []
        for image, c in zip(images, classes, strict=True):
            # some tell their progress, or that they pay no heed to the target layer
            with drawing_from(seed), redirect_stdout(StringIO()), redirect_stderr(StringIO()):
                maps.append(explain(image[None], c[None]))
        return torch.cat(maps)

    size = backbone.preprocessing.image_size
    noise = torch.rand(1, 3, size, size, generator=torch.Generator().manual_seed(seed))
    try:
        alone(noise.to(backbone.mean), torch.zeros(1).long().to(backbone.mean.device))
    except AssertionError as error:
        raise TTAMEError(f"{name} does not take these options: {error}") from error
    except (AttributeError, RuntimeError, TypeError) as error:
        raise NotServedError(f"{name} cannot explain {backbone.name}: {error}") from error
    return alone
