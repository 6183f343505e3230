"""Images that may be shown, their maps, and what masking by these leaves of the confidence.

The data of the book's explorer, in which a reader drags v and the page masks the image itself.
"""

import io
import json
from base64 import b64encode
from typing import Any

import torch
from torch import Tensor
from torchvision.transforms.functional import to_pil_image

from ttame_book.demo.photographs import package_folder
from ttame_book.editions.edition import Edition
from ttame_book.studies.comparison import compared_methods
from ttame_core.classifiers.backbone import Backbone
from ttame_core.images.batches import stack
from ttame_core.images.folders import evenly
from ttame_core.images.reading import read_image
from ttame_core.methods.registry import rival
from ttame_core.metrics.perturbations import perturbed_confidences

SHARES = (*range(100, 10, -10), 15, 10, 5)
"""Percentages v at which confidences are computed; a page shows the one nearest to its v."""
SHOWN = ("t-tame", "t-tame-top", "l-cam-img", "grad-cam", "rise", "iia", "transformer-lrp")
"""Methods that are shown where an edition compares them: of each family of methods one."""
PHOTOGRAPHS = {"cat": "chelsea.png", "coffee": "coffee.png", "rocket": "rocket.jpg"}
"""Photographs of scikit-image's in the public domain, which any page may show."""
TRAINED_ON = " The explainer was trained on crops of them."
DIGITS = "Digits are scikit-learn's, pasted on photographs."
OF_PACKAGES = "Photographs: scikit-image, in the public domain (CC0)."


def explored_text(edition: Edition) -> str:
    """Write what `explored` tells of each backbone of an edition, and `SHARES`, as JSON.

    A backbone is left out where none of `SHOWN` is compared.
    """
    told = {name: explored(edition, edition.backbone(name)) for name in edition.backbones}
    classifiers = {name: found for name, found in told.items() if found["images"][0]["methods"]}
    return json.dumps({"shares": SHARES, "classifiers": classifiers}, separators=(",", ":")) + "\n"


def explored(edition: Edition, backbone: Backbone, count: int = 5) -> dict[str, Any]:
    """Explain images on a backbone by several methods, as the page's script reads it.

    The images are digits that the evaluation has scored, or `PHOTOGRAPHS` for a classifier of
    photographs, whose own images are not to be passed on; costly methods are left out on these.
    Maps are rounded to eight bits before they mask, so that a confidence is that of what is shown.

    Parameters
    ----------
    edition : Edition
        What is compared, with trained explainers.
    backbone : Backbone
        One of its backbones.
    count : int
        Number of images at most, where they are digits.

    Returns
    -------
    dict
        ``masking`` and ``mean`` of the backbone, a ``note``, and ``images``: of each the name, the
        picture as data URI, the ``classes`` predicted and runner-up with their confidences in
        [0, 1], and for each of ``methods``, for each of the classes, the ``map`` as data URI and
        the confidence ``left`` at each of `SHARES`.
    """
    kind = edition.config["data"][edition.entry(backbone.name)["data"]]["kind"]
    digits = kind == "digits"
    ready, _ = compared_methods(edition, backbone, keep=True)
    names = [name for name in SHOWN if name in ready]
    names = [name for name in names if digits or not getattr(rival(name), "costly", False)]
    # of so few, each is among those that the evaluation took: maps of costly methods are kept
    items: Any = evenly(edition.images(backbone, "test"), count) if digits else _pictures(backbone)
    items = list(items)
    images = stack(items).to(backbone.mean)
    with torch.no_grad():
        top = backbone(images).softmax(1).topk(2)
    confidences, classes = top.values, top.indices  # (B, 2)
    methods = {}
    for name in names:
        found = [_masked(backbone, images, each, ready[name]) for each in classes.T.contiguous()]
        methods[name] = list(zip(*found, strict=True))  # (B, 2) of dict
    trained_on = TRAINED_ON if kind == "photographs" else ""
    return {
        "masking": backbone.masking,
        "mean": [round(float(each), 4) for each in backbone.mean.flatten()],
        "note": DIGITS if digits else OF_PACKAGES + trained_on,
        "images": [
            {
                "name": f"digit {item['label']}" if digits else item["id"],
                "picture": _data_uri(_levels(images[i]), "png" if digits else "jpeg"),
                "classes": [
                    {"name": backbone.label(int(c)), "before": round(float(p), 4)}
                    for c, p in zip(classes[i], confidences[i], strict=True)
                ],
                "methods": {name: found[i] for name, found in methods.items()},
            }
            for i, item in enumerate(items)
        ],
    }


def _pictures(backbone: Backbone) -> list[Any]:
    """Read `PHOTOGRAPHS` as the backbone's weights ask for."""
    folder = package_folder("skimage") / "data"
    crop = backbone.preprocessing.crop
    named = PHOTOGRAPHS.items()
    return [{"image": crop(read_image(folder / file)), "id": name} for name, file in named]


def _masked(backbone: Backbone, images: Tensor, classes: Tensor, method: Any) -> list[dict]:
    """Explain one class of each image, and mask by the map at each of `SHARES`."""
    maps = method(images, classes)
    maps = getattr(maps, "maps", maps).detach()
    levels = _levels(maps)  # (B, h, w)
    wanted = [("masked", v) for v in SHARES]
    left = perturbed_confidences(backbone, images, classes, (levels / 255).to(images), wanted)
    return [
        {"map": _data_uri(level, "png"), "left": [round(float(left[key][i]), 4) for key in wanted]}
        for i, level in enumerate(levels)
    ]


def _levels(values: Tensor) -> Tensor:
    """Round values in [0, 1] to eight bits, uint8; torchvision's pictures would cut them off."""
    return (255 * values).round().byte().cpu()


def _data_uri(levels: Tensor, kind: str) -> str:
    """Write an image ``(3, H, W)`` or a map ``(h, w)``, uint8, as an address that holds it."""
    file = io.BytesIO()
    to_pil_image(levels).save(file, kind, quality=90, optimize=True)
    return f"data:image/{kind};base64,{b64encode(file.getvalue()).decode()}"
