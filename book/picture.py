"""Draw README's picture: scikit-image's cat, and the maps of its three first classes.

python book/picture.py
"""

from pathlib import Path

import ttame_core as tt
from ttame_book.demo.photographs import package_folder
from ttame_book.report.charts import theme
from ttame_core.files import atomic_path

if __name__ == "__main__":
    theme()
    explainer = tt.load_explainer("efficientnet_lite0")
    photo = package_folder("skimage") / "data" / "chelsea.png"
    figure = explainer(photo, 3).plot()
    with atomic_path(Path(__file__).parent / "_static" / "cat.png") as path:
        figure.savefig(path, dpi=100, metadata={"Software": None})
