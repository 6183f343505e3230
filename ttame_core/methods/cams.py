"""Class activation maps through the grad-cam library."""

import torch
from pytorch_grad_cam import GradCAM
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from torch import Tensor, nn

from ttame_core.backbones import Backbone
from ttame_core.errors import TTAMEError
from ttame_core.layers import to_grid, unwrap_logits
from ttame_core.masking import minmax


class _Logits(nn.Module):
    """A classifier that takes images in [0, 1] and returns plain logits, for the library."""

    def __init__(self, backbone: Backbone):
        super().__init__()
        self.backbone = backbone

    def forward(self, images: Tensor) -> Tensor:
        return unwrap_logits(self.backbone.model(self.backbone.standardise(images)))


def target_layer(backbone: Backbone) -> nn.Module:
    """Choose the layer that CAM methods explain (METHOD: last map; ViT: first norm of the last block).

    Parameters
    ----------
    backbone : Backbone
        Any backbone.

    Returns
    -------
    nn.Module
        The last tap; for a transformer that works on tokens, the norm before its last block's attention.

    Raises
    ------
    TTAMEError
        If a transformer's last block has no such norm.
    """
    layer = backbone.model.get_submodule(backbone.taps[-1])
    if not backbone.tokens:
        return layer
    for name in ("ln_1", "norm1", "layernorm_before"):
        if hasattr(layer, name):
            return getattr(layer, name)
    raise TTAMEError(
        f"no norm before the attention found in {backbone.taps[-1]!r} of {backbone.name}; "
        "tap the output of its last transformer block"
    )


def grad_cam(backbone: Backbone):
    """Make Grad-CAM (Selvaraju et al., ICCV 2017) ready for a backbone.

    The library upsamples its maps to the image's size with OpenCV and scales each to [0, 1].

    Parameters
    ----------
    backbone : Backbone
        The classifier to be explained.

    Returns
    -------
    callable
        ``(images, classes) -> maps`` ``(B, H, W)`` in [0, 1].
    """
    layer = target_layer(backbone)
    name = type(layer).__name__

    def explain(images: Tensor, classes: Tensor) -> Tensor:
        targets = [ClassifierOutputTarget(int(c)) for c in classes]
        with (
            torch.enable_grad(),
            GradCAM(_Logits(backbone), [layer], lambda out: to_grid(out, name)) as cam,
        ):
            maps = cam(images.clone().requires_grad_(), targets)
        return minmax(torch.as_tensor(maps).to(images))

    return explain
