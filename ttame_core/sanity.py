"""Sanity checks (Adebayo et al., NeurIPS 2018; Fig. 16): maps must change when what they explain is randomised."""

from collections.abc import Callable, Iterable, Iterator
from copy import deepcopy
from itertools import repeat
from typing import Any

import pandas as pd
import torch
from scipy.stats import spearmanr
from skimage.metrics import structural_similarity
from torch import Tensor, nn

from ttame_core.explainer import TTAME, Explanation
from ttame_core.layers import batch_that_suits


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
        Names of modules that hold parameters, and of parameters that belong to no layer, last first.
    """
    depth = max(tap.count(".") for tap in taps) + 1
    names = []
    for name, module in model.named_modules():
        if _reset(module):
            names.append(name)
        else:  # a class token, position embeddings
            own = [n for n, _ in module.named_parameters(recurse=False)]
            names += [f"{name}.{n}".lstrip(".") for n in own]
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
            parent, _, last = name.rpartition(".")
            part = getattr(copy.get_submodule(parent), last)
            if isinstance(part, nn.Parameter):
                _draw(part)
            else:
                _redraw(part)
        yield name, copy.requires_grad_(False).eval()


def _redraw(part: nn.Module) -> None:
    """Give a part of a model new parameters, the same on every device."""
    for module in part.modules():
        reset = _reset(module)
        if reset:
            device = next(module.parameters()).device
            module.cpu()
            reset()
            module.to(device)
        else:
            for parameter in module.parameters(recurse=False):
                _draw(parameter)


def _draw(parameter: nn.Parameter) -> None:
    """Draw a parameter that belongs to no layer anew, as transformers draw their embeddings."""
    new = nn.init.trunc_normal_(torch.empty(parameter.shape), std=0.02)
    parameter.data.copy_(new)


def _reset(module: nn.Module) -> Callable[[], None] | None:
    """Return what gives a layer new parameters; `nn.MultiheadAttention` has its own name for it."""
    return getattr(module, "reset_parameters", getattr(module, "_reset_parameters", None))


def explain_in_parts(
    explainer: TTAME, images: Tensor, classes: Tensor | None = None
) -> Explanation:
    """Explain many images, as many at a time as suit the device.

    Parameters
    ----------
    explainer : TTAME
        In evaluation mode.
    images : Tensor
        ``(B, 3, H, W)`` in [0, 1].
    classes : Tensor, optional
        ``(B,)`` int64; by default the model truth of each image.

    Returns
    -------
    Explanation
        Of all.
    """
    size = batch_that_suits(images)
    some = classes.split(size) if classes is not None else repeat(None)
    parts = [explainer(*pair) for pair in zip(images.split(size), some, strict=False)]
    columns = zip(*((p.maps, p.classes, p.confidences, p.ranks) for p in parts), strict=True)
    return Explanation(*map(torch.cat, columns))


def randomised_backbone(
    explainer: TTAME, images: Tensor, classes: Tensor, seed: int = 0
) -> Iterator[tuple[str, Explanation]]:
    """Explain with a backbone that is randomised from the head down.

    Parameters
    ----------
    explainer : TTAME
        Left as it is; its attention mechanism stays trained.
    images : Tensor
        ``(B, 3, H, W)`` in [0, 1].
    classes : Tensor
        ``(B,)`` int64, kept throughout: a randomised backbone predicts other classes, and another class's map
        would differ even if nothing else did.
    seed : int
        Of the new parameters.

    Yields
    ------
    tuple of str and Explanation
        The stage randomised last, and maps of the classes.
    """
    copy = deepcopy(explainer)
    order = stages(explainer.backbone.model, explainer.backbone.taps)
    for name, model in cascade(explainer.backbone.model, order, seed):
        copy.backbone.model = model
        yield name, explain_in_parts(copy, images, classes)


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
        yield name, explain_in_parts(copy, images, classes)


def follow(
    original: Tensor, randomised: Iterable[tuple[str, Explanation]], whole: str
) -> tuple[dict[str, Tensor], pd.DataFrame]:
    """Follow maps while more and more is randomised.

    Parameters
    ----------
    original : Tensor
        ``(B, h, w)``, maps before.
    randomised : iterable of (str, Explanation)
        From `randomised_backbone` or `randomised_attention`.
    whole : str
        What to call the last stage, at which everything is random.

    Returns
    -------
    tuple of dict and DataFrame
        The first image's maps ``(1, h, w)`` by stage, from the original on; and `similarity` to the original, a row
        an image and stage.
    """
    strip, parts = {"original": original[:1]}, []
    for stage, explanation in randomised:
        strip[stage] = explanation.maps[:1]
        parts.append(similarity(original, explanation.maps).assign(stage=stage))
    strip[whole] = strip.pop(stage)
    parts[-1]["stage"] = whole
    return strip, pd.concat(parts)


def first_below(means: pd.DataFrame, whole: str, bound: float = 0.5) -> str | None:
    """Name the stage from which the maps' rank correlation is below a bound, by its interval; None: never.

    Parameters
    ----------
    means : DataFrame
        As `statistics.means_table` returns it by stage, in the order of the cascade.
    whole : str
        The cascade's last stage; what comes after it is another's.
    bound : float
        -1 to 1.
    """
    ranks = means[means["measure"] == "rank correlation"].reset_index()
    ranks = ranks.iloc[: ranks["method"].tolist().index(whole) + 1]
    above = ranks.index[ranks["high"] >= bound]
    first = above[-1] + 1 if len(above) else 0
    return str(ranks["method"][first]) if first < len(ranks) else None


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
