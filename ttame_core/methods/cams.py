"""Class activation maps weighted by gradients, through the grad-cam library at the cost of one forward."""

from collections.abc import Callable

import torch
from pytorch_grad_cam import GradCAM, GradCAMPlusPlus, LayerCAM
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from torch import Tensor, nn

from ttame_core.backbones import Backbone
from ttame_core.layers import replaced_output, unwrap_logits
from ttame_core.masking import minmax
from ttame_core.taps import attention_norm


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
    NotServedError
        If a transformer's last block has no such norm.
    """
    last = backbone.taps[-1]
    return backbone.model.get_submodule(
        attention_norm(backbone.model, last) if backbone.tokens else last
    )


def grad_cam(backbone: Backbone) -> Callable[[Tensor, Tensor], Tensor]:
    """Make Grad-CAM (Selvaraju et al., ICCV 2017) ready for a backbone.

    The library on its own differentiates the whole classifier, at the cost of about three forwards; here the
    graph starts at the target layer, for the same maps at the cost of one. It upsamples its maps to the image's
    size with OpenCV and scales each to [0, 1].

    Parameters
    ----------
    backbone : Backbone
        The classifier to be explained.

    Returns
    -------
    callable
        ``(images, classes) -> maps`` ``(B, H, W)`` in [0, 1].
    """
    return _from_library(GradCAM, backbone)


def grad_cam_plus_plus(backbone: Backbone) -> Callable[[Tensor, Tensor], Tensor]:
    """Make Grad-CAM++ (Chattopadhay et al., WACV 2018) ready for a backbone; see `grad_cam`."""
    return _from_library(GradCAMPlusPlus, backbone)


def layer_cam(backbone: Backbone) -> Callable[[Tensor, Tensor], Tensor]:
    """Make LayerCAM (Jiang et al., TIP 2021) ready for a backbone; see `grad_cam`."""
    return _from_library(LayerCAM, backbone)


def _from_library(cam_class: type, backbone: Backbone) -> Callable[[Tensor, Tensor], Tensor]:
    layer = target_layer(backbone)

    def explain(images: Tensor, classes: Tensor) -> Tensor:
        targets = [ClassifierOutputTarget(int(c)) for c in classes]
        with (
            torch.enable_grad(),
            replaced_output(layer, lambda output: output.detach().requires_grad_()),
            cam_class(_Logits(backbone), [layer], backbone.grid) as cam,
            replaced_output(layer, torch.clone),  # for layers behind it that work in place
        ):
            maps = cam(images, targets)
            cam.outputs = None  # or the graph would hold itself through the library's hooks
        return minmax(torch.as_tensor(maps).to(images))

    return explain
