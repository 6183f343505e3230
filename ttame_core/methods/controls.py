"""Controls: maps that know nothing of the image, so that a number means something."""

import zlib

import torch
from torch import Tensor

from ttame_core.backbones import Backbone


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
