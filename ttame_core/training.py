"""Training the attention mechanism: SGD, OneCycleLR, checkpoints that resume exactly."""

import io
import math
import os
import warnings
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Subset

from ttame_core.classifiers.backbone import Backbone
from ttame_core.errors import TTAMEError
from ttame_core.explainer import TTAME
from ttame_core.files import atomic_path
from ttame_core.images.folders import evenly, picture_of, stack
from ttame_core.images.reading import check_images
from ttame_core.losses import in_batch_other_classes, sample_other_classes, ttame_loss
from ttame_core.masking import minmax
from ttame_core.progress import Tell
from ttame_core.recipes import Recipe
from ttame_core.warm_start import warm_start


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
    arrives at the same weights as an uninterrupted run.

    Parameters
    ----------
    explainer : TTAME
        The explainer to be trained.
    images : Dataset
        Items with ``"image"`` ``(3, H, W)`` in [0, 1], or pairs that start with it;
        ``set_epoch(n)`` is called where it exists. Labels are not used: the target is the model
        truth.
    recipe : Recipe, optional
        The paper's by default.
    seed : int
        Seed of the order of the images and the draw of other classes.
    checkpoint : str or Path, optional
        File to go on from, rewritten every ``checkpoint_every`` steps and at the end. Remove it
        once the trained explainer is saved.
    fabric : Fabric, optional
        Lightning's, for device, precision, several processes; one automatic device by default.
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
        If there are fewer images than a batch, some are not in [0, 1], or the loss is not finite.
    """
    recipe = recipe or Recipe()
    if fabric is None:
        from lightning_fabric import Fabric  # takes a second to import

        fabric = Fabric(accelerator="auto", devices=1)
    share = recipe.batch_size * fabric.world_size
    if len(images) < share:
        raise TTAMEError(
            f"{len(images)} training images do not fill a batch of {share}; give more images or a smaller batch_size"
        )
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
        "recipe": {**asdict(recipe), "seed": seed, "images": len(images)} | explainer.identity(),
    }
    _resume(fabric, checkpoint, state)
    history = state["history"]
    backbone = explainer.backbone
    if recipe.backbone_mode == "train":
        backbone = deepcopy(backbone)  # its batch norm's statistics would drift, and stay so
        backbone.frozen = False
        backbone.model.train()
    attention.train()
    batches = _batches(fabric, images, recipe, seed, len(history), workers)
    for step, batch in zip(range(len(history), recipe.steps), batches, strict=False):
        lr = scheduler.get_last_lr()[0]
        # of the step alone, so that a resumed training draws what an uninterrupted one would
        drawn = (seed * recipe.steps + step) * fabric.world_size + fabric.global_rank
        draw = torch.Generator().manual_seed(drawn)
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
        if checkpoint and (step + 1 == recipe.steps or (step + 1) % checkpoint_every == 0):
            save_checkpoint(fabric, checkpoint, state)
        if progress:
            progress(step + 1, recipe.steps)
    explainer.eval()
    return history


@torch.no_grad()
def initialise(explainer: TTAME, images: Any, recipe: Recipe) -> None:
    """Prepare a mechanism for its first step: its feature maps' scales, a warm start."""
    backbone, seen = explainer.backbone, None
    if explainer.attention.scales is not None:
        batch = stack(evenly(images, recipe.batch_size)).to(backbone.mean.device)
        check_images(batch)
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
    """Compute loss and diagnostics of one batch ``(B, 3, H, W)`` in [0, 1] (Eq. 11-17), as scalars.

    The generator draws the other classes; ``total`` carries the gradient.
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
        **vars(terms),
        "truth_mean": sigmoids[:, 0].mean(),
        "truth_spread": sigmoids[:, 0].flatten(1).std(1).mean(),
        "others_mean": sigmoids[:, 1:].mean(),
        "logits_min": map_logits.min(),
        "logits_max": map_logits.max(),
    }


def _optimizer(attention: nn.Module, recipe: Recipe) -> torch.optim.SGD:
    """SGD with weight decay on the convolutions' weights alone."""
    weights = [p for p in attention.parameters() if p.ndim > 1]
    rest = [p for p in attention.parameters() if p.ndim <= 1]
    groups: list[dict] = [
        {"params": weights, "weight_decay": recipe.weight_decay},
        {"params": rest},
    ]
    return torch.optim.SGD(groups, lr=recipe.max_lr, momentum=recipe.momentum, nesterov=True)


def _batches(
    fabric: Any, images: Any, recipe: Recipe, seed: int, skip: int, workers: int
) -> Iterator[Tensor]:
    """Yield batches for ever, an order an epoch that depends on seed and epoch only."""
    share = recipe.batch_size * fabric.world_size
    per_epoch = len(images) // share
    epoch, first = divmod(skip, per_epoch)
    while True:
        if hasattr(images, "set_epoch"):
            images.set_epoch(epoch)
        generator = torch.Generator().manual_seed(seed * 1_000_003 + epoch)
        order = torch.randperm(len(images), generator=generator)
        mine = order[: per_epoch * share].view(per_epoch, fabric.world_size, recipe.batch_size)
        chosen = mine[first:, fabric.global_rank].flatten().tolist()
        for batch in DataLoader(Subset(images, chosen), recipe.batch_size, num_workers=workers):
            pictures = picture_of(batch)
            check_images(pictures)  # here, where no accelerator waits for the answer
            yield pictures.to(fabric.device)
        epoch, first = epoch + 1, 0


def save_checkpoint(fabric: Any, path: str | Path, state: dict[str, Any]) -> None:
    """Write a training's state under a temporary name, then rename it."""
    values = {k: v.state_dict() if hasattr(v, "state_dict") else v for k, v in state.items()}
    if fabric.is_global_zero:
        file = io.BytesIO()  # torch.save itself does not say that a disk is full
        torch.save(values, file)
        with atomic_path(path) as temporary:
            temporary.write_bytes(file.getbuffer())
    fabric.barrier()


def _resume(fabric: Any, path: str | Path | None, state: dict[str, Any]) -> None:
    """Take over a checkpoint's state, where it is of the same training."""
    if path is None or not Path(path).is_file():
        return
    try:
        values = torch.load(path, map_location=fabric.device, weights_only=True)
        if values["recipe"] != state["recipe"]:
            return  # of another training: train anew
    except Exception as error:  # of many types: damaged bytes raise what they come to
        told = f"{path} is no checkpoint that can be read ({error!r}), and is named .broken now"
        warnings.warn(f"{told}; it is trained anew", stacklevel=3)
        if fabric.is_global_zero:  # it is kept: it may have been named by mistake
            os.replace(path, f"{path}.broken")
        return
    for key in ("attention", "optimizer", "scheduler"):
        state[key].load_state_dict(values[key])
    state["history"].extend(values["history"])
