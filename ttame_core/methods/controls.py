"""Controls: maps that know nothing of the classifier, so that a number means something.

All are at the size of the backbone's largest tapped map, ``(B, h_e, w_e)``.
"""

import zlib

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.transforms.functional import rgb_to_grayscale

from ttame_core.classifiers.backbone import Backbone
from ttame_core.errors import check_whole
from ttame_core.masking import minmax
from ttame_core.methods import Method


def random_map(backbone: Backbone, seed: int = 0) -> Method:
    """Uniform noise in [0, 1): the seed and an image's pixels decide the image's map."""
    check_whole("seed", seed)
    size = max(shape[1:] for shape in backbone.shapes)

    def explain(images: Tensor, classes: Tensor) -> Tensor:
        maps = []
        for image in images:
            # an image's map is to depend on neither its batch nor its place in it
            content = (image * 255).round().byte().cpu().numpy().tobytes()
            # of a seed the generator takes 32 bits: the two are mixed in these
            generator = torch.Generator().manual_seed(zlib.crc32(content, seed))
            maps.append(torch.rand(size, generator=generator))
        return torch.stack(maps).to(images)

    return explain


def brightness(backbone: Backbone) -> Method:
    """Each patch's luminance, whatever the classifier makes of it.

    Where it does well, the objects stand out from their ground, and a method has to do better.
    """
    _, height, width = max(backbone.shapes, key=lambda shape: shape[1])

    def explain(images: Tensor, classes: Tensor) -> Tensor:
        return minmax(F.adaptive_avg_pool2d(rgb_to_grayscale(images), (height, width))[:, 0])

    return explain


def all_ones(backbone: Backbone) -> Method:
    """The whole image counts: 1 everywhere. Its attribute ``constant`` says that it means to be."""
    size = max(shape[1:] for shape in backbone.shapes)

    def explain(images: Tensor, classes: Tensor) -> Tensor:
        return images.new_ones(len(images), *size)

    explain.constant = True  # type: ignore[attr-defined]
    return explain
