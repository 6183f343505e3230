"""What a training does at its steps: the loss, numbers for the history, signs of a collapse."""

import math
import warnings
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn

from ttame_core import losses
from ttame_core.classifiers.backbone import Backbone
from ttame_core.errors import TTAMEError
from ttame_core.explainer import TTAME
from ttame_core.images.batches import of_all, stack
from ttame_core.images.folders import evenly
from ttame_core.images.reading import check_images
from ttame_core.masking import minmax, smooth_masks, soften_top, upsample
from ttame_core.recipes import Recipe
from ttame_core.warm_start import warm_start

LEAST = 8.0
"""Percent of its cells that a map is to speak for at least: half of the least that is measured."""
FLAT = 0.01  # a map's mean from 0 or 1, and its spread; of 16 healthy trainings the least is 0.024


@torch.no_grad()
def initialise(explainer: TTAME, images: Any, recipe: Recipe) -> None:
    """Prepare a mechanism for its first step: its feature maps' scales, a warm or a zero start."""
    backbone, seen = explainer.backbone, None
    if hasattr(images, "set_epoch"):
        images.set_epoch(0)  # an earlier training may have left it elsewhere
    if explainer.attention.scales is not None:
        batch = stack(evenly(images, recipe.batch_size)).to(backbone.mean.device)
        check_images(batch)
        seen = backbone.features(batch)
        explainer.attention.measure_scales(seen[1])
    if recipe.start == "warm":
        warm_start(explainer, seen)
    if recipe.start == "zero":
        nn.init.zeros_(explainer.attention.fusion.weight)
        nn.init.zeros_(explainer.attention.fusion.bias)  # type: ignore[arg-type]


def training_step(
    backbone: Backbone,
    attention: nn.Module,
    images: Tensor,
    recipe: Recipe,
    generator: torch.Generator,
    fabric: Any = None,
    seen: tuple[Tensor, list[Tensor]] | None = None,
) -> dict[str, Tensor]:
    """Compute loss and diagnostics of one batch ``(B, 3, H, W)`` in [0, 1] (Eq. 11-17), as scalars.

    The generator draws the other classes, or masks; ``total`` carries the gradient. With a fabric
    of several processes the images are this one's share of a batch of N, and the scalars are of the
    share. ``seen`` are logits and feature maps of the images, where they are known.
    """
    with torch.no_grad():
        logits, features = seen or backbone.features(images)
        truth = logits.argmax(1)  # (B,)
    drawn = draw_masks(images, recipe, generator, fabric) if recipe.objective != "ttame" else None
    if drawn is not None and recipe.objective == "rise":
        maps = attention(features, truth[:, None])[:, 0]  # (B, h_e, w_e)
        return rise_step(backbone, images, drawn, logits, maps)
    whole = of_all(fabric, truth).flatten() if fabric else truth  # (N,)
    if recipe.other_classes == "uniform":
        others = losses.sample_other_classes(whole, backbone.num_classes, len(whole) - 1, generator)
    else:
        others = losses.in_batch_other_classes(whole)
    rank = fabric.global_rank if fabric else 0
    others = others.split(len(truth))[rank]  # (B, N - 1)
    map_logits = attention(features, torch.cat([truth[:, None], others], 1))  # (B, N, h_e, w_e)
    sigmoids = maps = map_logits.sigmoid()
    if recipe.mask != "sigmoid":
        maps = torch.cat([minmax(maps[:, :1]), maps[:, 1:]], 1)
    mask = maps[:, 0]
    if recipe.mask == "top":
        kept = draw_percentages(len(whole), generator).split(len(truth))
        mask = mask * soften_top(map_logits[:, 0], kept[rank].to(mask))
    masked_logits = backbone(images, mask)
    terms = vars(losses.ttame_loss(masked_logits, truth, maps, recipe.loss))
    if recipe.mask == "top":  # how much a mask shows is given
        terms["total"] = recipe.loss.ce * terms["ce"]
    if drawn is not None:
        terms["rise"] = rise_step(backbone, images, drawn, logits, map_logits[:, 0])["total"]
        terms["total"] = terms["total"] + recipe.loss.rise * terms["rise"]
    return {
        **terms,
        "truth_mean": sigmoids[:, 0].mean(),
        "truth_spread": sigmoids[:, 0].flatten(1).std(1).mean(),
        "others_mean": sigmoids[:, 1:].mean(),
        "logits_min": map_logits.min(),
        "logits_max": map_logits.max(),
    }


def draw_percentages(count: int, generator: torch.Generator) -> Tensor:
    """Draw how much of its map each image keeps, in percent: log-uniformly, at least `LEAST`."""
    return 100 * (LEAST / 100) ** torch.rand(count, generator=generator)


def draw_masks(
    images: Tensor, recipe: Recipe, generator: torch.Generator, fabric: Any = None
) -> Tensor:
    """Draw RISE's masks for each image of ``(B, 3, H, W)``: ``(B, M, H, W)`` in [0, 1].

    All processes draw those of the whole batch, and take their share.
    """
    count, rank = len(images) * recipe.masks, fabric.global_rank if fabric else 0
    drawn = count * (fabric.world_size if fabric else 1)
    grids = torch.rand(drawn, recipe.cells, recipe.cells, generator=generator) < recipe.p
    shifts = torch.rand(drawn, 2, generator=generator).split(count)[rank]
    grids = grids.split(count)[rank].to(images)
    (masks,) = smooth_masks(grids, shifts, images.shape[-2:], count)
    return masks.unflatten(0, (len(images), -1))


def rise_step(
    backbone: Backbone, images: Tensor, masks: Tensor, logits: Tensor, maps: Tensor
) -> dict[str, Tensor]:
    """Compute amortised RISE of one batch, see `rise_loss`, and its diagnostics, as scalars.

    Takes images ``(B, 3, H, W)``, masks ``(B, M, H, W)``, the images' logits ``(B, K)``, and their
    truths' maps before a sigmoid ``(B, h, w)``. ``variance`` is what the loss starts from.
    """
    with torch.no_grad():
        repeated = images.repeat_interleave(masks.shape[1], 0)  # (B * M, 3, H, W)
        scores = backbone(repeated, masks.flatten(0, 1)).softmax(1).view(*masks.shape[:2], -1)
        confidences, truth = logits.softmax(1).max(1)  # (B,)
        shares = scores[torch.arange(len(images)), :, truth] / confidences[:, None]  # (B, M)
    total, variance = losses.rise_loss(shares, upsample(maps, images.shape[-2:]), masks)
    sigmoids = maps.sigmoid()
    return {
        "total": total,
        "variance": variance,
        "truth_mean": sigmoids.mean(),
        "truth_spread": sigmoids.flatten(1).std(1).mean(),
        "logits_min": maps.min(),
        "logits_max": maps.max(),
    }


def largest_batch(explainer: TTAME, images: Any, recipe: Recipe, fabric: Any) -> int:
    """Find the largest batch whose step fits into each process's memory, to an eighth.

    That is the paper's rule (Sec. IV-C). Sizes are tried on a copy of the mechanism, so that
    nothing is learnt; a TTAMEError is raised where not even two images fit.
    """
    attention = deepcopy(explainer.attention).train()
    device, processes = fabric.device, fabric.world_size
    batch = stack(evenly(images, min(len(images), 2)))[:1].to(device)

    def fits(size: int) -> bool:
        try:
            draw = torch.Generator().manual_seed(0)
            some = batch.expand(size, -1, -1, -1).contiguous()
            training_step(explainer.backbone, attention, some, recipe, draw)["total"].backward()
        except RuntimeError as error:  # of several types, each device's own
            if "out of memory" not in str(error).lower():
                raise
            return False
        finally:
            attention.zero_grad()
            if device.type != "cpu":
                torch.accelerator.empty_cache()
        return True

    most, size = len(images) // processes, 2
    while 2 * size <= most and fits(2 * size):
        size *= 2
    step = size // 2
    while step >= max(1, size // 8):
        if size + step <= most and fits(size + step):
            size += step
        step //= 2
    if size == 2 and not fits(2):
        raise TTAMEError(f"no step of two images fits into the memory of {device}; free some")
    return processes * int(of_all(fabric, torch.tensor(size, device=device)).min())


def optimizer_of(attention: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """SGD, or AdamW, with weight decay on the convolutions' weights alone."""
    weights = [p for p in attention.parameters() if p.ndim > 1]
    rest = [p for p in attention.parameters() if p.ndim <= 1]
    decayed: dict = {"params": weights, "weight_decay": recipe.weight_decay}
    groups = [decayed, {"params": rest, "weight_decay": 0.0}]
    if recipe.optimizer == "adamw":
        return torch.optim.AdamW(groups, recipe.max_lr, (recipe.momentum, 0.999), fused=True)
    nesterov = recipe.momentum > 0
    return torch.optim.SGD(groups, recipe.max_lr, recipe.momentum, nesterov=nesterov, fused=True)


def collect(fabric: Any, waiting: list[dict], history: list[dict], remedy: str) -> None:
    """Move rows to the history, all numbers at once; stop where a loss is not finite."""
    names = [name for name, value in waiting[0].items() if isinstance(value, Tensor)]
    shares = of_all(fabric, torch.stack([row[name] for row in waiting for name in names]))
    shares = shares.unflatten(1, (len(waiting), -1))  # (processes, rows, names)
    values = shares.mean(0)
    for name, end in (("logits_min", shares.amin(0)), ("logits_max", shares.amax(0))):
        values[:, names.index(name)] = end[:, names.index(name)]
    for row, numbers in zip(waiting, values.tolist(), strict=True):
        history.append(row | dict(zip(names, numbers, strict=True)))
        if not math.isfinite(history[-1]["total"]):
            raise diverged(f"loss is {history[-1]['total']}", history[-1], remedy)
    waiting.clear()


def diverged(what: str, row: dict, remedy: str) -> TTAMEError:
    """Say where a training came to numbers that are not finite."""
    return TTAMEError(f"the {what} at step {row['step']}, learning rate {row['lr']:.3g}; {remedy}")


def warn_of_collapse(history: list[dict]) -> None:
    """Warn where the maps of the last tenth of the steps are all near 0 or 1, or tell nothing."""
    rows = history[-max(1, len(history) // 10) :]
    if "variance" in rows[0]:  # amortised RISE, whose maps need not be between 0 and 1
        error, variance = (sum(row[key] for row in rows) for key in ("total", "variance"))
        if error > variance and len(rows) >= 10:  # of fewer, chance decides
            warnings.warn(
                f"the maps tell less than nothing of the confidence that masks leave: the loss is {error / variance:.2f} "
                "times its variance; try more steps, or a smaller max_lr",
                stacklevel=4,  # the caller of train
            )
        return
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
            stacklevel=4,  # the caller of train
        )
