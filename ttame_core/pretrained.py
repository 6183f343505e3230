"""Explainers trained once: those that come with the package, and files of one's own."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ttame_core.classifiers.loading import load_backbone, takes_num_classes
from ttame_core.errors import TTAMEError, check_kind, nearest
from ttame_core.explainer import PATH, TTAME
from ttame_core.images.reading import Preprocessing

SHIPPED = Path(__file__).parent / "explainers"


def shipped_explainers() -> list[str]:
    """Name the classifiers whose explainers come with the package."""
    return sorted(file.stem for file in SHIPPED.glob("*.safetensors"))


def load_explainer(name: str | Path, weights: Any = "DEFAULT", **options: Any) -> TTAME:
    """Load a trained explainer, in evaluation mode, with the classifier that its file tells.

    Parameters
    ----------
    name : str or Path
        A classifier whose explainer comes with the package (`shipped_explainers`; its model card
        lies beside it), or a file written by `TTAME.save`.
    weights, **options
        The classifier's; see `load_backbone`.

    Raises
    ------
    TTAMEError
        If there is none, or its classifier cannot be loaded by name or has other weights.
    """
    check_kind("name", name, PATH, "a ready-made explainer's name, or a file that TTAME.save wrote")
    own = Path(name).is_file() or Path(name).suffix == ".safetensors"
    file = Path(name) if own else SHIPPED / f"{name}.safetensors"
    if not file.is_file() and own:
        raise TTAMEError(f"there is no explainer at {name}; correct the path")
    if not file.is_file():
        known = nearest(str(name), shipped_explainers())
        raise TTAMEError(
            f"there is no ready-made explainer {str(name)!r}; {known}; or give a file that TTAME.save wrote"
        )
    about = TTAME.metadata(file)
    classifier, taps = about["backbone"], json.loads(about["taps"])
    try:
        if takes_num_classes(classifier):  # the others know theirs
            options.setdefault("num_classes", int(about["num_classes"]))
    except TTAMEError as error:
        raise TTAMEError(
            f"the classifier of {file} cannot be loaded: {error}. It goes by no name that is known here: make it a "
            "tt.Backbone yourself, and call tt.TTAME.load(file, backbone)"
        ) from error
    given = options.get("preprocessing") or {}
    given = asdict(given) if isinstance(given, Preprocessing) else given
    options["preprocessing"] = json.loads(about.get("preprocessing", "{}")) | dict(given)
    try:
        backbone = load_backbone(classifier, weights, taps, masking=about["masking"], **options)
    except TTAMEError as error:
        raise TTAMEError(
            f"the classifier {classifier!r} of {file} cannot be loaded: {error}"
        ) from error
    return TTAME.load(file, backbone)
