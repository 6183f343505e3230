"""How good is a map?"""

from ttame_core import lazy

MODULES = {
    "measures": (
        "CURVES",
        "MASKING",
        "MEASURES",
        "ROAD",
        "average_drop",
        "energy_inside",
        "increase_in_confidence",
        "invalid_maps",
        "percent",
        "pointing_game",
    ),
    "scores": ("evaluate", "score_batch"),
}
__getattr__, __dir__, __all__ = lazy(__name__, MODULES)
