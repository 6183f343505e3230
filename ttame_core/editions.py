"""Editions: one configuration file each, turned into backbones, images, recipes and explainers."""

import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from ttame_core import data, wheels, zoo
from ttame_core.backbones import Backbone, load_backbone
from ttame_core.configuration import TRAINED, Configuration
from ttame_core.errors import NotServedError, TTAMEError, nearest
from ttame_core.explainer import TTAME
from ttame_core.imagenette import obtain_imagenette
from ttame_core.losses import LossWeights
from ttame_core.progress import Progress, Tell
from ttame_core.training import Recipe
from ttame_core.trainings import Training, code_version
from ttame_core.warm_start import warm_backbone


class Edition(Configuration):
    """A configuration whose backbones, images, recipes and explainers can be loaded."""

    def entry(self, backbone: str) -> dict[str, Any]:
        """Settings of a backbone; any other ImageNet classifier runs on the edition's photographs."""
        own = self.config["backbones"]
        if backbone in own:
            return own[backbone]
        photographs = [k for k, v in self.config["data"].items() if v["kind"] != "digits"]
        of_imagenet = [n for n in zoo.known_names() if not n.startswith("demo_")]
        if photographs and backbone.removeprefix("timm/") in of_imagenet:
            return {"data": photographs[0]}
        valid = [*own, *(of_imagenet if photographs else [])]
        raise TTAMEError(
            f"backbone {backbone!r} is unknown to edition {self.name}; {nearest(backbone, valid)}"
        )

    def backbone(self, name: str, taps: Any = None, masking: str | None = None) -> Backbone:
        """Load a backbone as the edition has it, on the accelerator if there is one.

        Parameters
        ----------
        name : str
            One of the edition's, or any ImageNet classifier.
        taps, masking : optional
            In place of the edition's; see `load_backbone`.

        Returns
        -------
        Backbone
        """
        entry = self.entry(name)
        weights = entry.get("weights", "DEFAULT")
        retrained = self.home / "backbones" / f"{name}.safetensors"  # by 00_backbones
        if weights == "DEFAULT" and retrained.is_file():
            weights = retrained
        elif weights and Path(weights).suffix:
            weights = self.root / weights
        taps, masking = taps or entry.get("taps"), masking or entry.get("masking")
        given = entry.get("preprocessing")
        backbone = load_backbone(name, weights, taps, masking=masking, preprocessing=given)
        return backbone.to(torch.accelerator.current_accelerator(check_available=True) or "cpu")

    def images(self, backbone: Backbone, split: str) -> Any:
        """Open the images of a backbone, cropped and resized as its weights ask for.

        Imagenette is downloaded first, where the configuration says so and its folder is missing.

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

        Raises
        ------
        TTAMEError
            If they are missing and cannot be downloaded, or one cannot be read.
        """
        name = self.entry(backbone.name)["data"]
        spec = self.config["data"][name]
        size, given = spec.get(split), backbone.preprocessing
        if spec["kind"] == "digits":
            return wheels.DigitsInPhotographs(split, size, image_size=given.image_size)
        crop = (given.image_size, given.resize, given.interpolation)
        if spec["kind"] == "photographs":
            return wheels.WheelPhotographs(split, size, 0, *crop)
        if name == self.config.get("download"):
            tell = Progress("Imagenette (1.5 GB), per cent downloaded")
            obtain_imagenette(self.root / spec["root"], tell)
        return data.folder_split(spec, split, self.root, *crop)

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
        entry = self.entry(backbone)
        of_data = self.config["data"][entry["data"]].get("recipe", {})
        return {**self.config["train"], **of_data, **entry.get("train", {})}

    def training_files(self, backbone: str, method: str = "t-tame") -> tuple[Path, Path]:
        """Where a backbone's trained explainer and the history of its training lie."""
        variant = self.variant(backbone)
        suffix = "" if variant == "proposed" else f"-{variant}"
        suffix = suffix if method == "t-tame" else f"-{method}"
        folder = self.folder(backbone)
        return folder / f"explainer{suffix}.safetensors", folder / f"training{suffix}.csv"

    def tables(self, file: str, backbones: Sequence[str] | None = None) -> pd.DataFrame:
        """Read the tables of all backbones as one, written by notebooks that ran for each.

        Parameters
        ----------
        file : str
            Name of the Parquet or CSV file in a backbone's folder.
        backbones : sequence of str, optional
            All by default.

        Returns
        -------
        DataFrame
            The rows of all; a column says which backbone.

        Raises
        ------
        TTAMEError
            If a backbone has none yet.
        """
        files = {name: self.folder(name) / file for name in backbones or self.backbones}
        missing = [name for name, path in files.items() if not path.is_file()]
        if missing:
            raise TTAMEError(
                f"no {file} of {missing} yet; run the notebook that writes it for them first (02 to 08)"
            )
        read = pd.read_parquet if file.endswith(".parquet") else pd.read_csv
        return pd.concat([read(path) for path in files.values()])

    def training(
        self,
        backbone: Backbone,
        variant: str | None = None,
        *,
        method: str = "t-tame",
        recipe: Recipe | None = None,
        seed: int = 0,
        name: str | None = None,
    ) -> Training:
        """Describe a training of this edition, to be run or looked up.

        Parameters
        ----------
        backbone : Backbone
            As `backbone` loaded it.
        variant : str, optional
            Of the attention mechanism; the method's by default.
        method : str
            Key of `TRAINED`.
        recipe : Recipe, optional
            The method's by default.
        seed : int
            Added to the edition's.
        name : str, optional
            Of the files, in the backbone's folder of studies; by default those of the edition's own explainer.

        Returns
        -------
        Training

        Raises
        ------
        NotServedError
            If the method cannot serve the backbone.
        """
        apart = dict(TRAINED[method])
        of_tokens = apart.pop("tokens", {})
        if backbone.tokens:
            if of_tokens is None:
                raise NotServedError(f"{backbone.name} works on tokens, {method} is for CNNs")
            apart |= of_tokens
        for settings in (self.config, self.entry(backbone.name)):
            apart |= settings.get("trained", {}).get(method, {})
        of_method = apart.pop("variant", self.variant(backbone.name))
        if taps := apart.pop("taps", None):
            backbone = backbone.with_taps(taps)
        variant = variant or of_method
        loss = apart.pop("loss", {})
        own = self.recipe(backbone.name)
        recipe = recipe or replace(own, loss=replace(own.loss, **loss), **apart)
        if recipe.start == "warm":
            backbone = warm_backbone(backbone)
        spec = self.config["data"][self.entry(backbone.name)["data"]]
        about = {"seed": self.seed + seed, "data": spec, "code": code_version(), **asdict(recipe)}
        file, record = self.training_files(backbone.name, method)
        if name:
            file = self.folder(backbone.name) / "studies" / f"{name}.safetensors"
            record = file.with_suffix(".csv")
        return Training(
            backbone,
            variant,
            partial(self.images, backbone, "train"),
            recipe,
            self.seed + seed,
            file,
            record,
            json.dumps(about, sort_keys=True),
            self._training(backbone.name).get("workers", 0),
        )

    def explainer(
        self,
        backbone: Backbone,
        progress: Tell | None = None,
        method: str = "t-tame",
    ) -> TTAME:
        """Load a backbone's explainer; train it first where there is none of this recipe and classifier.

        Parameters
        ----------
        backbone : Backbone
            As `backbone` loaded it.
        progress : callable, optional
            Called with (steps done, steps in all) while training.
        method : str
            Key of `TRAINED`.

        Returns
        -------
        TTAME
            In evaluation mode.

        Raises
        ------
        NotServedError
            If the method cannot serve the backbone.
        """
        training = self.training(backbone, method=method)
        the_editions = self.home / training.file.relative_to(self.results)
        return training.explainer([the_editions], progress)
