"""What methods and classifiers are called in figures, and which methods a figure puts in colour."""

from collections.abc import Iterable

import pandas as pd

from ttame_core.methods.registry import CONTROLS
from ttame_core.metrics.measures import direction
from ttame_core.recipes import OURS

NAMES = {
    "t-tame": "T-TAME",
    "t-tame-matched": "T-TAME, matched masks",
    "t-tame-warm-matched": "T-TAME, warm and matched",
    "t-tame-rise": "T-TAME, amortised RISE",
    "t-tame-top": "T-TAME, top masks",
    "l-cam-img": "L-CAM-Img",
    "grad-cam": "Grad-CAM",
    "grad-cam++": "Grad-CAM++",
    "layer-cam": "LayerCAM",
    "score-cam": "Score-CAM",
    "ablation-cam": "Ablation-CAM",
    "rise": "RISE",
    "iia": "IIA",
    "transformer-lrp": "Transformer LRP",
    "attention-rollout": "Attention rollout",
    "integrated-gradients": "Integrated gradients",
    "brightness": "Brightness (control)",
    "random": "Random map (control)",
    "all-ones": "All ones (control)",
    "demo_vgg": "Small VGG",
    "demo_resnet": "Small ResNet",
    "demo_vit": "Small ViT",
    "efficientnet_lite0": "EfficientNet-Lite0",
    "squeezenet1_1": "SqueezeNet 1.1",
    "vit_ti_16": "ViT-Tiny",
    "vgg16": "VGG-16",
    "resnet50": "ResNet-50",
    "vit_b_16": "ViT-B/16",
}
"""Names for people, by those in tables of scores and in configurations."""

RECIPE, VARIANT, RISE, GRAD_CAM, OTHER = ROLES = (
    "T-TAME, the paper's recipe",
    "T-TAME, best variant",
    "RISE",
    "Grad-CAM",
    "best other rival",
)
"""What is in colour in a figure of all methods: all else is grey."""
FEW = 0.8  # share of the images that the most scored method has: what has fewer is not the best


def shown_name(name: str) -> str:
    """Return what a name, or the part before its comma, is called; else itself."""
    first, comma, rest = name.partition(", ")
    return NAMES.get(name) or f"{NAMES.get(first, first)}{comma}{rest}"


def rivals_of(names: Iterable[str]) -> list[str]:
    """Return those of some methods that are neither T-TAME nor a control, in their order."""
    return [name for name in dict.fromkeys(names) if name not in (*OURS, *CONTROLS)]


def cast_roles(means: pd.DataFrame, measure: str = "ad", v: float = 50) -> dict[str, str]:
    """Find the methods that a figure of one classifier puts in colour.

    The best variant of T-TAME and the best other rival are those with the best mean of a measure;
    methods scored on far fewer images than the others are no best ones.

    Parameters
    ----------
    means : DataFrame
        As `intervals.means_table` returns it, of one classifier.
    measure : str
        Measure by which the best are found.
    v : float
        Its percentage.

    Returns
    -------
    dict
        Methods by their role, in the order of `ROLES`; a role that no method can take is left out.
    """
    rows = means[(means["measure"] == measure) & (means["v"] == v)].set_index("method")
    found = {RECIPE: "t-tame", RISE: "rise", GRAD_CAM: "grad-cam"}
    goodness = direction(measure) * rows["mean"][rows["n"] > FEW * rows["n"].max()].dropna()
    rest = [name for name in goodness.index if name not in found.values()]
    own = [name for name in rest if name in OURS]
    for role, names in ((VARIANT, own), (OTHER, rivals_of(rest))):
        if names:
            found[role] = str(goodness[names].idxmax())
    return {role: found[role] for role in ROLES if found.get(role) in rows.index}
