"""Ready-made explainers: trained once, shipped with the package or in a file of one's own."""

import json
from pathlib import Path
from typing import Any

from ttame_core.backbones import load_backbone
from ttame_core.errors import TTAMEError, nearest
from ttame_core.explainer import TTAME

SHIPPED = Path(__file__).parent / "explainers"


def shipped_explainers() -> list[str]:
    """Name the classifiers whose explainers come with the package."""
    return sorted(file.stem for file in SHIPPED.glob("*.safetensors"))


def load_explainer(
    name: str | Path, weights: str | Path | None = "DEFAULT", **options: Any
) -> TTAME:
    """Load a trained explainer together with its classifier.

    Parameters
    ----------
    name : str or Path
        A classifier whose explainer comes with the package (`shipped_explainers`; its model card lies beside
        it), or a file written by `TTAME.save`.
    weights : str or Path or None
        Of the classifier; see `load_backbone`.
    **options
        Further arguments of `load_backbone`: ``preprocessing``, those of the model's constructor.

    Returns
    -------
    TTAME
        In evaluation mode; call it with images, or with the path of a photograph.

    Raises
    ------
    TTAMEError
        If there is no such explainer, or it belongs to a classifier with other weights.
    """
    given = Path(name)
    own = given.is_file() or given.suffix == ".safetensors"
    file = given if own else SHIPPED / f"{name}.safetensors"
    if not file.is_file():
        known = shipped_explainers()
        raise TTAMEError(
            f"there is no ready-made explainer {str(name)!r}; {nearest(str(name), known)}; "
            "or give a file that TTAME.save wrote"
        )
    about = TTAME.metadata(file)
    backbone = load_backbone(
        about["backbone"], weights, json.loads(about["taps"]), masking=about["masking"], **options
    )
    return TTAME.load(file, backbone)
