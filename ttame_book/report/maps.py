"""Pictures: images with their maps over them, galleries, what imputation leaves."""

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from torch import Tensor

from ttame_book.report.charts import WIDTH
from ttame_book.report.names import shown_name
from ttame_core.classifiers.backbone import Backbone
from ttame_core.explainer import TTAME
from ttame_core.images.explanation import COLOURS, Explanation, overlay, percent
from ttame_core.masking import enlarged, keep_top

Picture = tuple[Tensor, Tensor | None, str] | None
"""What `show_image` draws: an image, perhaps a map, and a title; or nothing."""
Row = Sequence[Picture]
"""What is beside each other."""
ACROSS = 8
"""Pictures beside each other at most: with more they are too small to see."""


def show_image(axes: Axes, image: Tensor, heat: Tensor | None = None, title: str = "") -> None:
    """Draw an image, dimmed to grey under a map's colours where a map is given.

    Parameters
    ----------
    axes : Axes
        Where to draw.
    image : Tensor
        ``(3, H, W)`` in [0, 1].
    heat : Tensor, optional
        ``(h, w)`` in [0, 1].
    title : str
        Text above the image.
    """
    plain = image.detach().cpu().permute(1, 2, 0).numpy()
    axes.imshow(plain if heat is None else overlay(image, heat))
    axes.set_title(title, fontsize=9, y=1)  # a place that is given is not searched for
    axes.set(xticks=(), yticks=())  # those of a hidden axis are measured too, a dozen times
    axes.set_axis_off()


def gallery(
    images: Tensor,
    maps: Mapping[str, Tensor],
    titles: Sequence[str] | None = None,
    keep: float | None = None,
) -> Figure:
    """Draw each image with its maps beside it, every map over the image in grey.

    Parameters
    ----------
    images : Tensor
        ``(B, 3, H, W)`` in [0, 1].
    maps : mapping of str to Tensor
        ``(B, h, w)`` by what made them, or fewer maps, of the first images; each map is scaled to
        [0, 1].
    titles : sequence of str, optional
        A title for each image.
    keep : float, optional
        Percentage of the pixels, the most relevant ones, that is drawn at the map's soft values
        in place of the maps.
    """

    def picture(image: Tensor, heat: Tensor, name: str) -> Picture:
        scaled = _scaled(heat, image)
        if keep is None:
            return image, scaled, name
        return image * keep_top(scaled[None], keep), None, name

    groups: list[Row] = []
    for i, (image, title) in enumerate(zip(images, titles or [""] * len(images), strict=True)):
        made = [
            picture(image, found[i], shown_name(name)) if i < len(found) else None
            for name, found in maps.items()
        ]
        groups.append([(image, None, title), *made])
    return _pictures(_lines(groups))


def backbones_gallery(
    explained: Sequence[tuple[TTAME, Sequence[Mapping[str, Any]], Explanation]],
) -> Figure:
    """Draw images, each with the maps of several backbones beside it (Fig. 14).

    Above each image is its true class where it is known, above each map the classifier, its
    predicted class and its confidence.

    Parameters
    ----------
    explained : sequence of (TTAME, sequence of dict, Explanation)
        Explainer, images as `images.folders` describes them, and its explanation of them.
    """
    backbone, items = explained[0][0].backbone, explained[0][1]
    groups: list[Row] = []
    for i, item in enumerate(items):
        label = backbone.label(item["label"]) if "label" in item else ""
        made: list[Picture] = [(item["image"], None, label)]
        for explainer, own, explanation in explained:
            title = class_titles(explainer.backbone, explanation)[i]
            title = f"{shown_name(explainer.backbone.name)}\n{title}"
            made.append((own[i]["image"], explanation.maps[i], title))
        groups.append(made)
    return _pictures(_lines(groups))


def class_titles(backbone: Backbone, explanation: Explanation) -> list[str]:
    """Title each explained image with its class in words and the confidence in it."""
    return [
        f"{textwrap.shorten(backbone.label(c), 18, placeholder='…')}, {percent(p)}"
        for c, p in zip(explanation.classes.tolist(), explanation.confidences.tolist(), strict=True)
    ]


def picture_columns(columns: Mapping[str, Tensor]) -> Figure:
    """Draw pictures ``(B, 3, H, W)`` in [0, 1] in named columns, a row each (Fig. 4)."""
    rows: list[Row] = []
    for pictures in zip(*columns.values(), strict=True):
        titles = [title * (not rows) for title in columns]  # in the first row alone
        rows.append([(p, None, title) for p, title in zip(pictures, titles, strict=True)])
    return _pictures(rows, largest=2)


def map_strip(image: Tensor, maps: Mapping[str, Tensor], most: int = 7) -> Figure:
    """Draw one image and a row of its maps.

    Parameters
    ----------
    image : Tensor
        ``(3, H, W)`` in [0, 1].
    maps : mapping of str to Tensor
        ``(1, h, w)`` by what was done; the first and the last are always shown.
    most : int
        Number of maps at most, evenly chosen.
    """
    places = {round(i * (len(maps) - 1) / (most - 1)) for i in range(most)}
    names = [name for i, name in enumerate(maps) if i in places]
    # a layer's name is long: a line for each step down
    strip = [(image, _scaled(maps[n][0], image), n.replace(".", ".\n")) for n in names]
    return _pictures([[(image, None, "image"), *strip]])


def _scaled(heat: Tensor, image: Tensor) -> Tensor:
    """Upsample a map to its image and scale it to [0, 1]; one that is constant stays as it is."""
    return enlarged(heat[None].float(), image.shape[-2:])[0]


def _lines(groups: Sequence[Row]) -> list[Row]:
    """Put groups of an image and its maps into lines: several in one, or one in several.

    The further lines of a group begin below its first map, so that the images are a column.
    """
    size = len(groups[0])
    if size <= ACROSS:
        together = ACROSS // size if size < 4 else 1  # four are large enough to look at
        starts = range(0, len(groups), together)
        return [[p for group in groups[i : i + together] for p in group] for i in starts]
    lines: list[Row] = []
    for image, *maps in groups:
        for i in range(0, len(maps), ACROSS - 1):
            lines.append([image if i == 0 else None, *maps[i : i + ACROSS - 1]])
    return lines


def _pictures(rows: Sequence[Row], largest: float = 1.35) -> Figure:
    """Draw rows of pictures, and one slim colour bar above where maps are drawn."""
    columns = max(map(len, rows))
    side = min(largest, (WIDTH - 0.3) / columns)  # inches
    titles = [[_broken(p[2], int(14 * side)) if p else "" for p in row] for row in rows]
    lines = sum(max(title.count("\n") + bool(title) for title in row) for row in titles)
    mapped = any(p and p[1] is not None for row in rows for p in row)
    width, height = side * columns + 0.3, (side + 0.1) * len(rows) + 0.16 * lines + 0.6 * mapped
    figure, axes = plt.subplots(
        len(rows), columns, figsize=(width, height), squeeze=False, layout="constrained"
    )
    for axis in axes.flat:
        axis.set_axis_off()
    for places, row, broken in zip(axes, rows, titles, strict=True):
        for axis, picture, title in zip(places, row, broken, strict=False):
            if picture:
                show_image(axis, picture[0], picture[1], title)
    if mapped:
        colours = LinearSegmentedColormap.from_list("map", COLOURS)
        scale = plt.cm.ScalarMappable(plt.Normalize(0, 1), colours)
        place: dict[str, Any] = {"location": "top", "shrink": min(3 / width, 0.9)}
        bar = figure.colorbar(scale, ax=axes, aspect=30, pad=0.1 / height, **place)
        bar.set_label("relevance (scaled)")
        bar.outline.set_visible(False)
    return figure


def _broken(title: str, width: int) -> str:
    """Break a title into lines of so many characters."""
    return "\n".join(textwrap.fill(line, width) for line in title.splitlines())
