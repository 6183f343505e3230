"""The compared methods, behind one registry and one call: ``METHODS[name](backbone)(images, classes)``."""

from collections.abc import Callable

from torch import Tensor

from ttame_core.backbones import Backbone
from ttame_core.errors import TTAMEError, nearest
from ttame_core.methods.cams import grad_cam
from ttame_core.methods.controls import all_ones, random_map

Method = Callable[[Tensor, Tensor], Tensor]
"""``images (B, 3, H, W), classes (B,) -> maps (B, h, w)`` in [0, 1]."""

METHODS: dict[str, Callable[[Backbone], Method]] = {
    "grad-cam": grad_cam,
    "random": random_map,
    "all-ones": all_ones,
}


def method(name: str, backbone: Backbone) -> Method:
    """Make a compared method ready for a backbone.

    Parameters
    ----------
    name : str
        A key of `METHODS`.
    backbone : Backbone
        The classifier to be explained.

    Returns
    -------
    callable
        ``(images, classes) -> maps``.

    Raises
    ------
    TTAMEError
        If the name is unknown.
    """
    if name not in METHODS:
        raise TTAMEError(f"method {name!r} is unknown; {nearest(name, ['t-tame', *METHODS])}")
    return METHODS[name](backbone)
