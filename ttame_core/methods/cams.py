"""Class activation maps: channels of one layer weighed by gradients, or by trying each."""

from functools import partial

import torch
from torch import Tensor, nn

from ttame_core.classifiers.backbone import Backbone, batch_that_suits
from ttame_core.classifiers.hooks import replaced_output, unwrap_logits
from ttame_core.classifiers.taps import attention_norm
from ttame_core.errors import needed
from ttame_core.masking import minmax, upsample
from ttame_core.methods import EXTRA, Method
from ttame_core.progress import Tell


def target_layer(backbone: Backbone) -> nn.Module:
    """Choose the layer that CAM methods explain.

    It is the last tap; for a transformer on tokens, the norm before its last block's attention. A
    `NotServedError` is raised if there is no such norm.
    """
    model, last = backbone.model, backbone.taps[-1]
    # behind that block's attention only the class token is read: patches would get no gradient
    return model.get_submodule(attention_norm(model, last) if backbone.tokens else last)


def grad_cam(backbone: Backbone) -> Method:
    """Grad-CAM (Selvaraju et al., ICCV 2017), through the grad-cam library; maps ``(B, H, W)``."""
    return _from_library("GradCAM", backbone)


def grad_cam_plus_plus(backbone: Backbone) -> Method:
    """Grad-CAM++ (Chattopadhay et al., WACV 2018); see `grad_cam`."""
    return _from_library("GradCAMPlusPlus", backbone)


def layer_cam(backbone: Backbone) -> Method:
    """LayerCAM (Jiang et al., TIP 2021); see `grad_cam`."""
    return _from_library("LayerCAM", backbone)


class _Logits(nn.Module):
    """A classifier that takes images in [0, 1] and returns plain logits, for the library."""

    def __init__(self, backbone: Backbone):
        super().__init__()
        self.backbone = backbone

    def forward(self, images: Tensor) -> Tensor:
        return unwrap_logits(self.backbone.model(self.backbone.standardise(images)))


def _from_library(name: str, backbone: Backbone) -> Method:
    """Make a method of a class of the grad-cam library's."""
    library = needed("pytorch_grad_cam", EXTRA, f"{name}, a class of the grad-cam library,")
    targets = needed("pytorch_grad_cam.utils.model_targets", EXTRA, name)
    cam_class = getattr(library, name)
    layer = target_layer(backbone)

    def explain(images: Tensor, classes: Tensor) -> Tensor:
        wanted = [targets.ClassifierOutputTarget(int(c)) for c in classes]
        # the graph starts at the target layer, for the same maps at the cost of one forward; the
        # library on its own differentiates the whole classifier, at the cost of about three
        with (
            torch.enable_grad(),
            replaced_output(layer, lambda output: output.detach().requires_grad_()),
            cam_class(_Logits(backbone), [layer], backbone.grid) as cam,
            replaced_output(layer, torch.clone),  # for layers behind it that work in place
        ):
            maps = cam(images, wanted)
            cam.outputs = None  # or the graph would hold itself through the library's hooks
        return minmax(torch.as_tensor(maps).to(images))

    return explain


def score_cam(backbone: Backbone, chunk: int | None = None, progress: Tell | None = None) -> Method:
    """Score-CAM (Wang et al., CVPRW 2020), maps at the target layer's size.

    Each channel of the target layer, upsampled and scaled to [0, 1], masks the image by the
    backbone's own procedure; the softmax over channels of the class's logits weighs them. The
    grad-cam library gives the same maps if it upsamples with half-pixel centres, as PyTorch does;
    its default aligns corners, and it builds all masked images at once, gigabytes for a ResNet-50.
    """
    layer = target_layer(backbone)

    @torch.no_grad()
    def explain(images: Tensor, classes: Tensor) -> Tensor:
        activations = backbone.output_of(layer, images)  # (B, C, h, w)
        maps: list[Tensor] = []
        for image, maps_of_image, c in zip(images, activations, classes, strict=True):
            # channels that are constant over an image, of a rectified layer often a third, share
            # one forward: each scales to an empty mask
            varied = maps_of_image.amax((1, 2)) > maps_of_image.amin((1, 2))  # (C,)
            tried = torch.cat([maps_of_image[varied], maps_of_image[~varied][:1]])
            logits = []
            for part in tried.split(chunk or batch_that_suits(images)):
                masks = minmax(upsample(part[None], image.shape[-2:])[0])  # (n, H, W)
                logits.append(backbone(image.expand(len(part), -1, -1, -1), masks)[:, c])
            position = torch.where(varied, varied.cumsum(0) - 1, varied.sum())
            weights = torch.cat(logits)[position].softmax(0)  # (C,)
            maps.append(torch.einsum("c,chw->hw", weights, maps_of_image).relu())
            if progress:
                progress(len(maps), len(images))
        return minmax(torch.stack(maps))

    return explain


def ablation_cam(backbone: Backbone, chunk: int = 128, progress: Tell | None = None) -> Method:
    """Ablation-CAM (Desai & Ramaswamy, WACV 2020), maps at the target layer's size.

    A channel weighs what share of the class's logit goes when it is set to zero, where the grad-cam
    library sets channels that are not rectified, a ViT's, to -1e7; ``chunk`` counts channels.
    """
    layer = target_layer(backbone)

    @torch.no_grad()
    def explain(images: Tensor, classes: Tensor) -> Tensor:
        activations = backbone.output_of(layer, images)  # (B, C, h, w)
        count = activations.shape[1]
        maps: list[Tensor] = []
        for image, maps_of_image, c in zip(images, activations, classes, strict=True):
            shares = []
            for part in torch.arange(count, device=images.device).split(chunk):
                # one image in, its variants out of the target layer: only what lies behind that
                # layer runs for each channel, which on a CNN costs a few forwards in all
                edit = partial(without_channels, channels=part, count=count)
                with replaced_output(layer, edit):
                    whole, *_ = logits = backbone(image[None])[:, c]
                shares.append((whole - logits[1:]) / whole)  # all of one batch, to round alike
            weights = torch.cat(shares)  # (C,)
            maps.append(torch.einsum("c,chw->hw", weights, maps_of_image).relu())
            if progress:
                progress(len(maps), len(images))
        return minmax(torch.stack(maps))

    return explain


def without_channels(output: Tensor, channels: Tensor, count: int) -> Tensor:
    """Repeat a layer's output, first as it is, then with one channel at zero in each copy.

    Takes ``(1, C, h, w)``, ``(1, h, w, C)`` or ``(1, N, C)``, the channels ``(n,)`` to ablate and
    C; gives ``(1 + n, ...)``.
    """
    keep = 1 - torch.nn.functional.one_hot(channels, count).to(output)  # (n, C)
    keep = torch.cat([torch.ones_like(keep[:1]), keep])
    if output.ndim == 4 and output.shape[1] == count:
        keep = keep[:, :, None, None]
    else:
        keep = keep.view(len(keep), *[1] * (output.ndim - 2), count)
    return output * keep
