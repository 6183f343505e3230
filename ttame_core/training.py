"""Training the attention mechanism: SGD, OneCycleLR, checkpoints that resume exactly."""

import math
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from lightning.fabric import Fabric
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, Subset

from ttame_core.backbones import Backbone
from ttame_core.data import spread, stack
from ttame_core.errors import TTAMEError, nearest
from ttame_core.explainer import TTAME
from ttame_core.files import atomic_path
from ttame_core.losses import LossWeights, in_batch_other_classes, sample_other_classes, ttame_loss
from ttame_core.masking import minmax
from ttame_core.progress import Tell
from ttame_core.warm_start import STARTS, warm_start

OTHER_CLASSES = ("uniform", "in-batch")
MASKS = ("sigmoid", "min-max")


@dataclass(frozen=True)
class Recipe:
    """How to train (Sec. IV-C); the defaults are the paper's, or the released code's where it is silent."""

    steps: int = 320_000  # optimiser steps; 8 epochs of ImageNet-1k by 32
    batch_size: int = 32
    max_lr: float = 1e-3  # peak of OneCycleLR
    momentum: float = 0.9  # Nesterov
    weight_decay: float = 5e-4  # on weights only, not on biases and batch norm
    other_classes: str = "uniform"  # or "in-batch", as released
    backbone_mode: str = (
        "eval"  # or "train", as released: dropout on, batch norm drifting, in a copy
    )
    start: str = "random"  # or "warm", beyond the paper: the classifier's own class activation map
    mask: str = (
        "sigmoid"  # or "min-max", beyond the paper: E_y scaled to [0, 1], as it is evaluated
    )
    loss: LossWeights = field(default_factory=LossWeights)

    def __post_init__(self) -> None:
        if self.other_classes not in OTHER_CLASSES:
            raise TTAMEError(
                f"other_classes {self.other_classes!r} is unknown; {nearest(self.other_classes, OTHER_CLASSES)}"
            )
        if self.start not in STARTS:
            raise TTAMEError(f"start {self.start!r} is unknown; {nearest(self.start, STARTS)}")
        if self.mask not in MASKS:
            raise TTAMEError(f"mask {self.mask!r} is unknown; {nearest(self.mask, MASKS)}")
        if self.backbone_mode not in ("eval", "train"):
            raise TTAMEError(f"backbone_mode is {self.backbone_mode!r}; expected 'eval' or 'train'")
        if self.steps < 1 or self.batch_size < 2 or self.max_lr <= 0:
            raise TTAMEError(
                f"steps {self.steps}, batch_size {self.batch_size}, max_lr {self.max_lr}; expected at least "
                "1 step, 2 images a batch (batch norm needs them) and a positive rate"
            )


def train(
    explainer: TTAME,
    images: Dataset,
    recipe: Recipe | None = None,
    *,
    seed: int = 0,
    checkpoint: str | Path | None = None,
    checkpoint_every: int = 100,
    fabric: Fabric | None = None,
    workers: int = 0,
    progress: Tell | None = None,
) -> list[dict[str, float]]:
    """Train an explainer's attention mechanism in place; its backbone is not touched.

    Interrupted and called again with the same arguments, it goes on from the checkpoint and
    arrives at the same weights as an uninterrupted run.

    Parameters
    ----------
    explainer : TTAME
        Trained in place.
    images : Dataset
        Items with ``"image"`` ``(3, H, W)`` in [0, 1]; ``set_epoch(n)`` is called where it exists.
        Labels are not used: the target is the model truth.
    recipe : Recipe, optional
        The paper's by default.
    seed : int
        Of the order of the images and the draw of other classes.
    checkpoint : str or Path, optional
        File to go on from, rewritten every ``checkpoint_every`` steps. Remove it once the trained
        explainer is saved.
    checkpoint_every : int
        Steps between checkpoints; there is one at the end too.
    fabric : Fabric, optional
        Lightning Fabric: device, precision, several processes; by default one automatic device.
    workers : int
        Processes that load images.
    progress : callable, optional
        Called with (steps done, steps in all).

    Returns
    -------
    list of dict
        A row a step: step, lr, total, ce, area, variation, and the signs of a collapse: mean and
        spatial spread of E_y, mean of the other maps, range of the logits.

    Raises
    ------
    TTAMEError
        If there are fewer images than a batch, or the loss is no longer finite.
    """
    recipe = recipe or Recipe()
    if len(images) < recipe.batch_size:  # type: ignore[arg-type]
        raise TTAMEError(
            f"{len(images)} training images do not fill a batch of {recipe.batch_size}; "  # type: ignore[arg-type]
            "give more images or a smaller batch_size"
        )
    fabric = fabric or Fabric(accelerator="auto", devices=1)
    explainer.to(fabric.device)
    initialise(explainer, images, recipe)
    optimizer = _optimizer(explainer.attention, recipe)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=recipe.max_lr, total_steps=recipe.steps + 1, cycle_momentum=False
    )
    attention, optimizer = fabric.setup(explainer.attention, optimizer)
    state: dict[str, Any] = {
        "attention": attention,
        "optimizer": optimizer,
        "scheduler": scheduler,
        "history": [],
        "recipe": {**asdict(recipe), "seed": seed, "images": len(images)} | explainer.identity(),  # type: ignore[arg-type]
    }
    _resume(fabric, checkpoint, state)
    history = state["history"]
    backbone = explainer.backbone
    if recipe.backbone_mode == "train":
        backbone = deepcopy(backbone)
        backbone.model.train()
    attention.train()
    batches = _batches(fabric, images, recipe, seed, len(history), workers)
    for step, batch in zip(range(len(history), recipe.steps), batches, strict=False):
        lr = scheduler.get_last_lr()[0]
        draw = torch.Generator().manual_seed(
            (seed * recipe.steps + step) * fabric.world_size + fabric.global_rank
        )
        terms = training_step(backbone, attention, batch, recipe, draw)
        row = {k: float(v.detach()) for k, v in terms.items()}
        if not math.isfinite(row["total"]):
            raise TTAMEError(
                f"the loss is {row['total']} at step {step}; try a smaller max_lr than {recipe.max_lr}"
            )
        optimizer.zero_grad()
        fabric.backward(terms["total"])
        optimizer.step()
        scheduler.step()
        history.append({"step": step, "lr": lr} | row)
        due = (step + 1) % checkpoint_every == 0 or step + 1 == recipe.steps
        if checkpoint and due:
            save_checkpoint(fabric, checkpoint, state)
        if progress:
            progress(step + 1, recipe.steps)
    explainer.eval()
    return history


@torch.no_grad()
def initialise(explainer: TTAME, images: Dataset, recipe: Recipe) -> None:
    """Prepare an attention mechanism for its first step: its feature maps' scales, a warm start.

    Parameters
    ----------
    explainer : TTAME
        Changed in place where its recipe or its variant asks for it.
    images : Dataset
        Training images; a batch of them, spread over all, gives the scales, and the spread of a warm start's maps.
    recipe : Recipe
        Start and batch size.
    """
    backbone, seen = explainer.backbone, None
    if explainer.attention.scales is not None:
        batch = stack(spread(images, recipe.batch_size)).to(backbone.mean.device)
        seen = backbone.features(batch)
        explainer.attention.measure_scales(seen[1])
    if recipe.start == "warm":
        warm_start(explainer, seen)


def training_step(
    backbone: Backbone,
    attention: nn.Module,
    images: Tensor,
    recipe: Recipe,
    generator: torch.Generator,
) -> dict[str, Tensor]:
    """Compute loss and diagnostics of one batch (Eq. 11-17).

    Parameters
    ----------
    backbone : Backbone
        Frozen.
    attention : nn.Module
        Its explainer's attention mechanism, possibly wrapped for several processes.
    images : Tensor
        ``(B, 3, H, W)`` in [0, 1].
    recipe : Recipe
        Loss weights and the kind of other classes.
    generator : torch.Generator
        Of the draw of other classes.

    Returns
    -------
    dict of str to Tensor
        Scalars; ``total`` carries the gradient.
    """
    with torch.no_grad():
        logits, features = backbone.features(images)
        truth = logits.argmax(1)  # (B,)
    if recipe.other_classes == "uniform":
        others = sample_other_classes(truth, backbone.num_classes, len(images) - 1, generator)
    else:
        others = in_batch_other_classes(truth)
    map_logits = attention(features, torch.cat([truth[:, None], others], 1))  # (B, B, h_e, w_e)
    sigmoids = maps = map_logits.sigmoid()
    if recipe.mask == "min-max":
        maps = torch.cat([minmax(maps[:, :1]), maps[:, 1:]], 1)
    terms = ttame_loss(backbone(images, maps[:, 0]), truth, maps, recipe.loss)
    return {
        "total": terms.total,
        "ce": terms.ce,
        "area": terms.area,
        "variation": terms.variation,
        "truth_mean": sigmoids[:, 0].mean(),
        "truth_spread": sigmoids[:, 0].flatten(1).std(1).mean(),
        "others_mean": sigmoids[:, 1:].mean(),
        "logits_min": map_logits.min(),
        "logits_max": map_logits.max(),
    }


def _optimizer(attention: nn.Module, recipe: Recipe) -> torch.optim.SGD:
    """SGD with weight decay on the convolutions' weights alone."""
    decayed = [p for p in attention.parameters() if p.ndim > 1]
    plain = [p for p in attention.parameters() if p.ndim <= 1]
    groups = [
        {"params": decayed, "weight_decay": recipe.weight_decay},
        {"params": plain, "weight_decay": 0.0},
    ]
    return torch.optim.SGD(groups, lr=recipe.max_lr, momentum=recipe.momentum, nesterov=True)


def _batches(
    fabric: Fabric, images: Dataset, recipe: Recipe, seed: int, skip: int, workers: int
) -> Iterator[Tensor]:
    """Yield batches for ever, an order an epoch that depends on seed and epoch only."""
    share = recipe.batch_size * fabric.world_size
    per_epoch = len(images) // share  # type: ignore[arg-type]
    if not per_epoch:
        raise TTAMEError(
            f"{len(images)} images do not fill {fabric.world_size} batches of {recipe.batch_size}"  # type: ignore[arg-type]
        )
    epoch, first = divmod(skip, per_epoch)
    while True:
        if hasattr(images, "set_epoch"):
            images.set_epoch(epoch)
        order = torch.randperm(
            len(images),  # type: ignore[arg-type]
            generator=torch.Generator().manual_seed(seed * 1_000_003 + epoch),
        )
        mine = order[: per_epoch * share].view(per_epoch, fabric.world_size, recipe.batch_size)
        chosen = mine[first:, fabric.global_rank].flatten().tolist()
        loader = DataLoader(
            Subset(images, chosen), batch_size=recipe.batch_size, num_workers=workers
        )
        for batch in loader:
            yield batch["image"].to(fabric.device)
        epoch, first = epoch + 1, 0


def save_checkpoint(fabric: Fabric, path: str | Path, state: dict[str, Any]) -> None:
    """Write a training's state under a temporary name, then rename it."""
    values = {k: v.state_dict() if hasattr(v, "state_dict") else v for k, v in state.items()}
    if fabric.is_global_zero:
        with atomic_path(path) as temporary:
            torch.save(values, temporary)
    fabric.barrier()


def _resume(fabric: Fabric, path: str | Path | None, state: dict[str, Any]) -> None:
    """Take over a checkpoint's state where there is one of the same recipe, explainer and number of images."""
    if path is None or not Path(path).is_file():
        return
    values = torch.load(path, map_location=fabric.device, weights_only=True)
    if values["recipe"] != state["recipe"]:
        return  # of another training: train anew
    for key in ("attention", "optimizer", "scheduler"):
        state[key].load_state_dict(values[key])
    state["history"].extend(values["history"])
