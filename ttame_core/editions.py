"""Editions: one configuration file each, turned into backbones, images, recipes and explainers."""

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import torch
import yaml

from ttame_core import data, demo, wheels, zoo
from ttame_core.backbones import Backbone, load_backbone
from ttame_core.configuration import overrule, project_root, validate
from ttame_core.errors import TTAMEError, nearest
from ttame_core.explainer import TTAME
from ttame_core.files import atomic_path
from ttame_core.losses import LossWeights
from ttame_core.methods import Method, method
from ttame_core.training import Recipe, train


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
            Flat settings that overrule the file: ``seed``, ``data_root``, ``methods``, ``images``,
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
        """Load a backbone as the edition has it - weights, taps, masking - on the accelerator if there is one."""
        entry = self.entry(name)
        weights = entry.get("weights", "DEFAULT")
        retrained = self.results / "backbones" / f"{name}.safetensors"  # by 00_backbones
        if weights == "DEFAULT" and retrained.is_file():
            weights = retrained
        elif weights and Path(weights).suffix:
            weights = self.root / weights
        backbone = load_backbone(name, weights, entry.get("taps"), masking=entry.get("masking"))
        return backbone.to(torch.accelerator.current_accelerator(check_available=True) or "cpu")

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

    def test_images(self, backbone: Backbone, limit: str = "images") -> Any:
        """Open a backbone's test images, as many of them as an evaluation takes, spread over all.

        Parameters
        ----------
        backbone : Backbone
            As `backbone` loaded it.
        limit : {"images", "road_images"}
            Entry of the configuration's ``evaluate`` that says how many.

        Returns
        -------
        Dataset
        """
        images = self.images(backbone, "test")
        return data.spread(images, self.config["evaluate"].get(limit, len(images)))

    def methods(self, explainer: TTAME) -> dict[str, Method]:
        """Make the methods compared on a backbone ready to be called, its T-TAME among them."""
        return {
            name: explainer.explain if name == "t-tame" else method(name, explainer.backbone)
            for name in self.config["evaluate"]["methods"]
        }

    def recipe(self, backbone: str) -> Recipe:
        """Return how a backbone's attention mechanism is trained."""
        settings = self._training(backbone)
        for other in ("variant", "workers"):
            settings.pop(other, None)
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

    def scores(self, file: str) -> pd.DataFrame:
        """Read the scores of all backbones, written by the evaluations.

        Parameters
        ----------
        file : str
            Name of the file in a backbone's folder.

        Returns
        -------
        DataFrame
            One row an image, backbone, method, measure and v.

        Raises
        ------
        TTAMEError
            If a backbone has none yet.
        """
        files = {name: self.folder(name) / file for name in self.backbones}
        missing = [name for name, path in files.items() if not path.is_file()]
        if missing:
            raise TTAMEError(
                f"no {file} of {missing} yet; run the notebooks 02_evaluate and 03_road for them first"
            )
        return pd.concat([pd.read_parquet(path) for path in files.values()])

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
                workers=self._training(name).get("workers", 0),
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
        """Load a backbone's explainer; train it first where there is none of this recipe and classifier.

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
        wanted = {"recipe": recipe} | TTAME(backbone, self.variant(backbone.name)).identity()
        if file.is_file() and TTAME.metadata(file).items() >= wanted.items():
            return TTAME.load(file, backbone)
        return self.train(backbone, progress)[0]

    def _recipe_text(self, name: str) -> str:
        spec = self.config["data"][self.entry(name)["data"]]
        return json.dumps(
            {"seed": self.seed, "data": spec, **asdict(self.recipe(name))}, sort_keys=True
        )
