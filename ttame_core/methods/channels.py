"""Class activation maps that weigh each channel by trying it: Score-CAM and Ablation-CAM."""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from ttame_core.backbones import Backbone
from ttame_core.layers import batch_that_suits, replaced_output
from ttame_core.masking import minmax, upsample
from ttame_core.methods.cams import target_layer
from ttame_core.progress import Tell


def score_cam(
    backbone: Backbone, chunk: int | None = None, progress: Tell | None = None
) -> Callable[[Tensor, Tensor], Tensor]:
    """Make Score-CAM (Wang et al., CVPRW 2020) ready for a backbone.

    Each channel of the target layer, upsampled and scaled to [0, 1], masks the image by the backbone's own
    procedure; the softmax over channels of the class's logits weighs them, as in the grad-cam library. That
    one builds all masked images of a batch at once, gigabytes for a ResNet-50; here they pass in chunks, and all
    channels that are constant over an image (of a rectified layer often a third) share one forward, as each
    scales to an empty mask. (Its maps are these where it upsamples as PyTorch does by default, half-pixel
    centres; its own default aligns corners.)

    Parameters
    ----------
    backbone : Backbone
        The classifier to be explained.
    chunk : int, optional
        Masked images a forward pass; changes memory and speed, not the maps. By default what suits the device.
    progress : callable, optional
        Called with (images done, images in all) within a call.

    Returns
    -------
    callable
        ``(images, classes) -> maps`` ``(B, h, w)`` in [0, 1], at the target layer's size.
    """
    layer = target_layer(backbone)

    @torch.no_grad()
    def explain(images: Tensor, classes: Tensor) -> Tensor:
        activations = backbone.output_of(layer, images)  # (B, C, h, w)
        maps: list[Tensor] = []
        for image, maps_of_image, c in zip(images, activations, classes, strict=True):
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
    backbone: Backbone, chunk: int = 128, progress: Tell | None = None
) -> Callable[[Tensor, Tensor], Tensor]:
    """Make Ablation-CAM (Desai & Ramaswamy, WACV 2020) ready for a backbone.

    A channel weighs what share of the class's logit goes when it is set to zero. Only the layers behind the
    target layer run for each channel, so on a CNN it costs a few forwards; the grad-cam
    library runs the whole classifier for each. (On maps that are not rectified, a ViT's, the library sets
    channels to -1e7 instead of the paper's zero; here they are zero.)

    Parameters
    ----------
    backbone : Backbone
        The classifier to be explained.
    chunk : int
        Channels tried at once; changes memory and speed, not the maps.
    progress : callable, optional
        Called with (images done, images in all) within a call.

    Returns
    -------
    callable
        ``(images, classes) -> maps`` ``(B, h, w)`` in [0, 1], at the target layer's size.
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
                edit = partial(without_channels, channels=part, count=count)
                with replaced_output(layer, edit):
                    whole, *_ = logits = backbone(image[None])[:, c]
                shares.append((whole - logits[1:]) / whole)  # of one batch, as they round alike
            weights = torch.cat(shares)  # (C,)
            maps.append(torch.einsum("c,chw->hw", weights, maps_of_image).relu())
            if progress:
                progress(len(maps), len(images))
        return minmax(torch.stack(maps))

    return explain


def without_channels(output: Tensor, channels: Tensor, count: int) -> Tensor:
    """Repeat a layer's output, first as it is, then with one channel at zero in each copy.

    Parameters
    ----------
    output : Tensor
        ``(1, C, h, w)``, ``(1, h, w, C)`` or ``(1, N, C)``.
    channels : Tensor
        ``(n,)`` int64, the channels to ablate, one a copy.
    count : int
        C.

    Returns
    -------
    Tensor
        ``(1 + n, ...)``.
    """
    keep = 1 - torch.nn.functional.one_hot(channels, count).to(output)  # (n, C)
    keep = torch.cat([torch.ones_like(keep[:1]), keep])
    if output.ndim == 4 and output.shape[1] == count:
        keep = keep[:, :, None, None]
    else:
        keep = keep.view(len(keep), *[1] * (output.ndim - 2), count)
    return output * keep
