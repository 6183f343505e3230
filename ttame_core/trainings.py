"""Explainers that are trained once and found again by what they were trained with."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import pandas as pd
from torch.utils.data import Dataset

from ttame_core.backbones import Backbone
from ttame_core.explainer import TTAME
from ttame_core.files import atomic_path, version_of
from ttame_core.progress import Tell
from ttame_core.training import Recipe, train

SOURCES = [
    "attention",
    "backbones",
    "data",
    "layers",
    "losses",
    "masking",
    "training",
    "warm_start",
]
"""Modules whose change makes an explainer another one."""


@lru_cache
def code_version() -> str:
    """Hash the sources that a training's result depends on."""
    return version_of(Path(__file__).parent / f"{name}.py" for name in SOURCES)


@dataclass(frozen=True)
class Training:
    """One training: what is trained, on what, how, and where it is kept.

    Attributes
    ----------
    backbone : Backbone
        The classifier explained.
    variant : str
        Of the attention mechanism.
    images : callable
        Opens the training images.
    recipe : Recipe
        How it is trained.
    seed : int
        Of initial weights, order and draws.
    file, record : Path
        Where the explainer and the history of its training are kept.
    about : str
        Recipe, seed and data as text, by which the explainer is known again.
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
    about: str
    workers: int = 0

    def run(self, progress: Tell | None = None) -> tuple[TTAME, pd.DataFrame]:
        """Train and save, going on from where a killed run was.

        The checkpoint stays until the notebook has finished: a run that fails later trains nothing twice.

        Returns
        -------
        tuple of TTAME and DataFrame
            The explainer, and its training history, a row a step.
        """
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
        explainer.save(self.file, recipe=self.about)
        return explainer, history

    def explainer(self, others: Iterable[Path] = (), progress: Tell | None = None) -> TTAME:
        """Load the explainer, from its own or another file that may hold it; train it where none does."""
        wanted = {"recipe": self.about} | TTAME(self.backbone, self.variant).identity()
        for file in (self.file, *others):
            if file.is_file() and TTAME.metadata(file).items() >= wanted.items():
                return TTAME.load(file, self.backbone)
        return self.run(progress)[0]
