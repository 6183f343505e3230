"""Editions: one configuration file each, turned into backbones, images, recipes and explainers."""

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from ttame_book.editions.configuration import SHIPPED, Configuration
from ttame_book.editions.keys import training_key
from ttame_book.editions.loadable import check_loadable
from ttame_book.editions.splits import open_images
from ttame_book.editions.trained import Training
from ttame_core.authors import OWN, Released, read_released
from ttame_core.classifiers.backbone import Backbone
from ttame_core.classifiers.heads import head_of, warm_backbone
from ttame_core.classifiers.loading import known_names, load_backbone
from ttame_core.errors import NotServedError, TTAMEError, check_known
from ttame_core.explainer import TTAME
from ttame_core.progress import Tell
from ttame_core.recipes import TRAINED, VARIANTS, LossWeights, Recipe


class Edition(Configuration):
    """A configuration whose backbones, images, recipes and explainers can be loaded."""

    def check(self, source: str) -> None:
        """Check what needs torch: classifiers, preprocessing, options; see `check_loadable`."""
        check_loadable(self.config, source)

    def entry(self, backbone: str) -> dict[str, Any]:
        """Settings of a backbone; other ImageNet classifiers run on the edition's photographs."""
        own = self.config["backbones"]
        if backbone in own:
            return own[backbone]
        photographs = [k for k, v in self.config["data"].items() if v["kind"] != "digits"]
        valid = [*own, *(of_imagenet() if photographs else [])]
        if backbone.removeprefix("timm/") not in valid:
            check_known(f"edition {self.name}: backbone", backbone, valid)
        first = next(iter(own.values()))  # a further classifier's explainers are of its edition
        return {"data": photographs[0]} | {k: first[k] for k in {"explainers"} & first.keys()}

    def backbone(self, name: str, taps: Any = None, masking: str | None = None) -> Backbone:
        """Load a backbone as the edition has it, on the accelerator if there is one.

        One of the edition's, or any ImageNet classifier; ``taps`` and ``masking`` take the place of
        the edition's, see `load_backbone`.
        """
        entry = self.entry(name)
        for module in self.classifier_code(name):
            import_module(module)  # the demo's registers its classifiers
        released = "released" in entry
        weights = entry.get("weights", OWN if released else "DEFAULT")
        retrained = self.home / "backbones" / f"{name}.safetensors"  # by 02_backbones
        if weights == "DEFAULT" and retrained.is_file():
            weights = retrained
        elif weights and Path(weights).suffix:
            weights = self.root / weights
        load = self.released(name).backbone if released else partial(load_backbone, name)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)  # random weights are the same in every notebook
            backbone = load(
                weights=weights,
                taps=taps or entry.get("taps"),
                masking=masking or entry.get("masking"),
                preprocessing=entry.get("preprocessing"),
                precision=self.config.get("precision", "auto"),
            )
        backbone.to(torch.accelerator.current_accelerator(check_available=True) or "cpu")
        self.precisions[name] = backbone.precision
        return backbone

    def released(self, name: str) -> Released:
        """Read the released checkpoint of a backbone; a TTAMEError is raised if it is another's."""
        found = read_released(self.root / self.entry(name)["released"])
        if found.classifier != name:
            raise TTAMEError(
                f"backbones.{name}.released: {found.path} explains {found.classifier}; expected the file of {name}"
            )
        return found

    def images(self, backbone: Backbone, split: str) -> Any:
        """Open a split of a backbone's images, cropped and resized as its weights ask for.

        Imagenette is downloaded first, where the configuration says so and its folder is missing.
        Items are as `images.folders` describes them. A TTAMEError is raised if images are missing
        and cannot be downloaded, or one cannot be read.
        """
        name = self.entry(backbone.name)["data"]
        return open_images(self.config, name, split, self.root, backbone.preprocessing)

    def recipe(self, backbone: str) -> Recipe:
        """Return how a backbone's attention mechanism is trained."""
        settings = self._training(backbone)
        for other in ("variant", "workers"):
            settings.pop(other, None)
        loss = LossWeights(**settings.pop("loss", {}))
        return Recipe(**settings, loss=loss)

    def variant(self, backbone: str) -> str:
        """Return which variant of the attention mechanism is trained, or that it is a released one.

        Of a released one it is said whose classifier it explains: the file's, or other weights.
        """
        if "released" in (entry := self.entry(backbone)):
            return f"released, classifier: {entry.get('weights', OWN)}"
        return self._training(backbone).get("variant", "proposed")

    def _training(self, backbone: str) -> dict[str, Any]:
        entry = self.entry(backbone)
        of_data = self.config["data"][entry["data"]].get("recipe", {})
        return {**self.config.get("train", {}), **of_data, **entry.get("train", {})}

    def training_files(self, backbone: str, method: str = "t-tame") -> tuple[Path, Path]:
        """Where a backbone's trained explainer and the history of its training lie."""
        variant = self.variant(backbone)
        suffix = "" if variant == "proposed" else f"-{variant}"
        suffix = suffix if method == "t-tame" else f"-{method}"
        folder = self.folder(backbone)
        return folder / f"explainer{suffix}.safetensors", folder / f"training{suffix}.csv"

    def tables(self, file: str, backbones: Sequence[str] | None = None) -> pd.DataFrame:
        """Read the tables of all backbones, or of some, as one.

        ``file`` is the name of the Parquet or CSV file that a notebook wrote into each one's
        folder; a TTAMEError is raised if a backbone has none yet.
        """
        names = self.backbones if backbones is None else backbones
        files = {name: self.folder(name) / file for name in names}
        missing = [name for name, path in files.items() if not path.is_file()]
        if missing:
            raise TTAMEError(
                f"no {file} of {missing} yet; run the notebook that writes it for them first"
            )
        read = pd.read_parquet if file.endswith(".parquet") else pd.read_csv
        return pd.concat([read_result(path, read) for path in files.values()])

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
            Variant of the attention mechanism in place of the method's.
        method : str
            Key of `TRAINED`.
        recipe : Recipe, optional
            Recipe in place of the method's.
        seed : int
            Number added to the edition's seed.
        name : str, optional
            Study and name of the files in the backbone's folder of studies; by default those of the
            edition's own explainer.

        Raises
        ------
        NotServedError
            If the method cannot serve the backbone, or its explainer is a released one.
        """
        trained, name_of = TRAINED[method], backbone.name
        if "released" in self.entry(name_of):
            raise NotServedError(f"{name_of} has a released explainer; none is trained here")
        if backbone.tokens and trained.on_tokens is None:
            raise NotServedError(f"{name_of} works on tokens, {method} is for CNNs")
        apart = trained.settings | ((trained.on_tokens or {}) if backbone.tokens else {})
        for settings in (self.config, self.entry(name_of)):
            given = settings.get("trained", {}).get(method, {})
            apart |= given | {"loss": apart.get("loss", {}) | given.get("loss", {})}
        of_method = apart.pop("variant", self.variant(name_of))
        if taps := apart.pop("taps", None):
            backbone = backbone.with_taps(taps)
        loss = apart.pop("loss", {})
        own = self.recipe(name_of)
        recipe = recipe or replace(own, loss=replace(own.loss, **loss), **apart)
        if recipe.start == "warm":
            backbone = warm_backbone(backbone)
        if VARIANTS[variant or of_method].get("tied"):
            head_of(backbone)  # which says so where there is none
        file, record = self.training_files(name_of, method)
        if name:
            file = self.folder(name_of) / "studies" / f"{name}.safetensors"
            record = file.with_suffix(".csv")
        about = {
            "seed": self.seed + seed,
            "data": self.config["data"][self.entry(name_of)["data"]],
            "code": training_key(self, name_of),
            # as it is asked for: an explainer that a GPU trained serves on a CPU
            **{key: self.config[key] for key in ("precision",) if key in self.config},
            **asdict(recipe),
        }
        return Training(
            backbone,
            variant or of_method,
            partial(self.images, backbone, "train"),
            recipe,
            self.seed + seed,
            file,
            record,
            about,
            self._training(name_of).get("workers", 0),
        )

    def explainer(
        self, backbone: Backbone, progress: Tell | None = None, method: str = "t-tame"
    ) -> TTAME:
        """Load a backbone's explainer, a released one where the edition names its file.

        Where there is none of this recipe, it is trained first.

        ``progress`` is called with (steps done, steps in all) while training. A NotServedError is
        raised if the method, a key of `TRAINED`, cannot serve the backbone.
        """
        entry = self.entry(backbone.name)
        if "explainers" in entry:
            return self.trainer(backbone.name).explainer(backbone, progress, method)
        if "released" in entry and method == "t-tame":
            return self.released(backbone.name).explainer(backbone, entry.get("weights", OWN))
        training = self.training(backbone, method=method)
        the_editions = self.home / training.file.relative_to(self.results)
        return training.explainer([the_editions], progress)

    def rivals_to_train(self, backbone: Backbone) -> list[str]:
        """Name the compared methods that are trained beside T-TAME and can serve a backbone."""
        rivals = []
        for name in self.config["evaluate"]["methods"]:
            if name in TRAINED and name != "t-tame":
                with suppress(NotServedError):
                    self.training(backbone, method=name)
                    rivals.append(name)
        return rivals


def read_result(file: Path, read: Callable[[Path], Any]) -> Any:
    """Read what a notebook wrote; a TTAMEError names the file if it is broken."""
    try:
        return read(file)
    except Exception as error:  # of many types: damaged bytes raise what they come to
        raise TTAMEError(
            f"{file} is broken ({error}); remove it, and run the notebook that wrote it again"
        ) from error


def of_imagenet() -> list[str]:
    """Name the classifiers that know ImageNet's classes: all but those of the demo."""
    return [name for name in known_names() if not (SHIPPED / f"{name}.safetensors").is_file()]
