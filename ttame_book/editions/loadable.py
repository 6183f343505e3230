"""What of a configuration can only be checked with torch: classifiers, preprocessing, options."""

from importlib import import_module
from inspect import signature
from typing import Any

from ttame_core.classifiers.loading import builder_of
from ttame_core.errors import TTAMEError, nearest
from ttame_core.images.reading import Preprocessing
from ttame_core.methods.registry import METHODS, rival

ANY_SIZES = {"image_size": 1, "resize": 1_000_000_000}
"""In place of the published ones, which are not at hand: any size that is given fits them."""
NO_OPTIONS = ("backbone", "progress")


def check_loadable(config: dict[str, Any], source: str) -> None:
    """Raise a TTAMEError for what no library has and no method takes; loads no classifier.

    ``config`` keeps to the schema; ``source`` is the name of its file. Names of backbones, their
    preprocessing and the options of methods are checked, and that libraries have what is compared.
    """
    for key in ("methods", "limits"):
        for method in config["evaluate"].get(key, ()):
            _known(method, f"{source}, evaluate.{key}")
    _check_options(config["evaluate"].get("options", {}), f"{source}, evaluate.options")
    for name, entry in config["backbones"].items():
        place = f"{source}, backbones.{name}"
        try:
            builder_of(name)
            if given := entry.get("preprocessing"):
                Preprocessing(**ANY_SIZES | given)
        except TTAMEError as error:
            raise TTAMEError(f"{place}: {error}") from error
        for method in entry.get("limits", ()):
            _known(method, f"{place}.limits")
        _check_options(entry.get("options", {}), f"{place}.options")


def _check_options(options: dict[str, dict[str, Any]], place: str) -> None:
    for method, given in options.items():
        valid = _known(method, place)
        for name in given:
            if name not in valid:
                hint = nearest(name, valid) if valid else "it takes none"
                raise TTAMEError(f"{place}.{method}: {name!r} is no option of it; {hint}")


def _known(method: str, place: str) -> list[str]:
    """Return a method's options; a TTAMEError names the place of a class that no library has."""
    try:
        return options_of(method)
    except TTAMEError as error:
        raise TTAMEError(f"{place}: {error}") from error


def options_of(method: str) -> list[str]:
    """Name the options of a compared method; a trained one has none, see its recipe."""
    made = rival(method)
    if made is None:
        return []
    module, _, function = made.made_by.partition(":")
    if method not in METHODS:  # of a class
        return import_module(module).options_of(method)
    make = getattr(import_module(module), function)  # only asked: no result depends on its code
    return [name for name in signature(make).parameters if name not in NO_OPTIONS]
