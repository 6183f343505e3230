"""Editions: one configuration file each, turned into backbones, images, recipes and explainers."""

import json
import os
from collections.abc import Callable
from copy import deepcopy
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import jsonschema
import pandas as pd
import yaml

from ttame_core import data, demo, wheels, zoo
from ttame_core.backbones import Backbone, load_backbone
from ttame_core.errors import TTAMEError, nearest
from ttame_core.explainer import TTAME
from ttame_core.files import atomic_path
from ttame_core.losses import LossWeights
from ttame_core.training import Recipe, train

TRAINING = ("variant", "steps", "batch_size", "max_lr", "other_classes")


@dataclass(frozen=True)
class Edition:
    """A configuration with its project folder; see ``config/schema.yaml`` for what it may hold.

    Attributes
    ----------
    config : dict
        Validated against the schema.
    root : Path
        Folder of the project; relative paths of the configuration start here.
    results : Path
        Folder of the edition's outputs.
    """

    config: dict[str, Any]
    root: Path
    results: Path

    @classmethod
    def read(
        cls,
        name: str,
        settings: dict[str, Any] | None = None,
        *,
        results: str | None = None,
        root: str | Path | None = None,
    ) -> "Edition":
        """Read and check an edition.

        Parameters
        ----------
        name : str
            File in ``config/``, without suffix.
        settings : dict, optional
            Flat settings that overrule the file: ``seed``, ``retrain``, ``data_root``, ``methods``, ``images``,
            and those of training, which overrule the backbones' own too.
        results : str, optional
            Folder for outputs, relative to the project; ``results`` by default.
        root : str or Path, optional
            Folder of the project; found from the working directory or the package by default.

        Returns
        -------
        Edition

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
        config = overrule(config, settings or {})
        validate(config, root, f"config/{name}.yaml with the parameters given")
        return cls(config, root, root / (results or "results") / name)

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
        """Names of the edition's backbones."""
        return list(self.config["backbones"])

    @property
    def demo_backbones(self) -> list[str]:
        """Names of those of its backbones that the project trains itself."""
        return [name for name in self.backbones if name in demo.DEMO_BACKBONES]

    def folder(self, backbone: str) -> Path:
        """Folder of a backbone's outputs."""
        self.entry(backbone)
        return self.results / backbone.replace("/", "-")

    def entry(self, backbone: str) -> dict[str, Any]:
        """Settings of a backbone; any other ImageNet classifier runs on the edition's photographs."""
        own = self.config["backbones"]
        if backbone in own:
            return own[backbone]
        photographs = [k for k, v in self.config["data"].items() if v["kind"] != "digits"]
        if photographs and backbone.removeprefix("timm/") in zoo.known_names():
            return {"data": photographs[0]}
        valid = [*own, *(zoo.known_names() if photographs else [])]
        raise TTAMEError(
            f"backbone {backbone!r} is unknown to edition {self.name}; {nearest(backbone, valid)}"
        )

    def backbone(self, name: str) -> Backbone:
        """Load a backbone as the edition has it: weights, taps, masking."""
        entry = self.entry(name)
        weights = entry.get("weights", "DEFAULT")
        if self.config.get("retrain") and weights == "DEFAULT":
            retrained = self.results / "backbones" / f"{name}.safetensors"
            weights = retrained if retrained.is_file() else weights
        elif weights and Path(weights).suffix:
            weights = self.root / weights
        return load_backbone(name, weights, entry.get("taps"), masking=entry.get("masking"))

    def images(self, backbone: Backbone, split: str) -> Any:
        """Open the images of a backbone, cropped and resized as its weights ask for.

        Parameters
        ----------
        backbone : Backbone
            As `backbone` loaded it.
        split : {"train", "val", "test"}
            Which part of them.

        Returns
        -------
        Dataset
            Items as `ttame_core.data` describes.
        """
        spec = self.config["data"][self.entry(backbone.name)["data"]]
        size, given = spec.get(split), backbone.preprocessing
        if spec["kind"] == "digits":
            return wheels.DigitsInPhotographs(split, size, image_size=given.image_size)
        crop = (given.image_size, given.resize, given.interpolation)
        if spec["kind"] == "photographs":
            return wheels.WheelPhotographs(split, size, 0, *crop)
        return data.folder_split(spec, split, self.root, *crop)

    def recipe(self, backbone: str) -> Recipe:
        """Return how a backbone's attention mechanism is trained."""
        settings = self._training(backbone)
        settings.pop("variant", None)
        loss = LossWeights(**settings.pop("loss", {}))
        return Recipe(**settings, loss=loss)

    def variant(self, backbone: str) -> str:
        """Return which variant of the attention mechanism is trained."""
        return self._training(backbone).get("variant", "proposed")

    def _training(self, backbone: str) -> dict[str, Any]:
        return {**self.config["train"], **self.entry(backbone).get("train", {})}

    def training_files(self, backbone: str) -> tuple[Path, Path]:
        """Where a backbone's trained explainer and the history of its training lie."""
        variant = self.variant(backbone)
        suffix = "" if variant == "proposed" else f"-{variant}"
        folder = self.folder(backbone)
        return folder / f"explainer{suffix}.safetensors", folder / f"training{suffix}.csv"

    def train(
        self,
        backbone: Backbone,
        progress: Callable[[int, int], None] | None = None,
    ) -> tuple[TTAME, pd.DataFrame]:
        """Train and save a backbone's explainer, going on from where a killed run was.

        Parameters
        ----------
        backbone : Backbone
            As `backbone` loaded it.
        progress : callable, optional
            Called with (steps done, steps in all).

        Returns
        -------
        tuple of TTAME and DataFrame
            The explainer, and its training history, a row a step.
        """
        name = backbone.name
        file, record = self.training_files(name)
        checkpoint = file.with_suffix(".checkpoint")
        recipe = self.recipe(name)
        explainer = TTAME(backbone, self.variant(name), seed=self.seed)
        history = pd.DataFrame(
            train(
                explainer,
                self.images(backbone, "train"),
                recipe,
                seed=self.seed,
                checkpoint=checkpoint,
                progress=progress,
            )
        )
        with atomic_path(record) as path:
            history.to_csv(path, index=False)
        explainer.save(file, recipe=self._recipe_text(name))
        checkpoint.unlink(missing_ok=True)
        return explainer, history

    def explainer(
        self,
        backbone: Backbone,
        progress: Callable[[int, int], None] | None = None,
    ) -> TTAME:
        """Load a backbone's explainer; train it first where there is none of this recipe.

        Parameters
        ----------
        backbone : Backbone
            As `backbone` loaded it.
        progress : callable, optional
            Called with (steps done, steps in all) while training.

        Returns
        -------
        TTAME
            In evaluation mode.
        """
        file, _ = self.training_files(backbone.name)
        recipe = self._recipe_text(backbone.name)
        if file.is_file() and TTAME.metadata(file).get("recipe") == recipe:
            return TTAME.load(file, backbone)
        return self.train(backbone, progress)[0]

    def _recipe_text(self, name: str) -> str:
        spec = self.config["data"][self.entry(name)["data"]]
        return json.dumps(
            {"seed": self.seed, "data": spec, **asdict(self.recipe(name))}, sort_keys=True
        )


def overrule(config: dict[str, Any], settings: dict[str, Any]) -> dict[str, Any]:
    """Apply flat settings to a copy of a configuration; see `Edition.read`."""
    config = deepcopy(config)
    settings = dict(settings)
    config |= {k: settings.pop(k) for k in ("seed", "retrain") if k in settings}
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
    config["evaluate"] |= {k: settings.pop(k) for k in ("methods", "images") if k in settings}
    if settings:
        raise TTAMEError(f"settings {sorted(settings)} are unknown")
    return config


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
