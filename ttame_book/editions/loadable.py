"""What of a configuration can only be checked with torch: classifiers, preprocessing, options."""

from importlib import import_module
from inspect import signature
from typing import Any

from ttame_core.classifiers.loading import builder_of
from ttame_core.errors import TTAMEError, nearest
from ttame_core.images.reading import Preprocessing
from ttame_core.methods.registry import METHODS

ANY_SIZES = {"image_size": 1, "resize": 1_000_000_000}
"""In place of the published ones, which are not at hand: any size that is given fits them."""
NO_OPTIONS = ("backbone", "progress")


def check_loadable(config: dict[str, Any], source: str) -> None:
    """Raise a TTAMEError for what no library has and no method takes; loads no classifier.

    ``config`` keeps to the schema; ``source`` is the name of its file. Names of backbones, their
    preprocessing and the options of methods are checked.
    """
    _check_options(config["evaluate"].get("options", {}), f"{source}, evaluate.options")
    for name, entry in config["backbones"].items():
        place = f"{source}, backbones.{name}"
        try:
            builder_of(name)
            if given := entry.get("preprocessing"):
                Preprocessing(**ANY_SIZES | given)
        except TTAMEError as error:
            raise TTAMEError(f"{place}: {error}") from error
        _check_options(entry.get("options", {}), f"{place}.options")


def _check_options(options: dict[str, dict[str, Any]], place: str) -> None:
    for method, given in options.items():
        valid = options_of(method)
        for name in given:
            if name not in valid:
                hint = nearest(name, valid) if valid else "it takes none"
                raise TTAMEError(f"{place}.{method}: {name!r} is no option of it; {hint}")


def options_of(method: str) -> list[str]:
    """Name the options of a compared method; a trained one has none, see its recipe."""
    if method not in METHODS:
        return []
    module, _, function = METHODS[method].made_by.partition(":")
    make = getattr(import_module(module), function)  # only asked: no result depends on its code
    return [name for name in signature(make).parameters if name not in NO_OPTIONS]
