"""Class activation maps: channels of one layer weighed by gradients, or by trying each."""

from collections.abc import Mapping
from functools import partial
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn

from ttame_core.classifiers.backbone import Backbone
from ttame_core.classifiers.checks import check_chunk
from ttame_core.classifiers.fast import batch_that_suits, fitting
from ttame_core.classifiers.heads import patches_reach
from ttame_core.classifiers.taps import ATTENTION_NORMS
from ttame_core.errors import NotServedError, needed
from ttame_core.masking import minmax, upsample
from ttame_core.methods import EXTRA, Method
from ttame_core.progress import Tell

EMPTY: Mapping[str, Any] = MappingProxyType({})
AT_ONCE = 128
"""Channels that Ablation-CAM tries at once, at most, where only what lies behind them runs."""


def target_layer(backbone: Backbone) -> str:
    """Name the layer that CAM methods explain.

    It is the last tap; for tokens, whatever the taps, the norm before the last block's attention -
    behind that only the class token may be read - or, where patches do not reach the head from
    there, the last layer from which they do. Raises a `NotServedError` if there is none.
    """
    if not backbone.tokens:
        return backbone.taps[-1]
    reach = patches_reach(backbone)
    norms = [layer for layer in reach if layer.rpartition(".")[2] in ATTENTION_NORMS]
    if norms and reach[norms[-1]]:
        return norms[-1]
    reaching = [layer for layer, reaches in reach.items() if reaches]
    if not reaching:
        raise NotServedError(
            f"no patch of {backbone.name} reaches its head, so that no layer can be explained"
        )
    return reaching[-1]


def grad_cam(backbone: Backbone) -> Method:
    """Grad-CAM (Selvaraju et al., ICCV 2017), through the grad-cam library; maps ``(B, H, W)``."""
    return from_library("GradCAM", backbone)


def grad_cam_plus_plus(backbone: Backbone) -> Method:
    """Grad-CAM++ (Chattopadhay et al., WACV 2018); see `grad_cam`."""
    return from_library("GradCAMPlusPlus", backbone)


def layer_cam(backbone: Backbone) -> Method:
    """LayerCAM (Jiang et al., TIP 2021); see `grad_cam`."""
    return from_library("LayerCAM", backbone)


class _Logits(nn.Module):
    """A classifier that takes images in [0, 1] and returns plain logits, for the library."""

    def __init__(self, backbone: Backbone, layer: str):
        super().__init__()
        self.backbone, self.layer = backbone, layer
        # what the library hooks, or puts a layer of its own in place of: the target layer's last
        # call, and no other's
        self.point = nn.Identity()

    def forward(self, images: Tensor) -> Tensor:
        logits = self.backbone(images)
        if torch.is_grad_enabled() and not logits.requires_grad:
            raise NotServedError(
                f"the logits of {self.backbone.name} do not depend on the last output of {self.layer!r}"
            )
        return logits


def from_library(
    cam: str | type, backbone: Backbone, built: Mapping = EMPTY, called: Mapping = EMPTY
) -> Method:
    """Make a method of a class of the grad-cam library's, or of its name; maps ``(B, H, W)``.

    ``built`` are further arguments of the class, ``called`` of its call.
    """
    library = needed("pytorch_grad_cam", EXTRA, f"{cam}, a class of the grad-cam library,")
    targets = needed("pytorch_grad_cam.utils.model_targets", EXTRA, str(cam))
    cam_class: Any = getattr(library, cam) if isinstance(cam, str) else cam
    layer = target_layer(backbone)
    model = _Logits(backbone, layer)

    def start(output: Tensor) -> Tensor:
        # the graph starts here, for the same maps at the cost of one forward; the library on its
        # own differentiates the whole classifier, at the cost of about three
        return model.point(output.detach().requires_grad_()).clone()  # what follows may be in place

    def passed(output: Tensor) -> Tensor:
        return model.point(output).clone()

    def explain(images: Tensor, classes: Tensor) -> Tensor:
        wanted = [targets.ClassifierOutputTarget(int(c)) for c in classes]
        with (
            torch.enable_grad(),
            cam_class(model, [model.point], backbone.grid, **built) as each,
            backbone.replaced(layer, passed if each.compute_input_gradient else start),
        ):
            maps = each(images, wanted, **called)
            each.outputs = None  # or the graph would hold itself through the library's hooks
        return minmax(torch.as_tensor(maps).to(images))

    return explain


def score_cam(backbone: Backbone, chunk: int | None = None, progress: Tell | None = None) -> Method:
    """Score-CAM (Wang et al., CVPRW 2020), maps at the target layer's size.

    Each channel of the target layer, upsampled and scaled to [0, 1], masks the image by the
    backbone's own procedure; the softmax over channels of the class's logits weighs them. The
    grad-cam library gives the same maps if it upsamples with half-pixel centres, as PyTorch does;
    its default aligns corners, and it builds all masked images at once, gigabytes for a ResNet-50.
    """
    check_chunk(chunk)
    layer = target_layer(backbone)

    @torch.no_grad()
    def explain(images: Tensor, classes: Tensor) -> Tensor:
        activations = backbone.output_of(layer, images)  # (B, C, h, w)
        maps: list[Tensor] = []
        for image, maps_of_image, c in zip(images, activations, classes.tolist(), strict=True):
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


def ablation_cam(
    backbone: Backbone, chunk: int | None = None, progress: Tell | None = None
) -> Method:
    """Ablation-CAM (Desai & Ramaswamy, WACV 2020), maps at the target layer's size.

    A channel weighs what share of the class's logit goes when it is set to zero, where the grad-cam
    library sets channels that are not rectified, a ViT's, to -1e7; ``chunk`` counts channels.
    """
    check_chunk(chunk)
    layer = target_layer(backbone)

    def logits_of(image: Tensor, channels: Tensor, count: int, copies: int) -> Tensor:
        edit = partial(without_channels, channels=channels, count=count)
        with backbone.replaced(layer, edit):
            return backbone(image.expand(copies, -1, -1, -1))

    @torch.no_grad()
    def explain(images: Tensor, classes: Tensor) -> Tensor:
        activations = backbone.output_of(layer, images)  # (B, C, h, w)
        count = activations.shape[1]
        channels = torch.arange(count, device=images.device)
        suits = batch_that_suits(images)
        few = channels.split(chunk or suits)
        many = channels.split(chunk or int(min(AT_ONCE, max(suits, fitting(images.device, 16e6)))))
        maps: list[Tensor] = []
        for image, maps_of_image, c in zip(images, activations, classes.tolist(), strict=True):
            try:
                # one image in, its variants out of the target layer: only what lies behind that
                # layer runs for each channel, which on a CNN costs a few forwards in all
                found = [logits_of(image, part, count, 1) for part in many]
            except RuntimeError:  # what goes round the layer does not broadcast
                found = []
            if sum(map(len, found)) < count + len(many):  # or what lies behind counts on the image
                found = [logits_of(image, part, count, 1 + len(part)) for part in few]
            # of one batch each, to round alike
            shares = [(logits[0, c] - logits[1:, c]) / logits[0, c] for logits in found]
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
