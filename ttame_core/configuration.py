"""Configurations of editions: where they lie, what they may hold, how parameters overrule them."""

import os
import re
import zlib
from copy import deepcopy
from pathlib import Path
from typing import Any

import jsonschema
import yaml

from ttame_core.errors import TTAMEError, nearest

TRAINING = ("variant", "steps", "batch_size", "max_lr", "other_classes")


def overrule(config: dict[str, Any], settings: dict[str, Any]) -> dict[str, Any]:
    """Apply flat settings to a copy of a configuration; see `Edition.read`."""
    config = deepcopy(config)
    settings = dict(settings)
    config |= {"seed": settings.pop("seed")} if "seed" in settings else {}
    if "data_root" in settings:
        folders = [s for s in config["data"].values() if s["kind"] == "folder"]
        if not folders:
            raise TTAMEError(
                f"edition {config['edition']} reads no image folder, so data_root is of no use; "
                "choose the edition imagenette or imagenet"
            )
        root = os.path.abspath(settings.pop("data_root"))
        for spec in folders:
            spec["root"] = root
    training = {k: settings.pop(k) for k in TRAINING if k in settings}
    for section in (config, *config["backbones"].values()):
        if training:
            section["train"] = {**section.get("train", {}), **training}
    if "methods" in settings:
        config["evaluate"]["methods"] = settings.pop("methods")
    if "images" in settings:
        count = settings.pop("images")
        config["evaluate"] |= {"images": count, "road_images": count}
    if settings:
        raise TTAMEError(f"settings {sorted(settings)} are unknown")
    return config


def in_short(settings: dict[str, Any]) -> str:
    """Name a folder after settings that change results, where the data lie apart: ``images=40,steps=100``."""
    text = ",".join(
        f"{k}={'+'.join(map(str, v)) if isinstance(v, list) else v}"
        for k, v in sorted(settings.items())
        if k != "data_root"
    )
    clean = re.sub(r"[^\w=.,+-]", "-", text)
    return clean if len(clean) < 80 else f"{clean[:60]}-{zlib.crc32(text.encode()):08x}"


def validate(config: dict[str, Any], root: Path, source: str) -> None:
    """Check a configuration against ``config/schema.yaml``.

    Raises
    ------
    TTAMEError
        Naming the place, the value and what was expected; for an unknown key the nearest ones.
    """
    schema = yaml.safe_load((root / "config" / "schema.yaml").read_text())
    error = jsonschema.exceptions.best_match(
        jsonschema.Draft202012Validator(schema).iter_errors(config)
    )
    if error is None:
        for name, entry in config["backbones"].items():
            if entry["data"] not in config["data"]:
                raise TTAMEError(
                    f"{source}, backbones.{name}: data {entry['data']!r} is unknown; {nearest(entry['data'], config['data'])}"
                )
        return
    place = ".".join(map(str, error.absolute_path)) or "top level"
    if error.validator == "additionalProperties":
        valid = error.schema.get("properties", {})
        unknown = [k for k in error.instance if k not in valid]
        hints = "; ".join(f"{k!r} is unknown, {nearest(k, valid)}" for k in unknown)
        raise TTAMEError(f"{source}, {place}: {hints}")
    raise TTAMEError(f"{source}, {place}: {error.message}")


def project_root() -> Path:
    """Find the folder of the project: from the working directory upwards, else beside the package.

    Returns
    -------
    Path

    Raises
    ------
    TTAMEError
        If neither holds ``config/schema.yaml``.
    """
    here = Path.cwd()
    for folder in (here, *here.parents, Path(__file__).resolve().parents[1]):
        if (folder / "config" / "schema.yaml").is_file() and (folder / "notebooks").is_dir():
            return folder
    raise TTAMEError(
        f"no project found at or above {here}: expected a folder with config/ and notebooks/; "
        "change to your clone"
    )
