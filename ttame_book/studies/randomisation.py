"""Sanity checks (Adebayo et al., NeurIPS 2018; Fig. 16): randomise what a map explains, and look.

Maps must change where the backbone, or the attention mechanism, is randomised part by part. An
explainer is always in evaluation mode, and is left as it is; images are ``(B, 3, H, W)`` in [0, 1],
classes ``(B,)`` int64; ``seed`` is that of the new parameters.
"""

from collections.abc import Callable, Iterable, Iterator
from copy import deepcopy
from itertools import repeat
from typing import Any

import pandas as pd
import torch
from scipy.stats import spearmanr
from skimage.metrics import structural_similarity
from torch import Tensor, nn

from ttame_core.classifiers.fast import batch_that_suits
from ttame_core.classifiers.taps import ATTENTION_NORMS
from ttame_core.explainer import TTAME, Explanation

WHOLE_BACKBONE, WHOLE_ATTENTION = "whole backbone", "whole attention"
"""What the last stages are called, at which everything is random."""


def stages(model: nn.Module, taps: tuple[str, ...]) -> list[str]:
    """Name the parts of a model that can be randomised, from the head down.

    These are modules that hold parameters, and parameters that belong to no layer, by as many parts
    of their names as the taps' names have, or as the blocks' whose norms are tapped.
    """
    depth = max(tap.count(".") + (tap.rpartition(".")[2] not in ATTENTION_NORMS) for tap in taps)
    names = []
    for name, module in model.named_modules():
        if _reset(module):
            names.append(name)
        else:  # a class token, position embeddings
            own = [n for n, _ in module.named_parameters(recurse=False)]
            names += [f"{name}.{n}".lstrip(".") for n in own]
    return list(dict.fromkeys(".".join(name.split(".")[:depth]) for name in reversed(names)))


def cascade(module: nn.Module, order: list[str], seed: int = 0) -> Iterator[tuple[str, nn.Module]]:
    """Randomise a copy of a module part by part, in an order of `stages`, each on those before.

    Yields the part that was randomised last, with the copy so far (the same object each time).
    """
    copy = deepcopy(module)
    for i, name in enumerate(order):
        # each part has a seed of its own: what it becomes does not depend on the parts before it
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed + i)
            parent, _, last = name.rpartition(".")
            part = getattr(copy.get_submodule(parent), last)
            if isinstance(part, nn.Parameter):
                _draw(part)
            else:
                _redraw(part)
        yield name, copy.requires_grad_(False).eval()


def _redraw(part: nn.Module) -> None:
    """Give a part of a model new parameters, as its layers draw theirs at first."""
    for module in part.modules():
        reset = _reset(module)
        if reset:
            # drawn on the CPU, so that they are the same on every device
            device = next(module.parameters()).device
            module.cpu()
            reset()
            module.to(device)
        else:
            for parameter in module.parameters(recurse=False):
                _draw(parameter)


def _draw(parameter: nn.Parameter) -> None:
    """Draw a parameter that belongs to no layer anew, as transformers draw their embeddings."""
    parameter.data.copy_(nn.init.trunc_normal_(torch.empty(parameter.shape), std=0.02))


def _reset(module: nn.Module) -> Callable[[], None] | None:
    """Return what gives a layer new parameters; `nn.MultiheadAttention` has its own name for it."""
    return getattr(module, "reset_parameters", getattr(module, "_reset_parameters", None))


def explain_in_parts(
    explainer: TTAME, images: Tensor, classes: Tensor | None = None
) -> Explanation:
    """Explain many images, as many at a time as suit the device; by default their model truths."""
    size = batch_that_suits(images)
    some = classes.split(size) if classes is not None else repeat(None)
    parts = [explainer(*pair) for pair in zip(images.split(size), some, strict=False)]
    columns = zip(*((p.maps, p.classes, p.confidences, p.ranks) for p in parts), strict=True)
    maps, explained, confidences, ranks = map(torch.cat, columns)
    labels = explainer.backbone.labels
    return Explanation(maps, explained, confidences, ranks, images, labels)


def randomised_backbone(
    explainer: TTAME, images: Tensor, classes: Tensor, seed: int = 0
) -> Iterator[tuple[str, Explanation]]:
    """Explain with a backbone that is randomised from the head down, the attention as trained.

    Yields the stage randomised last, with the explanation. The classes are kept throughout: a
    randomised backbone predicts others, whose maps would differ even if nothing else did.
    """
    copy = deepcopy(explainer)
    order = stages(explainer.backbone.model, explainer.backbone.taps)
    for name, model in cascade(explainer.backbone.model, order, seed):
        copy.backbone.model = model
        yield name, explain_in_parts(copy, images, classes)


def randomised_attention(
    explainer: TTAME, images: Tensor, classes: Tensor, seed: int = 0
) -> Iterator[tuple[str, Explanation]]:
    """Explain with an attention mechanism randomised from the fusion to the earliest branch.

    Yields the part randomised last, with the explanation.
    """
    copy: Any = deepcopy(explainer)
    count = len(explainer.attention.branches)
    order = ["fusion", *(f"branches.{i}" for i in reversed(range(count)))]
    for name, attention in cascade(explainer.attention, order, seed):
        copy.attention = attention
        yield name, explain_in_parts(copy, images, classes)


def follow(
    original: Tensor, randomised: Iterable[tuple[str, Explanation]], whole: str
) -> tuple[dict[str, Tensor], pd.DataFrame]:
    """Follow maps while more and more is randomised, from the ``original`` ones ``(B, h, w)`` on.

    ``randomised`` are the stages with their maps, and ``whole`` is what to call the last one.
    Returns the first image's maps ``(1, h, w)`` by stage, and `similarity` to the original ones, a
    row an image and stage.
    """
    strip, parts = {"original": original[:1]}, []
    for stage, explanation in randomised:
        strip[stage] = explanation.maps[:1]
        parts.append(similarity(original, explanation.maps).assign(stage=stage))
    strip[whole] = strip.pop(stage)
    parts[-1]["stage"] = whole
    return strip, pd.concat(parts)


def first_below(means: pd.DataFrame, whole: str, bound: float = 0.5) -> str | None:
    """Name the stage from which on the maps' rank correlation is below a bound, by its interval.

    ``means`` are those of `means_table` by stage, in the order of the cascade; what comes after the
    stage ``whole`` is of another cascade. None where it never stays below.
    """
    ranks = means[means["measure"] == "rank correlation"].reset_index()
    ranks = ranks.iloc[: ranks["method"].tolist().index(whole) + 1]
    above = ranks.index[ranks["high"] >= bound]
    first = above[-1] + 1 if len(above) else 0
    return str(ranks["method"][first]) if first < len(ranks) else None


def similarity(maps: Tensor, others: Tensor) -> pd.DataFrame:
    """Compare maps with others of the same images, both ``(B, h, w)`` in [0, 1], a row an image.

    Columns are ``rank correlation`` (Spearman's; 0 where a map is constant) and ``ssim``, both -1
    to 1.
    """
    rows = []
    for one, other in zip(maps.cpu().double().numpy(), others.cpu().double().numpy(), strict=True):
        constant = one.min() == one.max() or other.min() == other.max()
        rank = 0.0 if constant else float(spearmanr(one.ravel(), other.ravel()).statistic)
        # SSIM's window of 7 px, or the largest odd one that a small map has room for
        window = min(7, *one.shape)
        window -= 1 - window % 2
        rows.append((rank, structural_similarity(one, other, win_size=window, data_range=1)))
    return pd.DataFrame(rows, columns=["rank correlation", "ssim"])
