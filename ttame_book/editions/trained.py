"""Explainers that are trained once and found again by what they were trained with."""

import json
import warnings
from collections.abc import Callable, Iterable, Sequence
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
from ttame_core.training import train, train_together


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

        The checkpoint stays until the notebook has finished: what fails later trains nothing twice.

        Returns
        -------
        tuple of TTAME and DataFrame
            The explainer, and its training history, a row a step.
        """
        if _holds(self.file, self.known_by()) and self.record.is_file():
            history = pd.DataFrame()
            with suppress(ValueError):
                history = pd.read_csv(self.record)
            if list(history.get("step", ())) == list(range(self.recipe.steps)):
                return TTAME.load(self.file, self.backbone), history
            warnings.warn(f"{self.record} is broken; trained anew", stacklevel=2)
        explainer = TTAME(self.backbone, self.variant, seed=self.seed)
        rows = train(
            explainer,
            self.images(),
            self.recipe,
            seed=self.seed,
            checkpoint=self.checkpoint,
            checkpoint_every=between_checkpoints(self.recipe.steps),
            workers=self.workers,
            progress=progress,
        )
        return explainer, self.save(explainer, rows)

    @property
    def checkpoint(self) -> Path:
        """The file from which a killed training goes on."""
        return self.file.with_suffix(".checkpoint")

    def save(self, explainer: TTAME, history: list[dict[str, float]]) -> pd.DataFrame:
        """Keep an explainer and the history of its training, which comes back as a table."""
        table = pd.DataFrame(history)
        with atomic_path(self.record) as path:
            table.to_csv(path, index=False)
        explainer.save(self.file, recipe=self.told)
        return table

    def explainer(self, others: Iterable[Path] = (), progress: Tell | None = None) -> TTAME:
        """Load the explainer, from its own or another file that may hold it, or else train it."""
        found = self.found(others)
        return TTAME.load(found, self.backbone) if found else self.run(progress)[0]

    def found(self, others: Iterable[Path] = ()) -> Path | None:
        """Return the file that holds the explainer, its own or another, if there is one."""
        wanted = self.known_by()
        return next((file for file in (self.file, *others) if _holds(file, wanted)), None)

    def known_by(self) -> dict[str, str]:
        """What the header of its explainer's file says."""
        return {"recipe": self.told} | TTAME(self.backbone, self.variant).identity()


def between_checkpoints(steps: int) -> int:
    """Choose how many steps lie between the checkpoints of a training of so many."""
    return min(max(steps // 20, 5), 500)


def run_together(
    trainings: Iterable[Training],
    others: Sequence[Path] = (),
    progress: Callable[[str], Tell] | None = None,
) -> None:
    """Train and save what no file holds yet, all of one seed and batch size on the same batches.

    Their classifier and their data are one. ``others`` are files that may hold some, and
    ``progress`` takes what is being done, and returns what is called with (steps done, steps in
    all).
    """
    missing: dict[str, Training] = {}
    for training in trainings:
        if not training.found(others):
            # one training may have several names: any of its files will do
            missing.setdefault(json.dumps(training.known_by(), sort_keys=True), training)
    groups: dict[tuple[int, int], list[Training]] = {}
    for training in missing.values():
        groups.setdefault((training.seed, training.recipe.batch_size), []).append(training)
    for (seed, _), group in groups.items():
        explainers = [TTAME(t.backbone, t.variant, seed=seed) for t in group]
        recipes = [t.recipe for t in group]
        histories = train_together(
            explainers,
            group[0].images(),
            recipes,
            seed=seed,
            checkpoints=[t.checkpoint for t in group],
            checkpoint_every=between_checkpoints(max(r.steps for r in recipes)),
            workers=group[0].workers,
            progress=progress(f"{len(group)} trainings together") if progress else None,
        )
        for training, explainer, history in zip(group, explainers, histories, strict=True):
            training.save(explainer, history)


def _holds(file: Path, wanted: dict[str, str]) -> bool:
    """Whether a file is an explainer whose header says what is wanted."""
    if not file.is_file():
        return False
    try:
        return TTAME.metadata(file).items() >= wanted.items()
    except TTAMEError as error:
        warnings.warn(f"{error}; trained anew", stacklevel=2)
        return False
