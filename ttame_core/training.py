"""Training the attention mechanism: optimiser, OneCycleLR, checkpoints that resume exactly."""

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ttame_core.classifiers.backbone import Backbone
from ttame_core.errors import SEEDS, TTAMEError, check_kind, check_seed, check_whole
from ttame_core.explainer import PATH, TTAME
from ttame_core.images.batches import (
    check_batch,
    check_data_set,
    digest_of,
    endless_batches,
    shared_batch_norms,
)
from ttame_core.progress import Tell
from ttame_core.recipes import Recipe
from ttame_core.resuming import read_checkpoint, save_checkpoint
from ttame_core.steps import (
    collect,
    diverged,
    initialise,
    largest_batch,
    optimizer_of,
    training_step,
    warn_of_collapse,
)

ROWS_AT_ONCE = {"cpu": 1}
"""How many steps' losses are looked at together, 50 by default: an accelerator is waited for."""


def train(
    explainer: TTAME,
    images: Any,
    recipe: Recipe | None = None,
    *,
    seed: int = 0,
    checkpoint: str | Path | None = None,
    checkpoint_every: int = 100,
    fabric: Any = None,
    workers: int = 0,
    progress: Tell | None = None,
) -> list[dict[str, float]]:
    """Train an explainer's attention mechanism in place; its backbone is not touched.

    Interrupted and called again with the same arguments, it goes on from the checkpoint and
    arrives at the same weights as an uninterrupted run. Several processes share each batch, and
    arrive at one process's losses and weights, to rounding; a classifier in training mode, whose
    dropout and batch norm know their own process alone, is the exception.

    Parameters
    ----------
    explainer : TTAME
        The explainer to be trained.
    images : Dataset
        Items with ``"image"`` ``(3, H, W)`` in [0, 1], or pairs that start with it, of one size;
        ``set_epoch(n)`` is called where it exists. Labels are not used: the target is the model
        truth.
    recipe : Recipe, optional
        The paper's by default.
    seed : int
        Seed of the order of the images and the draw of other classes, or of masks.
    checkpoint : str or Path, optional
        File to go on from, rewritten every ``checkpoint_every`` steps and at the end. Remove it
        once the trained explainer is saved. Of several processes the first reads and writes it.
    fabric : Fabric, optional
        Lightning's, for device, precision, several processes; one automatic device by default.
    workers : int
        Processes that load images, for each that trains.
    progress : callable, optional
        Called with (steps done, steps in all), by the first process.

    Returns
    -------
    list of dict
        A row a step: step, lr, total, ce, area, variation, and the signs of a collapse: mean and
        spatial spread of E_y, mean of the other maps, range of the logits. Of amortised RISE the
        variance of what it predicts stands in the place of the paper's terms and the other maps.

    Raises
    ------
    TTAMEError
        If an argument is not of its kind, there are fewer images than a batch, some are not in
        [0, 1] or of one size, processes cannot share a batch evenly, or loss or weights are not
        finite. Maps that collapse are warned of.
    """
    check_kind("recipe", recipe, (Recipe, type(None)), "a tt.Recipe(steps=..., max_lr=...)")
    recipes, checkpoints = [recipe or Recipe()], [checkpoint]
    how = seed, checkpoint_every, fabric, workers, progress
    return _train([explainer], images, recipes, checkpoints, *how)[0]


def train_together(
    explainers: Sequence[TTAME],
    images: Any,
    recipes: Sequence[Recipe],
    *,
    seed: int = 0,
    checkpoints: Sequence[str | Path] | None = None,
    checkpoint_every: int = 100,
    fabric: Any = None,
    workers: int = 0,
    progress: Tell | None = None,
) -> list[list[dict[str, float]]]:
    """Train several explainers of one classifier on the same batches, each as `train` would alone.

    The images of a batch are read, and the classifier is asked about them, once for all: of three
    forward passes a step, two remain. Recipes may differ in all but the batch size, and backbones
    in taps and masking order.

    Parameters
    ----------
    explainers : sequence of TTAME
        The explainers to be trained, in place.
    images, seed, checkpoint_every, fabric, workers, progress
        As for `train`; progress tells of the longest training.
    recipes : sequence of Recipe
        One an explainer.
    checkpoints : sequence of str or Path, optional
        One an explainer; they need not be equally far.

    Returns
    -------
    list of list of dict
        Each explainer's history.

    Raises
    ------
    TTAMEError
        As `train`, and if classifiers or batch sizes differ, or numbers of explainers, recipes and
        checkpoints. Where one training diverges, the others go on from their checkpoints when they
        are called again.
    """
    files = [None] * len(explainers) if checkpoints is None else checkpoints
    counts = len(explainers), len(recipes), len(files)
    if len({*counts}) > 1 or not counts[0]:
        told = "there are {} explainers, {} recipes and {} checkpoints".format(*counts)
        raise TTAMEError(f"{told}; expected as many of each, at least one")
    how = seed, checkpoint_every, fabric, workers, progress
    return _train(explainers, images, recipes, files, *how)


def _train(
    explainers: Sequence[TTAME],
    images: Any,
    recipes: Sequence[Recipe],
    checkpoints: Sequence[str | Path | None],
    seed: int,
    checkpoint_every: int,
    fabric: Any,
    workers: int,
    progress: Tell | None,
) -> list[list[dict[str, float]]]:
    """Check what is given, then train; see `train_together`."""
    for explainer, recipe, checkpoint in zip(explainers, recipes, checkpoints, strict=True):
        check_kind("explainer", explainer, TTAME, "a tt.TTAME(backbone)")
        check_kind("recipe", recipe, Recipe, "a tt.Recipe(steps=..., max_lr=...)")
        check_kind("checkpoint", checkpoint, (*PATH, type(None)), "the name of a file, or None")
    check_seed(seed)
    check_whole("checkpoint_every", checkpoint_every, 1)
    check_whole("workers", workers)
    check_data_set(images)
    if fabric is None:
        from lightning_fabric import Fabric  # takes a second to import

        fabric = Fabric(accelerator="auto", devices=1)
    given = zip(explainers, recipes, checkpoints, strict=True)
    sizes = [_batch_size(*one, images, fabric) for one in given]
    batch_size, seed = min(sizes), int(seed)  # what fits each fits all, a step at a time
    recipes = [replace(r, batch_size=batch_size) if r.batch_size == "auto" else r for r in recipes]
    check_batch(len(images), {recipe.batch_size for recipe in recipes}, fabric.world_size)
    first = explainers[0].backbone
    strangers = [e.backbone.name for e in explainers if not first.same_classifier(e.backbone)]
    if strangers:
        raise TTAMEError(f"{first.name} and {strangers[0]} are two classifiers; train them apart")
    data = digest_of(images) if any(checkpoint is not None for checkpoint in checkpoints) else ""
    with torch.inference_mode(False):  # which turns gradients on, whatever the caller turned off
        about = {"seed": seed, "images": len(images), "data": data}
        each = zip(explainers, recipes, checkpoints, strict=True)
        trainings = [_Training(*one, images, about, fabric) for one in each]
        for training in trainings:
            training.resume()
        reader = _reader([training.explainer.backbone for training in trainings])
        start = min(len(training.history) for training in trainings)
        steps = max(recipe.steps for recipe in recipes)
        batches = endless_batches(fabric, images, batch_size, seed, start, workers)
        for step, batch in zip(range(start, steps), batches, strict=False):
            at_work = [t for t in trainings if t.done == step < t.recipe.steps]
            seen = {}
            if len(at_work) > 1:
                with torch.no_grad():
                    logits, features = reader.features(batch)
                seen = dict(zip(reader.taps, features, strict=True))
            for training in at_work:
                own = [seen[tap] for tap in training.backbone.taps] if seen else []
                due = step + 1 == training.recipe.steps or (step + 1) % checkpoint_every == 0
                training.step(batch, (logits, own) if seen else None, due)
            if progress and fabric.is_global_zero:
                progress(step + 1, steps)
    for training in trainings:
        with training.explainer.backbone.held():
            training.explainer.eval()
        if fabric.is_global_zero:
            warn_of_collapse(training.history)
    return [training.history for training in trainings]


def _batch_size(explainer: TTAME, recipe: Recipe, checkpoint: Any, images: Any, fabric: Any) -> int:
    """Return a recipe's batch size, or in the place of "auto" a checkpoint's, or what fits."""
    if recipe.batch_size != "auto":
        return int(recipe.batch_size)
    kept = read_checkpoint(fabric, checkpoint) if checkpoint is not None else None
    if kept is not None:
        return kept["recipe"]["batch_size"]
    if fabric.device.type == "cpu":
        raise TTAMEError('batch_size "auto" is what a GPU holds; on a CPU give a number, say 32')
    explainer.to(fabric.device)
    with torch.inference_mode(False), torch.enable_grad(), explainer.backbone.held():
        return largest_batch(explainer, images, recipe, fabric)


def _reader(backbones: Sequence[Backbone]) -> Backbone:
    """Make of several backbones of one classifier one that reads all their taps."""
    first = backbones[0]
    taps = [tap for backbone in backbones for tap in backbone.taps]
    return first if {*taps} == {*first.taps} else first.with_taps([*dict.fromkeys(taps)])


class _Training:
    """One explainer's training: its optimiser, its schedule, its checkpoint, its history."""

    def __init__(
        self,
        explainer: TTAME,
        recipe: Recipe,
        checkpoint: str | Path | None,
        images: Any,
        about: dict[str, Any],
        fabric: Any,
    ):
        self.explainer, self.recipe, self.fabric = explainer, recipe, fabric
        self.checkpoint, self.seed = checkpoint, about["seed"]
        self.backbone = explainer.backbone
        with self.backbone.held():  # others may be explaining with it
            explainer.to(fabric.device)
            initialise(explainer, images, recipe)
            optimizer = optimizer_of(explainer.attention, recipe)
            self.scheduler = torch.optim.lr_scheduler.OneCycleLR(
                optimizer, max_lr=recipe.max_lr, total_steps=recipe.steps + 1, cycle_momentum=False
            )
            self.attention, self.optimizer = fabric.setup(explainer.attention, optimizer)
            if recipe.backbone_mode == "train":
                # its batch norm's statistics would drift, and stay so
                self.backbone = deepcopy(self.backbone)
                self.backbone.frozen = False
                self.backbone.model.train()
            self.attention.train()
        self.history: list[dict[str, float]] = []
        self.waiting: list[dict[str, Any]] = []
        self.remedy = f"try a smaller max_lr than {recipe.max_lr:g}"
        self.kept = ""
        self.about = {
            **asdict(recipe),
            **about,
            "explainer": explainer.seed,
            **explainer.identity(),
        }

    @property
    def done(self) -> int:
        """How many steps are done."""
        return len(self.history) + len(self.waiting)

    def step(self, batch: Tensor, seen: tuple[Tensor, list[Tensor]] | None, due: bool) -> None:
        """Do a step, with what the frozen classifier says of the batch where that is known.

        Where it is due, the weights are looked at and a checkpoint is written.
        """
        # of the step alone, so that a resumed training draws what an uninterrupted one would
        draw = torch.Generator().manual_seed((self.seed * self.recipe.steps + self.done) % SEEDS)
        how = self.recipe, draw, self.fabric, seen if self.backbone.frozen else None
        # whoever explains meanwhile changes the mechanism's mode
        held = self.explainer.backbone.held()
        with held, shared_batch_norms(self.fabric, self.explainer.attention):
            terms = training_step(self.backbone, self.attention, batch, *how)
            row = {"step": self.done, "lr": self.scheduler.get_last_lr()[0]}
            self.waiting.append(row | {name: term.detach() for name, term in terms.items()})
            if due or len(self.waiting) >= ROWS_AT_ONCE.get(self.fabric.device.type, 50):
                collect(self.fabric, self.waiting, self.history, self.remedy + self.kept)
            self.optimizer.zero_grad()
            self.fabric.backward(terms["total"])
            self.optimizer.step()
            self.scheduler.step()
        if not due:
            return
        if not all(value.isfinite().all() for value in self.attention.state_dict().values()):
            raise diverged("weights are not finite", self.history[-1], self.remedy + self.kept)
        if self.checkpoint is not None:
            save_checkpoint(self.fabric, self.checkpoint, self.state)
            self.keeps()

    @property
    def state(self) -> dict[str, Any]:
        """What a checkpoint holds."""
        parts = {"attention": self.attention, "optimizer": self.optimizer}
        return parts | {"scheduler": self.scheduler, "history": self.history, "recipe": self.about}

    def keeps(self) -> None:
        """Note, for an error to come, how far the checkpoint is."""
        self.kept = (
            f"; the last good state is that after step {self.done - 1}, in {self.checkpoint}"
        )

    def resume(self) -> None:
        """Take over a checkpoint's state, where it is of the same training."""
        if self.checkpoint is None:
            return
        values = read_checkpoint(self.fabric, self.checkpoint)
        if values is None or values["recipe"] != self.about:
            return  # of another training: train anew
        for key in ("attention", "optimizer", "scheduler"):
            self.state[key].load_state_dict(values[key])
        self.history.extend(values["history"])
        self.keeps()
