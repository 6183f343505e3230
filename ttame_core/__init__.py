"""T-TAME (arXiv 2403.04523): a trainable attention mechanism that explains image classifiers.

>>> import ttame_core as tt
>>> backbone = tt.load_backbone("resnet50", weights="DEFAULT")
>>> explainer = tt.TTAME(backbone)
>>> history = tt.train(explainer, images)  # doctest: +SKIP
>>> maps = explainer.explain(images)  # doctest: +SKIP
"""

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any

__version__ = "0.1.0"


def lazy(
    package: str, modules: Mapping[str, tuple[str, ...]], extra: str = ""
) -> tuple[Callable[[str], Any], Callable[[], list[str]], list[str]]:
    """Make a package's ``__getattr__``, ``__dir__`` and ``__all__``: names load at first use.

    ``extra`` is what to install where a module that one needs is missing.
    """
    module_of = {name: module for module, names in modules.items() for name in names}

    def find(name: str) -> Any:
        if name not in module_of:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        try:
            module = import_module(f"{package}.{module_of[name]}")
        except ModuleNotFoundError as error:
            if extra:
                error.add_note(f"{package}.{name} needs what pip install '{extra}' brings")
            raise
        return module if name == module_of[name] else getattr(module, name)

    return find, lambda: sorted(module_of), sorted(module_of)


MODULES = {
    "attention": ("AttentionMechanism",),
    "authors": ("load_released",),
    "classifiers.backbone": ("Backbone",),
    "classifiers.loading": ("list_taps", "load_backbone"),
    "errors": ("TTAMEError",),
    "explainer": ("TTAME",),
    "images.explanation": ("Explanation",),
    "images.folders": ("ImageFolder",),
    "images.reading": ("Preprocessing", "read_image"),
    "losses": ("ttame_loss",),
    "masking": ("keep_top", "mask_images", "masking", "minmax", "select_top"),
    "methods": ("methods",),
    "methods.library": ("method",),
    "methods.registry": ("CONTROLS", "METHODS"),
    "metrics": ("metrics",),
    "metrics.costs": ("explanation_costs",),
    "metrics.imputation": ("impute", "mean_fill"),
    "metrics.measures": ("AVERAGES", "CURVES", "LOCALISATION", "MASKING", "MEASURES", "ROAD"),
    "metrics.scores": ("evaluate", "score_batch"),
    "pretrained": ("load_explainer",),
    "progress": ("Progress",),
    "recipes": ("OURS", "VARIANTS", "LossWeights", "Recipe"),
    "training": ("train", "train_together"),
}
"""The module of each name that the package offers."""
__getattr__, __dir__, __all__ = lazy(__name__, MODULES)
