"""The compared methods, behind one registry and one call: ``METHODS[name](backbone)(images, classes)``."""

from collections.abc import Callable
from typing import Any

from torch import Tensor

from ttame_core.backbones import Backbone
from ttame_core.configuration import TRAINED
from ttame_core.errors import TTAMEError, nearest
from ttame_core.methods.cams import grad_cam, grad_cam_plus_plus, layer_cam
from ttame_core.methods.channels import ablation_cam, score_cam
from ttame_core.methods.controls import all_ones, brightness, random_map
from ttame_core.methods.iia import iia
from ttame_core.methods.integrated_gradients import integrated_gradients
from ttame_core.methods.rise import rise
from ttame_core.methods.transformer_lrp import transformer_lrp
from ttame_core.methods.transformers import attention_rollout

Method = Callable[[Tensor, Tensor], Tensor]
"""``images (B, 3, H, W), classes (B,) -> maps (B, h, w)`` in [0, 1]."""

METHODS: dict[str, Callable[..., Method]] = {
    "grad-cam": grad_cam,
    "grad-cam++": grad_cam_plus_plus,
    "layer-cam": layer_cam,
    "score-cam": score_cam,
    "ablation-cam": ablation_cam,
    "rise": rise,
    "iia": iia,
    "transformer-lrp": transformer_lrp,
    "attention-rollout": attention_rollout,
    "integrated-gradients": integrated_gradients,
    "brightness": brightness,
    "random": random_map,
    "all-ones": all_ones,
}
CONTROLS = ("brightness", "random", "all-ones")
"""Maps that know nothing of the classifier; shown in every table, they do not compete."""


def method(name: str, backbone: Backbone, **options: Any) -> Method:
    """Make a compared method ready for a backbone.

    Parameters
    ----------
    name : str
        A key of `METHODS`.
    backbone : Backbone
        The classifier to be explained.
    **options
        Passed on to the method's own function: its size, its seed, its chunk.

    Returns
    -------
    callable
        ``(images, classes) -> maps``.

    Raises
    ------
    TTAMEError
        If the name is unknown, it takes no such option, or it cannot serve the backbone.
    """
    if name not in METHODS:
        raise TTAMEError(f"method {name!r} is unknown; {nearest(name, [*TRAINED, *METHODS])}")
    try:
        return METHODS[name](backbone, **options)
    except TypeError as error:
        raise TTAMEError(f"method {name!r} cannot be made with {options}: {error}") from error
