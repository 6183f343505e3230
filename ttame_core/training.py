"""Training the attention mechanism: SGD, OneCycleLR, checkpoints that resume exactly."""

import io
import math
import os
import warnings
from copy import deepcopy
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ttame_core.classifiers.backbone import Backbone
from ttame_core.errors import SEEDS, TTAMEError, check_kind, check_seed, check_whole
from ttame_core.explainer import PATH, TTAME
from ttame_core.files import atomic_path
from ttame_core.images.batches import check_data_set, digest_of, endless_batches, stack
from ttame_core.images.folders import evenly
from ttame_core.images.reading import check_images
from ttame_core.losses import in_batch_other_classes, sample_other_classes, ttame_loss
from ttame_core.masking import minmax
from ttame_core.progress import Tell
from ttame_core.recipes import Recipe
from ttame_core.warm_start import warm_start

ROWS_AT_ONCE = {"cpu": 1}
"""How many steps' losses are looked at together, 50 by default: an accelerator is waited for."""
FLAT = 0.01  # a map's mean from 0 or 1, and its spread; of 16 healthy trainings the least is 0.024


@torch.inference_mode(False)  # which turns gradients on, whatever the caller has turned off
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
        Items with ``"image"`` ``(3, H, W)`` in [0, 1], or pairs that start with it, of one size;
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
        If an argument is not of its kind, there are fewer images than a batch, some are not in
        [0, 1] or of one size, or loss or weights are not finite. Maps that collapse are warned of.
    """
    check_kind("explainer", explainer, TTAME, "a tt.TTAME(backbone)")
    check_kind("recipe", recipe, (Recipe, type(None)), "a tt.Recipe(steps=..., max_lr=...)")
    check_kind("checkpoint", checkpoint, (*PATH, type(None)), "the name of a file, or None")
    check_seed(seed)
    check_whole("checkpoint_every", checkpoint_every, 1)
    check_whole("workers", workers)
    check_data_set(images)
    recipe, seed = recipe or Recipe(), int(seed)
    if fabric is None:
        from lightning_fabric import Fabric  # takes a second to import

        fabric = Fabric(accelerator="auto", devices=1)
    share = recipe.batch_size * fabric.world_size
    if len(images) < share:
        raise TTAMEError(
            f"{len(images)} training images do not fill a batch of {share}; give more images or a smaller batch_size"
        )
    backbone = explainer.backbone
    with backbone.held():  # others may be explaining with it
        explainer.to(fabric.device)
        initialise(explainer, images, recipe)
        optimizer = _optimizer(explainer.attention, recipe)
        scheduler = torch.optim.lr_scheduler.OneCycleLR(
            optimizer, max_lr=recipe.max_lr, total_steps=recipe.steps + 1, cycle_momentum=False
        )
        attention, optimizer = fabric.setup(explainer.attention, optimizer)
        state: dict[str, Any] = {"attention": attention, "optimizer": optimizer}
        state |= {"scheduler": scheduler, "history": []}
        if checkpoint is not None:
            run: dict[str, Any] = {"seed": seed, "explainer": explainer.seed, "images": len(images)}
            run |= {"data": digest_of(images)} | explainer.identity()
            state["recipe"] = asdict(recipe) | run
            _resume(fabric, checkpoint, state)
        if recipe.backbone_mode == "train":
            backbone = deepcopy(backbone)  # its batch norm's statistics would drift, and stay so
            backbone.frozen = False
            backbone.model.train()
        attention.train()
    history, waiting = state["history"], []
    remedy = f"try a smaller max_lr than {recipe.max_lr:g}"
    good = "; the last good state is that after step {}, in {}"
    kept = good.format(len(history) - 1, checkpoint) if history else ""
    batches = endless_batches(fabric, images, recipe.batch_size, seed, len(history), workers)
    for step, batch in zip(range(len(history), recipe.steps), batches, strict=False):
        due = step + 1 == recipe.steps or (step + 1) % checkpoint_every == 0
        # of the step alone, so that a resumed training draws what an uninterrupted one would
        drawn = (seed * recipe.steps + step) * fabric.world_size + fabric.global_rank
        draw = torch.Generator().manual_seed(drawn % SEEDS)
        with explainer.backbone.held():  # whoever explains meanwhile changes the mechanism's mode
            terms = training_step(backbone, attention, batch, recipe, draw)
            row = {"step": step, "lr": scheduler.get_last_lr()[0]}
            waiting.append(row | {name: term.detach() for name, term in terms.items()})
            if due or len(waiting) >= ROWS_AT_ONCE.get(fabric.device.type, 50):
                _collect(waiting, history, remedy + kept)
            optimizer.zero_grad()
            fabric.backward(terms["total"])
            optimizer.step()
            scheduler.step()
        if due:
            if not all(value.isfinite().all() for value in attention.state_dict().values()):
                raise _diverged("weights are not finite", history[-1], remedy + kept)
            if checkpoint is not None:
                save_checkpoint(fabric, checkpoint, state)
                kept = good.format(step, checkpoint)
        if progress:
            progress(step + 1, recipe.steps)
    with explainer.backbone.held():
        explainer.eval()
    _warn_of_collapse(history)
    return history


def _collect(waiting: list[dict], history: list[dict], remedy: str) -> None:
    """Move rows to the history, all numbers at once; stop where a loss is not finite."""
    names = [name for name, value in waiting[0].items() if isinstance(value, Tensor)]
    values = torch.stack([row[name] for row in waiting for name in names])
    for row, numbers in zip(waiting, values.view(len(waiting), -1).tolist(), strict=True):
        history.append(row | dict(zip(names, numbers, strict=True)))
        if not math.isfinite(history[-1]["total"]):
            raise _diverged(f"loss is {history[-1]['total']}", history[-1], remedy)
    waiting.clear()


def _diverged(what: str, row: dict, remedy: str) -> TTAMEError:
    return TTAMEError(f"the {what} at step {row['step']}, learning rate {row['lr']:.3g}; {remedy}")


def _warn_of_collapse(history: list[dict]) -> None:
    """Warn where the maps of the last tenth of the steps are all near 0, or near 1."""
    rows = history[-max(1, len(history) // 10) :]
    keys = ("truth_mean", "truth_spread", "others_mean")
    mean, spread, others = (sum(row[key] for row in rows) / len(rows) for key in keys)
    if spread < FLAT and not FLAT <= mean <= 1 - FLAT:
        found = (
            f"{mean:.3f} on average, with a spread of {spread:.3f} (of other classes {others:.3f})"
        )
        area = f"a {'smaller' if mean < FLAT else 'larger'} tt.LossWeights(area=...)"
        warnings.warn(
            f"the maps of the model truth have become all but constant, {found}; try a smaller max_lr, the variant "
            f"'scaled', more steps, or {area}",
            stacklevel=4,  # the caller of train, which is decorated
        )


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
    decayed: dict = {"params": weights, "weight_decay": recipe.weight_decay}
    nesterov = recipe.momentum > 0
    return torch.optim.SGD(
        [decayed, {"params": rest}], recipe.max_lr, recipe.momentum, nesterov=nesterov
    )


def save_checkpoint(fabric: Any, path: str | Path, state: dict[str, Any]) -> None:
    """Write a training's state under a temporary name, then rename it."""
    values = {k: v.state_dict() if hasattr(v, "state_dict") else v for k, v in state.items()}
    if fabric.is_global_zero:
        file = io.BytesIO()  # torch.save itself does not say that a disk is full
        torch.save(values, file)
        with atomic_path(path) as temporary:
            temporary.write_bytes(file.getbuffer())
    fabric.barrier()


def _resume(fabric: Any, path: str | Path, state: dict[str, Any]) -> None:
    """Take over a checkpoint's state, where it is of the same training."""
    if not Path(path).is_file():
        return
    try:
        values = torch.load(path, map_location=fabric.device, weights_only=True)
        if values["recipe"] != state["recipe"]:
            return  # of another training: train anew
    except Exception as error:  # of many types: damaged bytes raise what they come to
        what = f"{path} is no checkpoint that can be read ({error!r}), and is named .broken now"
        warnings.warn(f"{what}; it is trained anew", stacklevel=4)
        if fabric.is_global_zero:  # it is kept: it may have been named by mistake
            os.replace(path, f"{path}.broken")
        return
    for key in ("attention", "optimizer", "scheduler"):
        state[key].load_state_dict(values[key])
    state["history"].extend(values["history"])
