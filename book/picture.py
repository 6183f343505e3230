"""Draw the pictures of README and of the book's first page: scikit-image's cat and coffee.

python book/picture.py

Takes a minute on one core of a CPU, as RISE asks the classifier 4,000 times.
"""

from collections.abc import Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import torch
from matplotlib.figure import Figure
from torch import Tensor

import ttame_core as tt
from ttame_book.demo.photographs import package_folder
from ttame_book.report.charts import theme
from ttame_book.report.maps import show_image
from ttame_core.files import atomic_path
from ttame_core.images.explanation import percent
from ttame_core.masking import enlarged, keep_top

STATIC = Path(__file__).parent / "_static"
KEPT = 15  # per cent
METHODS = {
    "T-TAME, top masks": ("", {}),
    "RISE": ("rise", {"masks": 4000}),
    "Grad-CAM": ("grad-cam", {}),
}


def first_page(explainer: tt.TTAME, photo: Path) -> list[Figure]:
    """Draw a photograph, its map by three methods, and what the top of each map leaves.

    Methods are beside each other and, in a second figure for small screens, below each other.
    """
    backbone = explainer.backbone
    found = explainer(photo)
    image, classes = found.images, found.classes
    (sure,) = found.confidences.tolist()
    parts = []  # of each method: its map, what is left, and their titles
    for name, (made, options) in METHODS.items():
        own = tt.method(made, backbone, **options) if made else explainer.explain
        maps = enlarged(own(image, classes), image.shape[-2:])
        kept = keep_top(maps, KEPT)
        with torch.no_grad():
            left = backbone(image, kept).softmax(1)[0, classes].item()
        passes = options.get("masks", 1)
        plural = "forward passes" if passes > 1 else "forward pass"
        backward = ", one back" if name == "Grad-CAM" else ""
        title = f"{name}\n{passes:,} {plural}{backward}"
        parts.append((maps[0], title, image[0] * kept[0], f"{percent(left)} sure"))
    label = f"{backbone.label(int(classes))}, {percent(sure)} sure"
    return [_drawn(image[0], label, parts, narrow) for narrow in (False, True)]


def _drawn(image: Tensor, label: str, parts: Sequence[tuple], narrow: bool) -> Figure:
    """Draw the parts of each method in a column, or in a row."""
    shape, size = ((4, 2), (4.7, 10.4)) if narrow else ((2, 4), (9, 5.2))
    figure, axes = plt.subplots(*shape, figsize=size, layout="constrained")
    (photograph, words), *places = axes if narrow else axes.T
    show_image(photograph, image, title=label)
    words.set_axis_off()
    told = f"the top {KEPT} % of each map,\nall else black: how sure\nthe classifier is then"
    words.text(0.5, 0.5, told, ha="center", va="center", fontsize=11)
    for (above, below), (each, title, kept, sure) in zip(places, parts, strict=True):
        show_image(above, image, each, title)
        show_image(below, kept, title=sure)
    for axis in axes.flat:
        axis.title.set_fontsize(11)
    return figure


def main() -> None:
    """Draw both."""
    theme()
    explainer = tt.load_explainer("efficientnet_lite0")
    photos = package_folder("skimage") / "data"
    wide, narrow = first_page(explainer, photos / "coffee.png")
    drawn = {"cat.png": (explainer(photos / "chelsea.png", 3).plot(), 100)}
    drawn |= {"answer.png": (wide, 160), "narrow/answer.png": (narrow, 160)}
    for name, (figure, dpi) in drawn.items():
        (STATIC / name).parent.mkdir(exist_ok=True)
        with atomic_path(STATIC / name) as path:
            figure.savefig(path, dpi=dpi, metadata={"Software": None})


if __name__ == "__main__":
    main()
