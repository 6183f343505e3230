"""Sanity checks (Adebayo et al., NeurIPS 2018; Fig. 16): maps must change when what they explain is randomised."""

from collections.abc import Callable, Iterator
from copy import deepcopy
from typing import Any

import pandas as pd
import torch
from scipy.stats import spearmanr
from skimage.metrics import structural_similarity
from torch import Tensor, nn

from ttame_core.explainer import TTAME, Explanation


def stages(model: nn.Module, taps: tuple[str, ...]) -> list[str]:
    """Name the parts of a model that can be randomised, from the head down.

    Parameters
    ----------
    model : nn.Module
        A classifier.
    taps : tuple of str
        Its taps; a stage's name has as many parts as theirs.

    Returns
    -------
    list of str
        Names of modules that hold parameters, last first.
    """
    depth = max(tap.count(".") for tap in taps) + 1
    names = [name for name, module in model.named_modules() if _reset(module)]
    return list(dict.fromkeys(".".join(name.split(".")[:depth]) for name in reversed(names)))


def cascade(module: nn.Module, order: list[str], seed: int = 0) -> Iterator[tuple[str, nn.Module]]:
    """Randomise a copy of a module part by part, each on top of those before.

    Parameters
    ----------
    module : nn.Module
        Left as it is.
    order : list of str
        Names of its parts, as `stages` gives them.
    seed : int
        Of the new parameters, drawn as the layers draw theirs at first.

    Yields
    ------
    tuple of str and nn.Module
        The part that was randomised last, and the copy so far (the same object each time).
    """
    copy = deepcopy(module)
    for i, name in enumerate(order):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed + i)
            for part in copy.get_submodule(name).modules():
                reset = _reset(part)
                if reset:
                    device = next(part.parameters()).device
                    part.cpu()  # the same draw on every device
                    reset()
                    part.to(device)
        yield name, copy.requires_grad_(False).eval()


def _reset(module: nn.Module) -> Callable[[], None] | None:
    """Return what gives a layer new parameters; `nn.MultiheadAttention` has its own name for it."""
    return getattr(module, "reset_parameters", getattr(module, "_reset_parameters", None))


def randomised_backbone(
    explainer: TTAME, images: Tensor, seed: int = 0
) -> Iterator[tuple[str, Explanation]]:
    """Explain with a backbone that is randomised from the head down.

    Parameters
    ----------
    explainer : TTAME
        Left as it is; its attention mechanism stays trained.
    images : Tensor
        ``(B, 3, H, W)`` in [0, 1].
    seed : int
        Of the new parameters.

    Yields
    ------
    tuple of str and Explanation
        The stage randomised last, and maps of the classes that the backbone now predicts.
    """
    copy = deepcopy(explainer)
    order = stages(explainer.backbone.model, explainer.backbone.taps)
    for name, model in cascade(explainer.backbone.model, order, seed):
        copy.backbone.model = model
        yield name, copy(images)


def randomised_attention(
    explainer: TTAME, images: Tensor, classes: Tensor, seed: int = 0
) -> Iterator[tuple[str, Explanation]]:
    """Explain with an attention mechanism that is randomised from the fusion to the earliest branch.

    Parameters
    ----------
    explainer : TTAME
        Left as it is.
    images : Tensor
        ``(B, 3, H, W)`` in [0, 1].
    classes : Tensor
        ``(B,)`` int64.
    seed : int
        Of the new parameters.

    Yields
    ------
    tuple of str and Explanation
        The part randomised last, and maps of the classes.
    """
    copy: Any = deepcopy(explainer)
    count = len(explainer.attention.branches)
    order = ["fusion", *(f"branches.{i}" for i in reversed(range(count)))]
    for name, attention in cascade(explainer.attention, order, seed):
        copy.attention = attention
        yield name, copy(images, classes)


def similarity(maps: Tensor, others: Tensor) -> pd.DataFrame:
    """Compare maps with others of the same images.

    Parameters
    ----------
    maps, others : Tensor
        ``(B, h, w)`` in [0, 1].

    Returns
    -------
    DataFrame
        A row an image: ``rank correlation`` (Spearman's; 0 where a map is constant) and ``ssim``, both -1 to 1.
    """
    rows = []
    for one, other in zip(maps.cpu().double().numpy(), others.cpu().double().numpy(), strict=True):
        constant = one.min() == one.max() or other.min() == other.max()
        rank = 0.0 if constant else float(spearmanr(one.ravel(), other.ravel()).statistic)
        window = min(7, *one.shape)
        rows.append(
            (
                rank,
                structural_similarity(one, other, win_size=window - 1 + window % 2, data_range=1),
            )
        )
    return pd.DataFrame(rows, columns=["rank correlation", "ssim"])
