"""Weights of one's own: files and state dicts as people have them, fitted to a classifier."""

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from textwrap import shorten
from typing import Any
from zipfile import is_zipfile

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from ttame_core.errors import TTAMEError

COUNTERS = "num_batches_tracked"
"""Batch norms' counters, which older checkpoints lack and evaluation does not read."""
STRANGERS = {
    b"version https://git-lfs": "is a Git LFS pointer: fetch what it points to by `git lfs pull`",
    b"<": "is a page of HTML or XML: download the weights themselves",
    b"{": "is JSON: give the file of the weights beside it",
}
"""How files begin that are often taken for weights, and what to say of them."""


def load_weights(model: nn.Module, weights: Any, where: str = "the state dict") -> None:
    """Load a file, or a state dict in memory, into a model, in place.

    Names may be nested in dicts, and all begin with the same words (``module.``, ``model.``): the
    one part that has the model's names and shapes is taken. A TTAMEError is raised where there is
    none, or several that differ, where a weight is not finite, or the file cannot be read.
    """
    found = weights if isinstance(weights, Mapping) else read_state(weights)
    where = where if isinstance(weights, Mapping) else str(weights)
    own = {k: v for k, v in model.state_dict().items() if isinstance(v, Tensor)}
    parts = dict(_parts(found, own))
    if not parts:
        kinds = sorted({type(value).__name__ for value in found.values()})
        raise TTAMEError(
            f"{where} holds no tensors by name, but {len(found)} of {kinds}; expected model.state_dict()"
        )
    fitting = {
        at: {k: v.to(own[k]) for k, v in part.items()}
        for at, part in parts.items()
        if not any(_differences(part, own))
    }
    if not fitting:
        at = max(parts, key=lambda at: len(parts[at].keys() & own.keys()))
        missing, unexpected, shapes = _differences(parts[at], own)
        raise TTAMEError(
            f"the weights in {where}{at} do not fit {type(model).__name__}: {len(missing)} missing "
            f"{missing[:3]}, {len(unexpected)} unexpected {unexpected[:3]}, "
            f"{len(shapes)} of another shape {shapes[:3]}. Choose the backbone that they were "
            "saved from (and its num_classes)"
        )
    state, *others = fitting.values()
    if any(not torch.equal(state[k], v) for o in others for k, v in o.items() if k in state):
        raise TTAMEError(
            f"{where} holds weights for {type(model).__name__} more than once, and they differ: {list(fitting)}; give "
            "one of them as a dict: weights=torch.load(file)[...]"
        )
    broken = [k for k, v in state.items() if v.is_floating_point() and not v.isfinite().all()]
    if broken:
        raise TTAMEError(
            f"{where} holds weights that are not finite: {broken[:3]}, {len(broken)} in all; take an earlier checkpoint"
        )
    model.load_state_dict({**own, **state}, strict=False)


def read_state(path: str | Path, saved: str = "model.state_dict()") -> Mapping[str, Any]:
    """Read a safetensors file, or a dict that torch saved; raise a TTAMEError if it is neither.

    ``saved`` is what to save of a file whose other contents would run code, as Python has it.
    """
    if not isinstance(path, str | Path):
        raise TTAMEError(
            f"weights are {type(path)}; expected 'DEFAULT', None, a file or a state dict: model.state_dict()"
        )
    path = Path(path)
    if path.is_dir():
        held = sorted(file.name for file in path.iterdir())[:5]
        raise TTAMEError(f"weights {str(path)!r} are a folder of {held}; give the file of weights")
    if not path.is_file():
        raise TTAMEError(
            f"weights {str(path)!r} are no file and no published name; expected 'DEFAULT', None, or the "
            "path of a .safetensors or state-dict file"
        )
    with path.open("rb") as file:
        start = file.read(64)
    expected = f"expected .safetensors, or a state dict saved with torch.save({saved}, ...)"
    cannot = f"{path} cannot be read as weights"
    # by content: .pt, .pth, .bin and .safetensors are given to either
    safetensors = start[8:9] == b"{"
    if not safetensors and not start.startswith((b"PK", b"\x80")):  # as torch's zips and pickles do
        text = start.lstrip(b"\xef\xbb\xbf \t\r\n")
        said = [words for begin, words in STRANGERS.items() if text.startswith(begin)]
        said += [f"begins with {start[:12]!r}" if start else "is empty"]
        raise TTAMEError(f"{cannot}: it {said[0]}; {expected}")
    if start.startswith(b"PK") and not is_zipfile(path):
        size = path.stat().st_size
        raise TTAMEError(f"{cannot}: its end is missing after {size} bytes; copy it once more")
    try:
        if safetensors:
            return load_file(path)
        with path.open("rb") as file:  # of a path torch would read the suffix
            # weights only: a pickle from elsewhere may run any code
            found = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # of a broken file anything may be raised
        if pickled := re.search(r"GLOBAL (\S+)", str(error)):
            raise TTAMEError(
                f"{cannot}: beside tensors it holds {pickled[1]}, and to load that would run code of the file. Where you "
                f"trust it, load it with weights_only=False, and save its state dict alone: torch.save({saved}, ...)"
            ) from error
        # torch's advice is to load it all the same, by whatever code it holds
        words = str(error).partition("WeightsUnpickler error: ")[2] or str(error)
        about = f"{type(error).__name__}: {shorten(words.partition(' In PyTorch')[0], 200)}"
        raise TTAMEError(f"{cannot} ({path.stat().st_size} bytes, {about}); {expected}") from error
    if not isinstance(found, Mapping):
        raise TTAMEError(f"{cannot}: it holds a {type(found).__name__}; {expected}")
    return found


def _parts(found: Mapping, own: Mapping, at: str = "") -> Iterator[tuple[str, dict[str, Tensor]]]:
    """Yield what may be the weights, and where it was found: at any depth, behind any prefix."""
    tensors = {k: v for k, v in found.items() if isinstance(k, str) and isinstance(v, Tensor)}
    if tensors:
        starts = [(k, m.end()) for k in tensors for m in re.finditer(r"^|\.", k)]
        counts = Counter(k[:start] for k, start in starts if k[start:] in own)
        needed = sum(not k.endswith(COUNTERS) for k in own)
        nearest = [prefix for prefix, _ in counts.most_common(1)] or [""]
        for prefix in [p for p, count in counts.items() if count >= needed] or nearest:
            part = {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
            yield f"{at} ({prefix}*)" if prefix else at, part
    for key, value in found.items():
        if isinstance(value, Mapping):
            yield from _parts(value, own, f"{at}[{key!r}]")


def _differences(part: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> tuple[list, list, list]:
    """List missing and unexpected names, and shapes and types that a model cannot take."""
    missing = [k for k in own.keys() - part.keys() if not k.endswith(COUNTERS)]
    other = [
        f"{k} is {tuple(part[k].shape)} {part[k].dtype}, expected {tuple(own[k].shape)} {own[k].dtype}"
        for k in own.keys() & part.keys()
        if own[k].shape != part[k].shape or own[k].is_floating_point() > part[k].is_floating_point()
    ]
    return sorted(missing), sorted(part.keys() - own.keys()), sorted(other)
