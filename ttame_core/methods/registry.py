"""The registry of compared methods: a line for each. Needs no torch, and imports none of them."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Rival:
    """A compared method: module and function that make it, and what sets it apart.

    A ``costly`` one takes an image at a time, and long; a ``control`` ignores the classifier.
    """

    made_by: str
    costly: bool = False
    control: bool = False


METHODS = {
    "grad-cam": Rival("ttame_core.methods.cams:grad_cam"),
    "grad-cam++": Rival("ttame_core.methods.cams:grad_cam_plus_plus"),
    "layer-cam": Rival("ttame_core.methods.cams:layer_cam"),
    "score-cam": Rival("ttame_core.methods.cams:score_cam", costly=True),
    "ablation-cam": Rival("ttame_core.methods.cams:ablation_cam", costly=True),
    "rise": Rival("ttame_core.methods.rise:rise", costly=True),
    "iia": Rival("ttame_core.methods.iia:iia", costly=True),
    "transformer-lrp": Rival("ttame_core.methods.transformer_lrp:transformer_lrp", costly=True),
    "attention-rollout": Rival("ttame_core.methods.vit_attention:attention_rollout"),
    "integrated-gradients": Rival("ttame_core.methods.gradients:integrated_gradients", costly=True),
    "brightness": Rival("ttame_core.methods.controls:brightness", control=True),
    "random": Rival("ttame_core.methods.controls:random_map", control=True),
    "all-ones": Rival("ttame_core.methods.controls:all_ones", control=True),
}
"""The compared methods, by name."""
LIBRARIES = {
    "grad-cam": Rival("ttame_core.methods.adapters:of_grad_cam", costly=True),
    "captum": Rival("ttame_core.methods.adapters:of_captum", costly=True),
}
"""Libraries each of whose classes is a method: ``grad-cam:HiResCAM``, ``captum:Occlusion``."""
OF_LIBRARIES = rf"^({'|'.join(LIBRARIES)}):\w+\Z"
"""What the names of these look like."""


def rival(name: str) -> Rival | None:
    """Look a method up by its name; None if there is none, or no such library."""
    library, _, of_class = name.partition(":")
    return LIBRARIES.get(library) if of_class else METHODS.get(name)


CONTROLS = tuple(name for name, rival in METHODS.items() if rival.control)
"""Those that are shown in every table and do not compete."""
