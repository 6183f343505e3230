"""A drawing of the method, made from what it draws: an explainer and its classifier."""

import textwrap
from collections.abc import Sequence
from typing import Any

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import nn

from ttame_book.report.charts import WIDTH
from ttame_book.report.names import shown_name
from ttame_core.attention import FeatureBranch
from ttame_core.classifiers.backbone import Backbone
from ttame_core.explainer import TTAME

FROZEN, TRAINED, DATA = "#e3e6ea", "#cfe3f2", "white"
"""Grounds of what is frozen, what is trained, and what is computed."""
SCALE, CONV, NORM, SKIP = "÷ scale", "1×1 conv", "batch norm", "+"
"""What is written on parts."""
STEP = ", "  # between parts that act one after the other
ROW, BOX = 104, 44  # heights of a branch and of a box in it
BRANCHES = (122, 428)  # where a branch begins and ends
NAME = 46  # characters that fit above a branch


def architecture_parts(explainer: TTAME) -> pd.DataFrame:
    """List an explainer's branches: a row a tap, with the parts that its feature map passes.

    Columns are tap, channels, height, width (of the feature map), map_height, map_width (of the
    explanation map), and parts, in the order in which they act.
    """
    backbone, attention = explainer.backbone, explainer.attention
    used = len(attention.branches)
    shapes = backbone.shapes[-used:]
    high, wide = max((shape[1:] for shape in shapes), key=lambda size: size[0] * size[1])
    rows = []
    for tap, shape, branch in zip(backbone.taps[-used:], shapes, attention.branches, strict=True):
        parts = [SCALE] if attention.scales is not None else []
        if isinstance(branch, FeatureBranch):
            parts += [CONV]
            parts += [NORM] if isinstance(branch.norm, nn.BatchNorm2d) else []
            parts += [SKIP] if branch.skip else []
            parts += ["ReLU" if isinstance(branch.activation, nn.ReLU) else "sigmoid"]
        if shape[1:] != (high, wide):
            parts += [f"upsample {high} × {wide}"]
        rows.append((tap, *shape, high, wide, STEP.join(parts)))
    columns = ["tap", "channels", "height", "width", "map_height", "map_width", "parts"]
    return pd.DataFrame(rows, columns=columns)


def architecture(explainer: TTAME) -> Figure:
    """Draw the way from an image by classifier, branches and fusion to a map and its mask.

    All shapes, layers and parts are the explainer's own, at its classifier's image size. What is
    trained is blue, what is frozen grey.
    """
    parts = architecture_parts(explainer)
    height = max(112 + ROW * len(parts), 380)
    figure, axis = plt.subplots(figsize=(WIDTH, WIDTH * height / 700))
    figure.subplots_adjust(0, 0, 1, 1)
    axis.set(xlim=(0, 700), ylim=(height, 0))
    axis.set_axis_off()
    middle = 78 + (height - 134) / 2
    _draw_classifier(axis, explainer.backbone, height)
    _draw_branches(axis, explainer, parts, middle)
    _draw_masking(axis, explainer, parts, middle)
    return figure


def _draw_classifier(axis: Axes, backbone: Backbone, height: float) -> None:
    """Draw the image, the classifier below it, and what that tells."""
    size = backbone.preprocessing.image_size
    _box(axis, (4, 8, 96, 48), f"image\n3 × {size} × {size}", DATA)
    _arrow(axis, (52, 56), (52, 78))
    called = textwrap.fill(shown_name(backbone.name), 14)
    _box(axis, (4, 78, 96, height - 134), f"{called}\n\nfrozen", FROZEN)
    _arrow(axis, (52, height - 56), (52, height - 40))
    classes = f"{backbone.num_classes:,} classes;\ny: predicted"
    axis.text(52, height - 20, classes, ha="center", va="center", fontsize=9)


def _draw_branches(axis: Axes, explainer: TTAME, parts: pd.DataFrame, middle: float) -> None:
    """Draw a branch for each tap below its layer and shape, and the fusion of all."""
    backbone, attention = explainer.backbone, explainer.attention
    first = middle - ROW * (len(parts) - 1) / 2 + 10
    for row in range(len(parts)):
        level, branch = first + ROW * row, parts.iloc[row]
        c, h, w = branch[["channels", "height", "width"]]
        name = branch["tap"]
        name = name if len(name) <= NAME else f"…{name[1 - NAME :]}"
        shape = f"{c} × {h} × {w}"
        if backbone.tokens:
            shape += f", of {backbone.prefix_tokens + h * w} tokens"
        axis.text(BRANCHES[0] - 14, level - 47, name, va="center", fontsize=9.5, weight="bold")
        axis.text(BRANCHES[0] - 14, level - 32, shape, va="center", fontsize=9, color="0.3")
        _branch(axis, level, list(filter(None, branch["parts"].split(STEP))))
    reach = max(150, ROW * (len(parts) - 1) / 2 + BOX / 2 + 28)
    channels = f"{sum(attention.channels):,}\n→ {attention.num_classes:,}"
    fused = f"concatenate\n\n1×1 conv\n{channels}\n\nclass y:\none map"
    _box(axis, (440, middle - reach, 88, 2 * reach), fused, TRAINED)


def _draw_masking(axis: Axes, explainer: TTAME, parts: pd.DataFrame, middle: float) -> None:
    """Draw what becomes of the map, below each other: mask, masked image, confidence."""
    backbone, attention = explainer.backbone, explainer.attention
    size, called = backbone.preprocessing.image_size, shown_name(backbone.name)
    sides = f"{parts['map_height'][0]} × {parts['map_width'][0]}"
    orders = {"image": "masked, then\nstandardised", "standardised": "standardised,\nthen masked"}
    smoothed = ", smoothed" if attention.smoothing else ""
    scaled = "sigmoid, " if attention.squashed else ""
    steps = [
        ("", f"map of y{smoothed}\n{sides}", DATA),
        (f"{scaled}min-max, upsample", f"mask\n{size} × {size}", DATA),
        ("times the image", f"image,\n{orders[backbone.masking]}", DATA),
        ("", f"{textwrap.fill(called, 22)}\nconfidence in y", FROZEN),
    ]
    top, gap = middle - 165, (330 - 4 * 56) / 3
    _arrow(axis, (528, middle - 137), (556, middle - 137))
    for place, (how, what, ground) in enumerate(steps):
        y = top + place * (56 + gap)
        _box(axis, (556, y, 140, 56), what, ground)
        if place:
            _arrow(axis, (564, y - gap), (564, y))
            axis.text(571, y - gap / 2, textwrap.fill(how, 19), va="center", fontsize=9)


def _branch(axis: Axes, level: float, parts: Sequence[str]) -> None:
    """Draw a branch's parts from left to right, and the skip connection below them."""
    begin, end = BRANCHES
    # as wide as the longest word in it, a character being 7.5
    words = [max(map(len, part.split())) for part in parts]
    widths = [18 if p == SKIP else max(40, 8 + 7.5 * n) for p, n in zip(parts, words, strict=True)]
    gap = min((end - begin - sum(widths)) / (len(parts) + 1), 26.0)
    x = taken = float(begin)
    for part, width in zip(parts, widths, strict=True):
        _arrow(axis, (x if x > begin else 100, level), (x + gap, level))
        x += gap
        if part == SKIP:
            axis.add_patch(plt.Circle((x + 9, level), 9, fc="white", ec="0.3", zorder=2))
            axis.text(x + 9, level, "+", ha="center", va="center", fontsize=10, zorder=3)
            below = level + BOX / 2 + 8
            line = [(taken, level), (taken, below), (x + 9, below)]
            axis.plot(*zip(*line, strict=True), color="0.3", lw=1)
            _arrow(axis, (x + 9, below), (x + 9, level + 9))
            axis.text((taken + x) / 2, below + 8, "skip", va="center", ha="center", fontsize=9)
        else:
            trained = part in (CONV, NORM)
            place = (x, level - BOX / 2, width, BOX)
            _box(axis, place, part.replace(" ", "\n", 1), TRAINED if trained else DATA)
        x += width
        if part == SCALE:  # the skip connection's input is scaled too
            taken = x + gap / 2
    _arrow(axis, (x if parts else 100, level), (440, level))


def _box(axis: Axes, place: Sequence[float], text: str, ground: str) -> None:
    """Draw a box at (left, top, width, height) with a text in its middle."""
    x, y, width, height = place
    look: dict[str, Any] = {"fc": ground, "ec": "0.3", "lw": 1, "zorder": 2}
    axis.add_patch(plt.Rectangle((x, y), width, height, **look))
    centre: dict[str, Any] = {"ha": "center", "va": "center", "zorder": 3}
    axis.text(x + width / 2, y + height / 2, text, fontsize=9, linespacing=1.25, **centre)


def _arrow(axis: Axes, start: tuple[float, float], end: tuple[float, float]) -> None:
    """Draw an arrow."""
    look: dict[str, Any] = {"arrowstyle": "-|>", "color": "0.3", "lw": 1, "shrinkA": 0}
    axis.annotate("", end, start, arrowprops={**look, "shrinkB": 0, "mutation_scale": 9})
