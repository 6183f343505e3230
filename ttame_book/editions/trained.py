"""Explainers that are trained once and found again by what they were trained with."""

import json
import warnings
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from torch.utils.data import Dataset

from ttame_core.classifiers.backbone import Backbone
from ttame_core.errors import TTAMEError
from ttame_core.explainer import TTAME
from ttame_core.files import atomic_path
from ttame_core.progress import Tell
from ttame_core.recipes import Recipe
from ttame_core.training import train


@dataclass(frozen=True)
class Training:
    """One training: what is trained, on what, how, and where it is kept.

    Attributes
    ----------
    backbone : Backbone
        The classifier explained.
    variant : str
        Variant of the attention mechanism.
    images : callable
        Opens the training images.
    recipe : Recipe
        How it is trained.
    seed : int
        Seed of initial weights, order and draws.
    file, record : Path
        Where the explainer and the history of its training are kept.
    about : dict
        Recipe, seed, data and the key of code and images, by which the explainer is known again.
    workers : int
        Processes that load images.
    """

    backbone: Backbone
    variant: str
    images: Callable[[], Dataset]
    recipe: Recipe
    seed: int
    file: Path
    record: Path
    about: dict
    workers: int = 0

    @property
    def told(self) -> str:
        """What it is known by, as text."""
        return json.dumps(self.about, sort_keys=True)

    def run(self, progress: Tell | None = None) -> tuple[TTAME, pd.DataFrame]:
        """Train and save, unless that was done; a killed training goes on from its checkpoint.

        The checkpoint stays until the notebook has finished: a run that fails later trains nothing
        twice.

        Returns
        -------
        tuple of TTAME and DataFrame
            The explainer, and its training history, a row a step.
        """
        if self._holds_it(self.file) and self.record.is_file():
            history = pd.DataFrame()
            with suppress(ValueError):
                history = pd.read_csv(self.record)
            if list(history.get("step", ())) == list(range(self.recipe.steps)):
                return TTAME.load(self.file, self.backbone), history
            warnings.warn(f"{self.record} is broken; trained anew", stacklevel=2)
        explainer = TTAME(self.backbone, self.variant, seed=self.seed)
        history = pd.DataFrame(
            train(
                explainer,
                self.images(),
                self.recipe,
                seed=self.seed,
                checkpoint=self.file.with_suffix(".checkpoint"),
                checkpoint_every=min(max(self.recipe.steps // 20, 5), 500),
                workers=self.workers,
                progress=progress,
            )
        )
        with atomic_path(self.record) as path:
            history.to_csv(path, index=False)
        explainer.save(self.file, recipe=self.told)
        return explainer, history

    def explainer(self, others: Iterable[Path] = (), progress: Tell | None = None) -> TTAME:
        """Load the explainer, from its own or another file that may hold it, or else train it."""
        for file in (self.file, *others):
            if self._holds_it(file):
                return TTAME.load(file, self.backbone)
        return self.run(progress)[0]

    def _holds_it(self, file: Path) -> bool:
        """Whether a file is an explainer of this very training."""
        if not file.is_file():
            return False
        wanted = {"recipe": self.told} | TTAME(self.backbone, self.variant).identity()
        try:
            return TTAME.metadata(file).items() >= wanted.items()
        except TTAMEError as error:
            warnings.warn(f"{error}; trained anew", stacklevel=2)
            return False
