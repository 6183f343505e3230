"""Speed of the perturbation methods against the bare forwards they need, and what every method costs.

python benchmarks/methods.py [--models resnet18 resnet50] [--masks 64] [--repeats 5] [--costs]

Ratios are of medians taken in turn in one process; the bare forwards run at the batch size that suits them best.
The table goes to benchmarks/results/, as methods- and the device's name.
"""

import argparse
from collections.abc import Callable

import pandas as pd
import torch
from captum.attr import LayerGradCam
from gpu import about, in_turn, keep
from pytorch_grad_cam import GradCAM, ScoreCAM
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from torch import Tensor

import ttame_core as tt
from ttame_book.demo.classifiers import DEMO_BACKBONES
from ttame_core.errors import NotServedError
from ttame_core.methods.cams import _Logits, target_layer
from ttame_core.metrics.costs import timed

BATCHES = (1, 4, 8, 16, 32)


def bare(backbone: tt.Backbone, images: Tensor, batch: int) -> None:
    """Run the classifier on images that are ready."""
    with torch.no_grad():
        for part in images.split(batch):
            backbone.logits(part)


def overheads(backbone: tt.Backbone, masks: int, repeats: int) -> list[dict]:
    """RISE and Score-CAM against their bare forwards; Grad-CAM and Score-CAM against grad-cam's."""
    size = backbone.preprocessing.image_size
    image = torch.rand(1, 3, size, size, device=backbone.mean.device)
    c = backbone(image).argmax(1)
    layer = target_layer(backbone)
    module = backbone.model.get_submodule(layer)
    channels = backbone.output_of(layer, image).shape[1]
    ready = torch.rand(32, 3, size, size, device=image.device)
    for _ in range(2):  # the first warms up
        per_image = {b: timed(lambda b=b: bare(backbone, ready, b)) / 32 for b in BATCHES}
    best = min(per_image, key=per_image.__getitem__)
    masked = torch.rand(masks, 3, size, size, device=image.device)
    reshape = backbone.grid if backbone.tokens else None

    def library(kind: type) -> Callable[[], object]:
        def run() -> None:
            with kind(_Logits(backbone, layer), [module], reshape) as cam:
                cam(image.clone().requires_grad_(), [ClassifierOutputTarget(int(c))])

        return run

    rise = tt.method("rise", backbone, masks=masks)
    timings = in_turn(
        {"bare": lambda: bare(backbone, masked, best), "rise": lambda: rise(image, c)}, repeats
    ).median()
    rows = [
        {
            "what": f"RISE, {masks} masks / bare forwards by {best}",
            "ratio": timings["rise"] / timings["bare"],
        }
    ]
    cam = tt.method("score-cam", backbone)
    few = torch.rand(channels, 3, size, size, device=image.device)
    timings = in_turn(
        {
            "bare": lambda: bare(backbone, few, best),
            "score-cam": lambda: cam(image, c),
            "library": library(ScoreCAM),
        },
        repeats,
        warm=1,
    ).median()
    rows.append(
        {
            "what": f"Score-CAM, {channels} channels / bare forwards by {best}",
            "ratio": timings["score-cam"] / timings["bare"],
        }
    )
    rows.append(
        {"what": "Score-CAM: grad-cam's / ours", "ratio": timings["library"] / timings["score-cam"]}
    )
    grad = tt.method("grad-cam", backbone)
    captum = LayerGradCam(backbone.model, module)
    timings = in_turn(
        {
            "bare": lambda: bare(backbone, image, 1),
            "ours": lambda: grad(image, c),
            "library": library(GradCAM),
            "captum": lambda: captum.attribute(backbone.standardise(image), int(c)),
        },
        3 * repeats,
    ).median()
    rows.append({"what": "Grad-CAM / a bare forward", "ratio": timings["ours"] / timings["bare"]})
    rows.append(
        {"what": "Grad-CAM: grad-cam's / ours", "ratio": timings["library"] / timings["ours"]}
    )
    rows.append({"what": "Grad-CAM: captum's / ours", "ratio": timings["captum"] / timings["ours"]})
    return [{"model": backbone.name, **row} for row in rows]


def costs(backbone: tt.Backbone, masks: int) -> pd.DataFrame:
    """What an explanation costs by every method that serves a backbone, RISE with few masks."""
    size = backbone.preprocessing.image_size
    image = torch.rand(1, 3, size, size, device=backbone.mean.device)
    methods = {"t-tame": tt.TTAME(backbone).explain}
    if not backbone.tokens:
        methods["l-cam-img"] = tt.TTAME(backbone, "l_cam_img").explain
    for name in tt.METHODS:
        try:
            methods[name] = tt.method(
                name, backbone, **({"masks": masks} if name == "rise" else {})
            )
        except NotServedError as reason:
            print(f"{name} is left out: {reason}")
    table = tt.explanation_costs(backbone, methods, image, backbone(image).argmax(1))
    return table.assign(model=backbone.name)


def main() -> None:
    """Run what the command line asks for and print each model's table as it is there."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="+", default=["resnet18"])
    parser.add_argument("--masks", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument(
        "--costs", action="store_true", help="measure every method, not only ratios"
    )
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    given = parser.parse_args()
    described = about(torch.device(given.device))
    rows: list[dict] = []
    standard = all(vars(given)[of] == parser.get_default(of) for of in ("models", "masks"))
    standard = standard and given.repeats >= 5
    for name in given.models:
        weights = "DEFAULT" if name in ("efficientnet_lite0", *DEMO_BACKBONES) else None
        backbone = tt.load_backbone(name, weights).to(given.device)
        if given.costs:
            table = costs(backbone, given.masks)
        else:
            rows += overheads(backbone, given.masks, given.repeats)
            keep(described, rows, "methods-", whole=standard and name == given.models[-1])
            table = pd.DataFrame(rows)
        print(table.to_string(index=False, float_format=lambda x: f"{x:.2f}"), flush=True)
    print(described)


if __name__ == "__main__":
    main()
