"""Controls: maps that know nothing of the classifier, so that a number means something."""

import zlib

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.transforms.functional import rgb_to_grayscale

from ttame_core.backbones import Backbone
from ttame_core.masking import minmax


def random_map(backbone: Backbone, seed: int = 0):
    """Make the random control: uniform noise at the size of the backbone's largest tapped map.

    Parameters
    ----------
    backbone : Backbone
        For the map's size.
    seed : int
        With an image's pixels it decides the image's map, whatever batch the image comes in.

    Returns
    -------
    callable
        ``(images, classes) -> maps`` ``(B, h_e, w_e)`` in [0, 1).
    """
    size = max(shape[1:] for shape in backbone.shapes)

    def explain(images: Tensor, classes: Tensor) -> Tensor:
        maps = []
        for image in images:
            content = zlib.crc32((image * 255).round().byte().cpu().numpy().tobytes())
            generator = torch.Generator().manual_seed(content + (seed << 32))
            maps.append(torch.rand(size, generator=generator))
        return torch.stack(maps).to(images)

    return explain


def brightness(backbone: Backbone):
    """Make the brightness control: each patch's luminance, whatever the classifier makes of it.

    Where it does well, the objects stand out from their ground, and a method has to do better than that.

    Parameters
    ----------
    backbone : Backbone
        For the map's size.

    Returns
    -------
    callable
        ``(images, classes) -> maps`` ``(B, h_e, w_e)`` in [0, 1].
    """
    _, height, width = max(backbone.shapes, key=lambda shape: shape[1])

    def explain(images: Tensor, classes: Tensor) -> Tensor:
        return minmax(F.adaptive_avg_pool2d(rgb_to_grayscale(images), (height, width))[:, 0])

    return explain


def all_ones(backbone: Backbone):
    """Make the all-ones control: the whole image counts.

    Parameters
    ----------
    backbone : Backbone
        For the map's size.

    Returns
    -------
    callable
        ``(images, classes) -> maps`` ``(B, h_e, w_e)``, all 1.
    """
    size = max(shape[1:] for shape in backbone.shapes)

    def explain(images: Tensor, classes: Tensor) -> Tensor:
        return images.new_ones(len(images), *size)

    return explain
