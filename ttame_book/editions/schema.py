"""What a configuration's file may hold: YAML that keeps to ``config/schema.yaml``."""

import math
import reprlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import jsonschema
import yaml
from PIL.Image import Resampling

from ttame_book.editions.splits import DATA
from ttame_core.errors import TTAMEError, check_known, nearest
from ttame_core.methods.registry import METHODS, OF_LIBRARIES
from ttame_core.recipes import (
    CROP_MODES,
    MASKS,
    OBJECTIVES,
    OPTIMIZERS,
    ORDERS,
    OTHER_CLASSES,
    OURS,
    TRAINED,
    VARIANTS,
    Recipe,
)

REGISTRIES: dict[str, list[str | None]] = {
    "kind": [*DATA],
    "method": [*TRAINED, *METHODS],
    "trained-method": [*TRAINED],
    "variant": [*VARIANTS],
    "other_classes": [*OTHER_CLASSES],
    "objective": [*OBJECTIVES],
    "mask": [*MASKS],
    "optimizer": [*OPTIMIZERS],
    "masking": [*ORDERS, None],
    "crop_mode": [*CROP_MODES],
    "interpolation": [filter.name.lower() for filter in Resampling],
}
"""Names that the schema leaves to those who define them."""
TAKEN = ("summary", "backbones", "logs", "book", "variations")
"""Folders of an edition's results that are no backbone's."""
OF_TRAINING = ("train", "ablate", "tune")
"""Sections that an edition has, unless all its explainers are released ones or another's."""
DRAFT = jsonschema.Draft202012Validator
# no number that is not finite, and no 3.0 for a whole one
NUMBERS = DRAFT.TYPE_CHECKER.redefine("integer", lambda _, value: type(value) is int).redefine(
    "number", lambda _, value: type(value) in (int, float) and abs(value) < math.inf
)
VALIDATOR = jsonschema.validators.extend(DRAFT, type_checker=NUMBERS)


class _Loader(yaml.SafeLoader):
    """Reads YAML whose names are texts, each given once, and that nothing multiplies."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            problem, mark = (
                "is an alias; write out what it stands for",
                self.peek_event().start_mark,
            )
            raise yaml.MarkedYAMLError(None, None, f"*{self.peek_event().anchor} {problem}", mark)
        return super().compose_node(parent, index)

    def construct_mapping(self, node: Any, deep: bool = False) -> dict:
        seen = set()
        for key, _ in node.value:
            problem = "is given twice" if key.value in seen else "is no text; put it in quotes"
            if key.value in seen or key.tag != "tag:yaml.org,2002:str":
                raise yaml.MarkedYAMLError(None, None, f"{key.value} {problem}", key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep)


def read_yaml(file: Path) -> Any:
    """Read a YAML file; a TTAMEError tells the line of what is wrong."""
    try:
        return yaml.load(file.read_text("utf-8"), _Loader)
    except (yaml.YAMLError, ValueError, TypeError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark else ""
        problem = " ".join(str(getattr(error, "problem", error)).split())
        raise TTAMEError(
            f"config/{file.name}{line}: {problem}; expected names and values, as in config/demo.yaml"
        ) from error


def validate(config: Any, root: Path, source: str) -> None:
    """Check a configuration against ``config/schema.yaml``.

    A TTAMEError names the place, the value and what was expected; for an unknown key the nearest.
    """
    check(config, root, source)
    trained = [e for e in config["backbones"].values() if not {*e} & {"released", "explainers"}]
    lacking = [section for section in OF_TRAINING if section not in config]
    if trained and lacking:
        raise TTAMEError(f"{source}, top level: {', '.join(lacking)} must be given")
    if not any(entry.get("scored", True) for entry in config["backbones"].values()):
        raise TTAMEError(f"{source}, backbones: none is scored; expected one, for the tables")
    for place, kind, name, valid in _references(config):
        check_known(f"{source}, {place}: {kind}", name, valid)
    _check_folders(config["backbones"], source)
    for place, size, data, count in _batches(config):
        if size > count:
            raise TTAMEError(
                f"{source}, {place}.batch_size is {size}, and data.{data}.train {count}; expected a batch of the "
                "images there are to train on: a smaller one, or more images"
            )


def check(values: Any, root: Path, source: str, part: str | None = None) -> None:
    """Check values against the schema, or one of its parts, as `validate` does."""
    schema = yaml.safe_load((root / "config" / "schema.yaml").read_text())
    schema["$defs"] |= {name: {"enum": valid} for name, valid in REGISTRIES.items()}
    # a library's class is told from a name of ours here, and found where the library is loaded
    of_library = {"type": "string", "pattern": OF_LIBRARIES}
    schema["$defs"]["method"] = {"if": of_library, "else": schema["$defs"]["method"]}
    rules = {**schema["$defs"][part], "$defs": schema["$defs"]} if part else schema
    error = jsonschema.exceptions.best_match(VALIDATOR(rules).iter_errors(values))
    if error:
        raise TTAMEError(f"{source}, {_told(error, schema['words'])}")


def _told(error: Any, words: dict[str, str]) -> str:
    """Say where a value is, what it is and what was expected."""
    place = ".".join(map(str, error.absolute_path)) or "top level"
    found, rule, limit = error.instance, error.validator, error.validator_value
    if rule == "additionalProperties":
        valid = error.schema.get("properties", {})
        unknown = [k for k in found if k not in valid]
        return f"{place}: " + "; ".join(f"{k!r} is unknown, {nearest(k, valid)}" for k in unknown)
    if rule == "required":
        return f"{place}: {', '.join(k for k in limit if k not in found)} must be given"
    if rule == "enum":
        return f"{place}: {found!r} is unknown; {nearest(found, limit)}"
    rules = [limit] if rule == "type" and isinstance(limit, str) else limit
    expected = " or ".join(words[r] for r in rules) if rule == "type" else words[rule].format(limit)
    return f"{place} is {reprlib.repr(found)}; expected {expected}"


def _references(config: dict[str, Any]) -> Iterator[tuple[str, str, str, Iterable[str]]]:
    """Names that must be those of other entries: place, kind, name, valid ones."""
    backbones = config["backbones"]
    for name, entry in backbones.items():
        yield f"backbones.{name}", "data", entry["data"], config["data"]
    if "download" in config:
        yield "download", "data", config["download"], config["data"]
    scored = [name for name, entry in backbones.items() if entry.get("scored", True)]
    for family, name in config.get("claims", {}).items():
        yield f"claims.{family}", "backbone", name, scored
    for section in ("ablate", "converge"):
        for name in config.get(section, {}).get("backbones", ()):
            yield f"{section}.backbones", "backbone", name, backbones
    # of what is compared by default T-TAME alone is ours
    lengths = [m for m in config["evaluate"].get("methods", ["t-tame"]) if m in OURS]
    for name in config.get("converge", {}).get("changed", ()):
        yield "converge.changed", "method", name, lengths


def folder_name(backbone: str) -> str:
    """Return what the folder of a backbone's outputs is called."""
    return backbone.replace("/", "-")


def _check_folders(backbones: Iterable[str], source: str) -> None:
    """Raise a TTAMEError unless each backbone has a folder of its own, that nothing else uses."""
    owners: dict[str, str] = dict.fromkeys(TAKEN, "the edition itself")
    for name in backbones:
        folder = folder_name(name)
        same = folder.casefold()  # as some file systems have it
        if folder.startswith(".") or same in owners:
            whose = f"that of {owners[same]}" if same in owners else "hidden"
            raise TTAMEError(
                f"{source}, backbones: the folder {folder!r} of {name!r} would be {whose}; expected a name whose folder "
                "is its own: leave it out, or put it into an edition of its own"
            )
        owners[same] = repr(name)


def _batches(config: dict[str, Any]) -> Iterator[tuple[str, int, str, int]]:
    """Batches of all trainings: place, size, data, and how many images of them there are."""
    for name, entry in config["backbones"].items():
        data = entry["data"]
        spec = config["data"][data]
        places = {"train": config, f"data.{data}.recipe": spec, f"backbones.{name}.train": entry}
        of_all = [
            (place, section.get(place.rpartition(".")[2], {})) for place, section in places.items()
        ]
        trained = {"trained": config, f"backbones.{name}.trained": entry}
        for method in TRAINED:
            apart = [
                (f"{place}.{method}", section.get("trained", {}).get(method, {}))
                for place, section in trained.items()
            ]
            sizes = [
                (place, s["batch_size"]) for place, s in (*of_all, *apart) if "batch_size" in s
            ]
            place, size = sizes[-1] if sizes else ("train", Recipe.batch_size)
            yield place, size, data, spec.get("train", size)
