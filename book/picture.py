"""Draw the pictures of README and of the book's first page: scikit-image's cat and coffee.

python book/picture.py

Takes a minute on one core of a CPU, as RISE asks the classifier 4,000 times.
"""

from pathlib import Path

import matplotlib.pyplot as plt
import torch
from matplotlib.figure import Figure

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


def first_page(explainer: tt.TTAME, photo: Path) -> Figure:
    """Draw a photograph, its map by three methods, and what the top of each map leaves."""
    backbone = explainer.backbone
    found = explainer(photo)
    image, classes = found.images, found.classes
    figure, axes = plt.subplots(2, 4, figsize=(9, 5.2), layout="constrained")
    (sure,) = found.confidences.tolist()
    show_image(axes[0, 0], image[0], title=f"{backbone.label(int(classes))}, {percent(sure)} sure")
    axes[1, 0].set_axis_off()
    words = f"the top {KEPT} % of each map,\nall else black: how sure\nthe classifier is then"
    axes[1, 0].text(0.5, 0.5, words, ha="center", va="center", fontsize=11)
    for column, (name, (made, options)) in enumerate(METHODS.items(), start=1):
        own = tt.method(made, backbone, **options) if made else explainer.explain
        maps = enlarged(own(image, classes), image.shape[-2:])
        kept = keep_top(maps, KEPT)
        with torch.no_grad():
            left = backbone(image, kept).softmax(1)[0, classes].item()
        passes = options.get("masks", 1)
        plural = "forward passes" if passes > 1 else "forward pass"
        backward = ", one back" if name == "Grad-CAM" else ""
        show_image(axes[0, column], image[0], maps[0], f"{name}\n{passes:,} {plural}{backward}")
        show_image(axes[1, column], image[0] * kept[0], title=f"{percent(left)} sure")
    for axis in axes.flat:
        axis.title.set_fontsize(11)
    return figure


def main() -> None:
    """Draw both."""
    theme()
    explainer = tt.load_explainer("efficientnet_lite0")
    photos = package_folder("skimage") / "data"
    drawn = {"cat.png": (explainer(photos / "chelsea.png", 3).plot(), 100)}
    drawn["answer.png"] = (first_page(explainer, photos / "coffee.png"), 160)
    for name, (figure, dpi) in drawn.items():
        with atomic_path(STATIC / name) as path:
            figure.savefig(path, dpi=dpi, metadata={"Software": None})


if __name__ == "__main__":
    main()
