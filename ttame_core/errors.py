"""The one exception of the package, and the hint that goes with a mistyped name."""

from collections.abc import Iterable
from difflib import get_close_matches


class TTAMEError(ValueError):
    """Bad input: the message names the value, what was expected and the remedy."""


class NotServedError(TTAMEError):
    """A method cannot explain this kind of backbone; the message says why in a line."""


def nearest(name: object, valid: Iterable[str], shown: int = 12) -> str:
    """Say which valid names come nearest to a mistyped one.

    Parameters
    ----------
    name : object
        What was given.
    valid : iterable of str
        The names that would have been accepted.
    shown : int
        At most so many names are listed.

    Returns
    -------
    str
        ``"did you mean 'a', 'b'? valid: a, b, c"``; the question is left out where nothing is near, the list where
        something is and it would be long.
    """
    valid = sorted(set(map(str, valid)))
    close = get_close_matches(str(name), valid, n=3, cutoff=0.5)
    question = f"did you mean {', '.join(map(repr, close))}?" if close else ""
    if len(valid) <= shown:
        return f"{question} valid: {', '.join(valid)}".strip()
    return question or f"valid: {', '.join(valid[:shown])}, ... ({len(valid)} in all)"
