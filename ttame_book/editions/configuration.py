"""Configurations of editions: where they lie, what they may hold, how parameters overrule them."""

import os
import re
import zlib
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import jsonschema
import yaml
from PIL.Image import Resampling

from ttame_core.errors import TTAMEError, nearest
from ttame_core.methods.registry import METHODS
from ttame_core.recipes import ORDERS, OTHER_CLASSES, TRAINED, VARIANTS

TRAINING = ("variant", "steps", "batch_size", "max_lr", "other_classes")
COMPARED = [*(m for m, trained in TRAINED.items() if trained.kind != "beyond"), *METHODS]
"""Methods compared by default: all but those that go beyond the paper."""
SETTINGS = ("seed", "data_root", *TRAINING, "methods", "images")
"""Parameters that overrule an edition's configuration."""
REGISTRIES: dict[str, list[str | None]] = {
    "method": [*TRAINED, *METHODS],
    "variant": [*VARIANTS],
    "other_classes": [*OTHER_CLASSES],
    "masking": [*ORDERS, None],
    "interpolation": [filter.name.lower() for filter in Resampling],
}
"""Names that the schema leaves to those who define them."""
DATA = {
    "digits": "ttame_book.demo.digits:open_split",
    "photographs": "ttame_book.demo.photographs:open_split",
    "folder": "ttame_book.editions.splits:open_split",
}
"""What opens a split of each kind of data."""
DEMO = "ttame_book.demo.classifiers"
SHIPPED = Path(__file__).parents[1] / "demo" / "weights"
"""Module and weights of the classifiers that the project trains itself."""


@dataclass(frozen=True)
class Configuration:
    """An edition's file with its project folder: names and places, nothing loaded.

    See ``config/schema.yaml`` for what the file may hold.

    Attributes
    ----------
    config : dict
        Validated against the schema.
    root : Path
        Folder of the project; relative paths of the configuration start here.
    home : Path
        Folder of the edition's outputs.
    overruled : str
        The settings that overrule the file, in short; empty where none does. Such runs have a
        folder of their own in ``home/variations``: the edition's book shows no number of theirs.
    """

    config: dict[str, Any]
    root: Path
    home: Path
    overruled: str = ""

    @classmethod
    def read(
        cls,
        name: str,
        settings: dict[str, Any] | None = None,
        *,
        results: str | None = None,
        root: str | Path | None = None,
    ) -> Self:
        """Read and check an edition.

        Parameters
        ----------
        name : str
            File in ``config/``, without suffix.
        settings : dict, optional
            Flat settings that overrule the file, of `SETTINGS`; those of training overrule the
            backbones' own too.
        results : str, optional
            Folder for outputs, relative to the project; ``results`` by default.
        root : str or Path, optional
            Folder of the project; found from the working directory or the package by default.

        Raises
        ------
        TTAMEError
            For an unknown edition, or a key or value the schema does not admit.
        """
        root = Path(root) if root else project_root()
        names = [p.stem for p in (root / "config").glob("*.yaml") if p.stem != "schema"]
        if name not in names:
            raise TTAMEError(f"edition {name!r} is unknown; {nearest(name, names)}")
        config = yaml.safe_load((root / "config" / f"{name}.yaml").read_text())
        validate(config, root, f"config/{name}.yaml")
        config["evaluate"].setdefault("methods", COMPARED)
        config = overrule(config, settings or {})
        validate(config, root, f"config/{name}.yaml with the parameters given")
        return cls(config, root, root / (results or "results") / name, in_short(settings or {}))

    @property
    def results(self) -> Path:
        """Folder of these settings' outputs."""
        return self.home / "variations" / self.overruled if self.overruled else self.home

    @property
    def name(self) -> str:
        """Name of the edition."""
        return self.config["edition"]

    @property
    def seed(self) -> int:
        """Seed of everything that has none of its own."""
        return self.config["seed"]

    @property
    def backbones(self) -> list[str]:
        """Names of the edition's backbones, the missing ones left out."""
        return [name for name in self.config["backbones"] if name not in self.missing]

    @property
    def missing(self) -> dict[str, Path]:
        """Optional backbones whose file of weights is not there, with the file's path."""
        files = {
            name: self.root / entry["weights"]
            for name, entry in self.config["backbones"].items()
            if entry.get("optional") and Path(entry.get("weights") or "").suffix
        }
        return {name: file for name, file in files.items() if not file.is_file()}

    @property
    def demo_backbones(self) -> list[str]:
        """Names of those of its backbones that the project trains itself."""
        return [name for name in self.backbones if (SHIPPED / f"{name}.safetensors").is_file()]

    @property
    def studied(self) -> list[str]:
        """Names of those of its backbones that ablations and the grid search are run for."""
        chosen = self.config["ablate"].get("backbones", self.backbones)
        return [name for name in chosen if name not in self.missing]

    @property
    def converged(self) -> list[str]:
        """Names of those of its backbones whose length of training is studied."""
        return self.studied if self.config.get("converge") else []

    @property
    def families(self) -> dict[str, str]:
        """Which of its backbones stands for each family of the paper's, where there is one."""
        chosen = self.config.get("claims", {})
        return {family: name for family, name in chosen.items() if name in self.backbones}

    def folder(self, backbone: str) -> Path:
        """Folder of a backbone's outputs."""
        self.entry(backbone)
        return self.results / backbone.replace("/", "-")

    def code(self, backbone: str) -> list[str]:
        """Modules that make a backbone and its images."""
        kind = self.config["data"][self.entry(backbone)["data"]]["kind"]
        return [*self.classifier_code(backbone), DATA[kind]]

    def classifier_code(self, backbone: str) -> list[str]:
        """Modules of the project that build a backbone."""
        own = [DEMO] if backbone in self.demo_backbones else []
        return ["ttame_core.classifiers.loading", *own]

    def photographs(self, backbone: str, *parts: str) -> list[Path]:
        """Folders of a backbone's photographs, ``train`` or ``val``, as far as there are any."""
        root = self.config["data"][self.entry(backbone)["data"]].get("root")
        folders = [self.root / root / part for part in parts] if root else []
        return [folder for folder in folders if folder.is_dir()]

    def weights(self, backbone: str) -> list[Path]:
        """Files of a backbone's weights, where they are files of the project's or the user's."""
        given = self.entry(backbone).get("weights") or ""
        files = [SHIPPED / f"{backbone}.safetensors", self.root / given]
        return [file for file in files if file.is_file()]

    def entry(self, backbone: str) -> dict[str, Any]:
        """Settings of one of the edition's backbones; a TTAMEError is raised if it is none."""
        own = self.config["backbones"]
        if backbone not in own:
            raise TTAMEError(
                f"backbone {backbone!r} is unknown to edition {self.name}; {nearest(backbone, own)}"
            )
        return own[backbone]


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
        config.pop("download", None)  # nothing into a folder of the user's
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
    """Name a folder after settings that change results: ``images=40,steps=100``."""
    values = {k: "+".join(map(str, v)) if isinstance(v, list) else v for k, v in settings.items()}
    if "data_root" in values:
        place = os.path.abspath(values["data_root"])
        values["data_root"] = f"{os.path.basename(place)}-{zlib.crc32(place.encode()):08x}"
    text = ",".join(f"{k}={v}" for k, v in sorted(values.items()))
    clean = re.sub(r"[^\w=.,+-]", "-", text)
    return clean if len(clean) < 80 else f"{clean[:60]}-{zlib.crc32(text.encode()):08x}"


def validate(config: dict[str, Any], root: Path, source: str) -> None:
    """Check a configuration against ``config/schema.yaml``.

    A TTAMEError names the place, the value and what was expected; for an unknown key the nearest.
    """
    schema = yaml.safe_load((root / "config" / "schema.yaml").read_text())
    schema["$defs"] |= {name: {"enum": valid} for name, valid in REGISTRIES.items()}
    error = jsonschema.exceptions.best_match(
        jsonschema.Draft202012Validator(schema).iter_errors(config)
    )
    if error is None:
        named = {f"backbones.{name}": entry["data"] for name, entry in config["backbones"].items()}
        named |= {"download": config["download"]} if "download" in config else {}
        for place, name in named.items():
            if name not in config["data"]:
                raise TTAMEError(
                    f"{source}, {place}: data {name!r} is unknown; {nearest(name, config['data'])}"
                )
        for family, name in config.get("claims", {}).items():
            if name not in config["backbones"]:
                raise TTAMEError(
                    f"{source}, claims.{family}: backbone {name!r} is unknown; {nearest(name, config['backbones'])}"
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

    A TTAMEError is raised if neither holds ``config/schema.yaml``.
    """
    here = Path.cwd()
    for folder in (here, *here.parents, Path(__file__).resolve().parents[2]):
        if (folder / "config" / "schema.yaml").is_file() and (folder / "notebooks").is_dir():
            return folder
    raise TTAMEError(
        f"no project found at or above {here}: expected a folder with config/ and notebooks/; "
        "change to your clone"
    )
