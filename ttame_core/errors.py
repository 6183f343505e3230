"""The one exception of the package, checks of plain values, hints, and missing extras."""

import math
import reprlib
from collections.abc import Iterable
from difflib import get_close_matches
from importlib import import_module
from numbers import Integral, Real
from typing import Any

SEEDS = 2**63 - 1  # the largest that torch takes


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


def check_kind(what: str, value: Any, kinds: type | tuple[type, ...], expected: str) -> None:
    """Raise a TTAMEError unless a value is of a kind; ``expected`` says which, and the remedy."""
    if not isinstance(value, kinds):
        raise TTAMEError(f"{what} is {told(value)}; expected {expected}")


def check_known(what: str, value: Any, valid: Iterable[Any]) -> None:
    """Raise a TTAMEError unless a value is one of the valid names."""
    valid = list(valid)
    if value not in valid:
        name = repr(value) if isinstance(value, str) else told(value)  # a name as it was given
        raise TTAMEError(f"{what} {name} is unknown; {nearest(value, valid)}")


def check_whole(what: str, value: Any, least: int = 0, most: int | None = None) -> None:
    """Raise a TTAMEError unless a value is a whole number of a range; True is none."""
    fits = isinstance(value, Integral) and not isinstance(value, bool)
    if not fits or value < least or (most is not None and value > most):
        upto = "" if most is None else f", at most {most}"
        raise TTAMEError(
            f"{what} is {told(value)}; expected a whole number, at least {least}{upto}"
        )


def check_seed(seed: Any) -> None:
    """Raise a TTAMEError unless a seed is one that torch takes."""
    check_whole("seed", seed, 0, SEEDS)


def check_number(what: str, value: Any, least: float = 0.0, most: float = math.inf) -> None:
    """Raise a TTAMEError unless a value is a finite number of a range."""
    fits = isinstance(value, Real) and not isinstance(value, bool)
    if not fits or not math.isfinite(value) or not least <= value <= most:
        upto = f", at least {least:g}" + ("" if most == math.inf else f" and at most {most:g}")
        raise TTAMEError(f"{what} is {told(value)}; expected a finite number{upto}")


def told(value: Any) -> str:
    """Show a plain value in a line, and of any other its kind."""
    plain = value is None or isinstance(value, str | int | float | list | tuple | dict)
    return reprlib.repr(value) if plain else f"a {type(value).__name__}"
