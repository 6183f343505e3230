"""Ready-made explainers: trained once, shipped with the package or in a file of one's own."""

import json
from pathlib import Path
from typing import Any

from ttame_core.backbones import load_backbone
from ttame_core.errors import TTAMEError, nearest
from ttame_core.explainer import TTAME
from ttame_core.zoo import HUGGING_FACE

SHIPPED = Path(__file__).parent / "explainers"


def shipped_explainers() -> list[str]:
    """Name the classifiers whose explainers come with the package."""
    return sorted(file.stem for file in SHIPPED.glob("*.safetensors"))


def load_explainer(
    name: str | Path, weights: str | Path | None = "DEFAULT", **options: Any
) -> TTAME:
    """Load a trained explainer together with its classifier, whose preprocessing and number of classes the file tells.

    Parameters
    ----------
    name : str or Path
        A classifier whose explainer comes with the package (`shipped_explainers`; its model card lies beside
        it), or a file written by `TTAME.save`.
    weights : str or Path or None
        Of the classifier; see `load_backbone`.
    **options
        Further arguments of `load_backbone`.

    Returns
    -------
    TTAME
        In evaluation mode; call it with images, or with the path of a photograph.

    Raises
    ------
    TTAMEError
        If there is no such explainer, its classifier cannot be loaded by name, or it belongs to one with other weights.
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
    classifier, taps = about["backbone"], json.loads(about["taps"])
    preprocessing = _preprocessing(about) | options.pop("preprocessing", {})
    if not classifier.startswith(("demo_", HUGGING_FACE)):  # these know theirs
        options.setdefault("num_classes", int(about["num_classes"]))
    try:
        backbone = load_backbone(
            classifier,
            weights,
            taps,
            masking=about["masking"],
            preprocessing=preprocessing,
            **options,
        )
    except TTAMEError as error:
        raise TTAMEError(
            f"the classifier {classifier!r} of {file} cannot be loaded: {error}; "
            "or, where it was trained with weights other than the published ones, give their file as weights; "
            "or make it a tt.Backbone yourself, and call tt.TTAME.load(file, backbone)"
        ) from error
    return TTAME.load(file, backbone)


def _preprocessing(about: dict[str, str]) -> dict[str, Any]:
    """Read the fields of `Preprocessing` out of an explainer's metadata."""
    fields = json.loads(about.get("preprocessing", "{}"))
    return {key: tuple(v) if isinstance(v, list) else v for key, v in fields.items()}
