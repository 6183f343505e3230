"""The library of compared methods, each made by its name."""

import pkgutil
from functools import partial, wraps
from typing import Any

import torch
from torch import Tensor

from ttame_core.classifiers.backbone import Backbone
from ttame_core.classifiers.checks import check_backbone
from ttame_core.classifiers.labels import check_classes
from ttame_core.errors import TTAMEError, check_kind, nearest
from ttame_core.images.reading import check_images
from ttame_core.methods import Method
from ttame_core.methods.registry import METHODS, rival
from ttame_core.recipes import TRAINED


def method(name: str, backbone: Backbone, **options: Any) -> Method:
    """Make a compared method ready for a backbone.

    Parameters
    ----------
    name : str
        A key of `METHODS`, or a class of the grad-cam library or of Captum: ``grad-cam:HiResCAM``,
        ``captum:Occlusion``.
    backbone : Backbone
        The classifier to be explained.
    **options
        The method's own: its size, its seed, its chunk; of a class its constructor's and call's.

    Returns
    -------
    callable
        ``(images, classes) -> maps``, for images ``(B, 3, H, W)`` in [0, 1] and classes ``(B,)``
        int64, by default each image's model truth. It raises a TTAMEError for any other, and can
        be called by several threads, in any mode of the caller's.

    Raises
    ------
    TTAMEError
        If the name is unknown or that of a trained method, the backbone is none, the method takes
        no such option or value, an extra is not installed, or (`NotServedError`) it cannot serve
        the backbone.
    """
    check_kind("the name of a method", name, str, f"one of {', '.join(METHODS)}")
    check_backbone(backbone)
    if name in TRAINED:
        raise TTAMEError(
            f"method {name!r} is trained, not made by its name: make it by tt.TTAME(backbone) and tt.train, or load one "
            "that is trained by tt.load_explainer"
        )
    found = rival(name)
    if found is None:
        raise TTAMEError(f"method {name!r} is unknown; {nearest(name, [*TRAINED, *METHODS])}")
    make = pkgutil.resolve_name(found.made_by)
    make = make if name in METHODS else partial(make, name=name)
    try:
        with torch.inference_mode(False), backbone.held():
            explain = make(backbone, **options)
    except TypeError as error:
        raise TTAMEError(f"method {name!r} cannot be made with {options}: {error}") from error

    @wraps(explain)
    def checked(images: Tensor, classes: Tensor | None = None) -> Tensor:
        check_images(images)
        with torch.inference_mode(False), backbone.held():
            # what was made in inference mode can take part in no gradient
            images = images.clone() if images.is_inference() else images
            images = images.to(backbone.mean)
            if classes is None:
                with torch.no_grad():
                    classes = backbone(images).argmax(1)
            check_classes(classes, len(images), backbone.num_classes)
            classes = classes.clone() if classes.is_inference() else classes
            return explain(images, classes.to(images.device)).to(images.dtype)

    checked.backbone = backbone  # type: ignore[attr-defined]
    return checked
