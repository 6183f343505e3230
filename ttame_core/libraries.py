"""Classes of other libraries, known by ``library:Class``: found, and their options sorted."""

from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from inspect import Parameter, signature
from typing import Any

import numpy as np
import torch

from ttame_core.errors import TTAMEError, check_seed, nearest


@dataclass(frozen=True)
class Found:
    """A class of a library, and the parameters of its constructor and of its call, by name."""

    name: str
    kind: type
    built: Mapping[str, Parameter]
    called: Mapping[str, Parameter]

    def options(self, given: Collection[str]) -> list[str]:
        """Name the options that may be chosen: all but what is ``given`` by us."""
        return [*dict.fromkeys(p for p in (*self.built, *self.called) if p not in given)]

    def sorted(
        self, options: Mapping[str, Any], given: Collection[str]
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Sort options into those of the constructor and those of the call, lists as tuples.

        Raises a TTAMEError for one that the class does not take, and where one is missing.
        """
        valid = self.options(given)
        for name in options:
            if name not in valid:
                hint = nearest(name, valid) if valid else "it takes none"
                raise TTAMEError(f"{self.name}: {name!r} is no option of it; {hint}")
        parameters = {**self.called, **self.built}
        missing = [n for n in valid if parameters[n].default is Parameter.empty]
        missing = [n for n in missing if n not in options]
        if missing:
            raise TTAMEError(f"{self.name} needs {', '.join(missing)}, which must be given")
        values = {name: _tuples(value) for name, value in options.items()}
        built = {name: value for name, value in values.items() if name in self.built}
        return built, {name: value for name, value in values.items() if name not in built}


def find_class(name: str, room: Any, mother: type, call: str, given: Collection[str]) -> Found:
    """Find a class by ``library:Class`` in a module.

    It has to be a subclass of ``mother`` that has the method ``call``, and its constructor may need
    nothing but what is ``given``. Raises a TTAMEError that tells the nearest names for any other.
    """
    kinds = {n: k for n in dir(room) if isinstance(k := getattr(room, n), type)}
    classes = {
        n: k
        for n, k in kinds.items()
        if issubclass(k, mother) and k is not mother and callable(getattr(k, call, None))
        if all(p.default is not p.empty or n in given for n, p in _parameters(k).items())
    }
    wanted = name.partition(":")[2]
    if wanted not in classes:
        raise TTAMEError(f"{name!r} is none of {room.__name__}; {nearest(wanted, classes)}")
    kind = classes[wanted]
    return Found(name, kind, _parameters(kind), _parameters(getattr(kind, call)))


def _parameters(function: Callable) -> dict[str, Parameter]:
    """Take the named parameters of a class or function."""
    named = (Parameter.POSITIONAL_OR_KEYWORD, Parameter.KEYWORD_ONLY)
    found = signature(function).parameters.items()
    return {n: p for n, p in found if p.kind in named and n != "self"}


def _tuples(value: Any) -> Any:
    """Make tuples of lists, which is what YAML has for them."""
    return tuple(map(_tuples, value)) if isinstance(value, list) else value


@contextmanager
def drawing_from(seed: int) -> Iterator[None]:
    """Let what a library draws, from the generators that all share, come from a seed."""
    check_seed(seed)
    before = np.random.get_state()  # noqa: NPY002
    try:
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            np.random.seed(seed % 2**32)  # noqa: NPY002
            yield
    finally:
        np.random.set_state(before)  # noqa: NPY002
