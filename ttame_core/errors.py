"""The one exception of the package, the hint that goes with a mistyped name, and missing extras."""

from collections.abc import Iterable
from difflib import get_close_matches
from importlib import import_module
from typing import Any


class TTAMEError(ValueError):
    """Bad input: the message names the value, what was expected and the remedy."""


class NotServedError(TTAMEError):
    """A method cannot explain this kind of backbone; the message says why in a line."""


def nearest(name: object, valid: Iterable[str], shown: int = 12) -> str:
    """Say which valid names come nearest to a mistyped one: ``"did you mean 'a'? valid: a, b"``.

    The question is left out where nothing is near, the list where something is and there are more
    than ``shown``.
    """
    valid = sorted(set(map(str, valid)))
    close = get_close_matches(str(name), valid, n=3, cutoff=0.5)
    question = f"did you mean {', '.join(map(repr, close))}?" if close else ""
    if len(valid) <= shown:
        return f"{question} valid: {', '.join(valid)}".strip()
    return question or f"valid: {', '.join(valid[:shown])}, ... ({len(valid)} in all)"


def needed(module: str, package: str, what: str) -> Any:
    """Import a module that the base install does not bring, for what needs it.

    Raises a TTAMEError where it is not installed, which says what to install.
    """
    try:
        return import_module(module)
    except ImportError as error:
        raise TTAMEError(
            f"{what} needs {module}, which is not installed ({error}); pip install '{package}'"
        ) from error
