"""Configurations of editions: where they lie, what they say, how parameters overrule them."""

import os
import re
import zlib
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from filelock import FileLock, Timeout

from ttame_book.editions.schema import folder_name, read_yaml, validate
from ttame_book.editions.splits import DATA, lists_of
from ttame_core.errors import TTAMEError, check_known
from ttame_core.methods.registry import METHODS
from ttame_core.recipes import TRAINED

TRAINING = ("variant", "steps", "batch_size", "max_lr", "other_classes")
COMPARED = [*(m for m, trained in TRAINED.items() if trained.kind != "beyond"), *METHODS]
"""Methods compared by default: all but those that go beyond the paper."""
SETTINGS = ("seed", "data_root", *TRAINING, "methods", "images")
"""Parameters that overrule an edition's configuration."""
PATIENCE = 5.0
"""Seconds that a run waits for another to end: a killed one's notebooks end a little after it."""
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
    precisions : dict of str to str
        In what the classifiers run that were loaded so far, ``float32`` or ``bfloat16``, by name.
    """

    config: dict[str, Any]
    root: Path
    home: Path
    overruled: str = ""
    precisions: dict[str, str] = field(default_factory=dict, compare=False)

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
        settings = settings or {}
        root = Path(root) if root else project_root()
        names = [p.stem for p in (root / "config").glob("*.yaml") if p.stem != "schema"]
        check_known("edition", name, names)
        source = f"config/{name}.yaml"
        config = read_yaml(root / source)
        validate(config, root, source)
        for backbone, entry in config["backbones"].items():
            if of := entry.get("explainers"):
                theirs = read_yaml(root / f"config/{of}.yaml")["backbones"] if of in names else {}
                if {"explainers", "released"} & {*theirs.get(backbone, entry)}:
                    told = f"{of} trains none of {backbone}; expected an edition that does"
                    raise TTAMEError(f"{source}, backbones.{backbone}.explainers: {told}")
                config["backbones"][backbone] = theirs[backbone] | entry
        if config["edition"] != name:
            raise TTAMEError(
                f"{source}, edition is {config['edition']!r}; expected the file's name, {name!r}"
            )
        config["evaluate"].setdefault("methods", COMPARED)
        config = overrule(config, settings)
        validate(config, root, "the parameters given")
        edition = cls(config, root, root / (results or "results") / name, in_short(settings))
        edition.check(source)
        return edition

    def check(self, source: str) -> None:
        """Raise a TTAMEError for what only a subclass can check; ``source`` is the file's name."""

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
        """Backbones left out as their file is not there: optional weights, a released explainer."""
        files = {}
        for name, entry in self.config["backbones"].items():
            if "released" in entry:
                files[name] = self.root / entry["released"]
            elif entry.get("optional") and Path(entry.get("weights") or "").suffix:
                files[name] = self.root / entry["weights"]
        return {name: file for name, file in files.items() if not file.is_file()}

    @property
    def demo_backbones(self) -> list[str]:
        """Names of those of its backbones that the project trains itself."""
        return [name for name in self.backbones if (SHIPPED / f"{name}.safetensors").is_file()]

    @property
    def scored(self) -> list[str]:
        """Names of those of its backbones that have scores; the others are galleries of maps."""
        return [
            name for name in self.backbones if self.config["backbones"][name].get("scored", True)
        ]

    @property
    def trained(self) -> list[str]:
        """Names of those of its backbones that explainers are trained for, not released ones."""
        others, own = {"released", "explainers"}, self.config["backbones"]
        return [name for name in self.backbones if not {*own[name]} & others]

    def trainer(self, backbone: str) -> Self:
        """Read the edition whose explainer a backbone has, where its entry names one."""
        of = self.entry(backbone)["explainers"]
        return self.read(of, results=str(self.home.parent), root=self.root)

    @property
    def studied(self) -> list[str]:
        """Names of those of its backbones that ablations and the grid search are run for."""
        chosen = self.config.get("ablate", {}).get("backbones", self.trained)
        return [name for name in chosen if name in self.trained]

    @property
    def converged(self) -> list[str]:
        """Names of those of its backbones whose length of training is studied."""
        chosen = self.config.get("converge", {"backbones": []}).get("backbones", self.trained)
        return [name for name in chosen if name in self.trained]

    @property
    def families(self) -> dict[str, str]:
        """Which of its backbones stands for each family of the paper's, where there is one."""
        chosen = self.config.get("claims", {})
        return {family: name for family, name in chosen.items() if name in self.backbones}

    def folder(self, backbone: str) -> Path:
        """Folder of a backbone's outputs."""
        self.entry(backbone)
        return self.results / folder_name(backbone)

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
        name = self.entry(backbone)["data"]
        root = self.config["data"][name].get("root")
        if name == self.config.get("download"):
            return []  # always the same ones, there or not yet
        folders = [self.root / root / part for part in parts] if root else []
        return [folder for folder in folders if folder.is_dir()]

    def weights(self, backbone: str) -> list[Path]:
        """Files of a backbone's weights, where they are files of the project's or the user's."""
        given = self.entry(backbone).get("weights") or ""
        released = self.entry(backbone).get("released", "")
        files = [SHIPPED / f"{backbone}.safetensors", self.root / given, self.root / released]
        return [file for file in files if file.is_file()]

    def lists(self, backbone: str) -> dict[str, str]:
        """What the lists of a backbone's images say; a TTAMEError is raised if one is not there."""
        spec = self.config["data"][self.entry(backbone)["data"]]
        files = lists_of(spec, self.root)
        try:
            return {split: file.read_text("utf-8") for split, file in files.items()}
        except (OSError, ValueError) as error:
            raise TTAMEError(
                f"a list of images cannot be read ({error}); put it there, or correct the path"
            ) from error

    def hold(self, run: str) -> FileLock:
        """Keep the results for a run of a name until the lock is released or its process ends.

        A TTAMEError is raised if another process has them, or nothing can be written.
        """
        file = self.results / "logs" / f"{run}.lock"
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            lock = FileLock(file, is_singleton=True)
            lock.acquire(timeout=PATIENCE)
        except Timeout as error:
            raise TTAMEError(
                f"{run} runs already into {self.results}; wait for it, or stop it"
            ) from error
        except (OSError, ValueError) as error:  # of a name that no system takes
            raise TTAMEError(
                f"{str(self.results)!r} cannot be written to ({error}); name another folder by results"
            ) from error
        return lock

    def entry(self, backbone: str) -> dict[str, Any]:
        """Settings of one of the edition's backbones; a TTAMEError is raised if it is none."""
        check_known(f"edition {self.name}: backbone", backbone, self.config["backbones"])
        return self.config["backbones"][backbone]


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
        for apart in section.get("trained", {}).values():
            # all but the variant, which makes it another method
            apart |= {k: v for k, v in training.items() if k in apart and k != "variant"}
    for spec in config["data"].values():
        spec |= {"recipe": spec["recipe"] | training} if "recipe" in spec else {}
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
