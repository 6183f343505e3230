"""The library of compared methods, each made by its name."""

import pkgutil
from typing import Any

from ttame_core.classifiers.backbone import Backbone
from ttame_core.errors import TTAMEError, nearest
from ttame_core.methods import Method
from ttame_core.methods.registry import METHODS
from ttame_core.recipes import TRAINED


def method(name: str, backbone: Backbone, **options: Any) -> Method:
    """Make a compared method ready for a backbone.

    Parameters
    ----------
    name : str
        A key of `METHODS`.
    backbone : Backbone
        The classifier to be explained.
    **options
        The method's own: its size, its seed, its chunk.

    Returns
    -------
    callable
        ``(images, classes) -> maps``.

    Raises
    ------
    TTAMEError
        If the name is unknown, the method takes no such option, an extra is not installed, or
        (`NotServedError`) it cannot serve the backbone.
    """
    if name not in METHODS:
        raise TTAMEError(f"method {name!r} is unknown; {nearest(name, [*TRAINED, *METHODS])}")
    make = pkgutil.resolve_name(METHODS[name].made_by)
    try:
        return make(backbone, **options)
    except TypeError as error:
        raise TTAMEError(f"method {name!r} cannot be made with {options}: {error}") from error
