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
from ttame_core.classifiers.backbone import Backbone
from ttame_core.explainer import TTAME
from ttame_core.images.explanation import COLOURS, Explanation, overlay
from ttame_core.masking import enlarged, keep_top

Picture = tuple[Tensor, Tensor | None, str]
"""What `show_image` draws: an image, perhaps a map, and a title."""
Row = tuple[str, Sequence[Picture]]
"""Its name, and what is beside each other in it."""


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
    axes.set_title(title, fontsize=9)
    axes.set_axis_off()


def gallery(
    images: Tensor,
    maps: Mapping[str, Tensor],
    titles: Sequence[str] | None = None,
    keep: float | None = None,
) -> Figure:
    """Draw images in the first row and each method's maps over them in a row below.

    Parameters
    ----------
    images : Tensor
        ``(B, 3, H, W)`` in [0, 1].
    maps : mapping of str to Tensor
        ``(B, h, w)`` by the name of the row, or fewer maps, of the first images; each map is
        scaled to [0, 1].
    titles : sequence of str, optional
        A title for each image.
    keep : float, optional
        Percentage of the pixels, the most relevant ones, that is drawn at the map's soft values
        in place of the maps.
    """

    def picture(image: Tensor, heat: Tensor) -> Picture:
        scaled = _scaled(heat, image)
        if keep is None:
            return image, scaled, ""
        return image * keep_top(scaled[None], keep), None, ""

    named = zip(images, titles or [""] * len(images), strict=True)
    rows: list[Row] = [("image", [(image, None, title) for image, title in named])]
    for name, found in maps.items():
        rows.append((name, [picture(*pair) for pair in zip(images, found, strict=False)]))
    return _pictures(rows)


def backbones_gallery(
    explained: Sequence[tuple[TTAME, Sequence[Mapping[str, Any]], Explanation]], across: int = 6
) -> Figure:
    """Draw the maps of several backbones for the same images (Fig. 14), a row for each backbone.

    Above each image is its true class where it is known, above each map the predicted class and
    its confidence.

    Parameters
    ----------
    explained : sequence of (TTAME, sequence of dict, Explanation)
        Explainer, images as `images.folders` describes them, and its explanation of them.
    across : int
        Number of images beside each other; more go below, with rows of their own.
    """
    backbone, items = explained[0][0].backbone, explained[0][1]
    labels = [backbone.label(item["label"]) if "label" in item else "" for item in items]
    rows: list[Row] = []
    for start in range(0, len(items), across):
        block = range(start, min(start + across, len(items)))
        rows.append(("image", [(items[i]["image"], None, labels[i]) for i in block]))
        for explainer, own, explanation in explained:
            titles = class_titles(explainer.backbone, explanation)
            drawn = [(own[i]["image"], explanation.maps[i], titles[i]) for i in block]
            rows.append((explainer.backbone.name, drawn))
    return _pictures(rows)


def class_titles(backbone: Backbone, explanation: Explanation) -> list[str]:
    """Title each explained image with its class in words and the confidence in it."""
    return [
        f"{textwrap.shorten(backbone.label(c), 18, placeholder='…')}, {p:.0%}"
        for c, p in zip(explanation.classes.tolist(), explanation.confidences.tolist(), strict=True)
    ]


def picture_columns(columns: Mapping[str, Tensor]) -> Figure:
    """Draw pictures ``(B, 3, H, W)`` in [0, 1] in named columns, a row each (Fig. 4)."""
    rows: list[Row] = []
    for pictures in zip(*columns.values(), strict=True):
        titles = [title * (not rows) for title in columns]  # in the first row alone
        rows.append(("", [(p, None, title) for p, title in zip(pictures, titles, strict=True)]))
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
    return _pictures([("", [(image, None, "image"), *strip])])


def _scaled(heat: Tensor, image: Tensor) -> Tensor:
    """Upsample a map to its image and scale it to [0, 1]; one that is constant stays as it is."""
    return enlarged(heat[None].float(), image.shape[-2:])[0]


def _pictures(rows: Sequence[Row], largest: float = 1.35) -> Figure:
    """Draw rows of pictures, each with its name, and a colour bar above where maps are drawn."""
    columns = max(len(pictures) for _, pictures in rows)
    side = min(largest, (WIDTH - 0.3) / columns)  # inches
    titles = [[_broken(title, int(14 * side)) for *_, title in pictures] for _, pictures in rows]
    lines = sum(max(title.count("\n") + bool(title) for title in row) for row in titles)
    mapped = any(heat is not None for _, pictures in rows for _, heat, _ in pictures)
    width, height = side * columns + 0.3, (side + 0.1) * len(rows) + 0.16 * lines + 0.6 * mapped
    figure, axes = plt.subplots(
        len(rows), columns, figsize=(width, height), squeeze=False, layout="constrained"
    )
    for axis in axes.flat:
        axis.set_axis_off()
    for row, (name, pictures), broken in zip(axes, rows, titles, strict=True):
        beside = {"rotation": 90, "va": "center", "ha": "right", "transform": row[0].transAxes}
        row[0].text(-0.08, 0.5, name, **beside)
        for axis, (image, heat, _), title in zip(row, pictures, broken, strict=False):
            show_image(axis, image, heat, title)
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
