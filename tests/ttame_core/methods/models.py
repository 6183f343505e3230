"""Classifiers whose maps are known, and how the tests make each method."""

import torch
import torch.nn.functional as F
from torch import nn
from torchvision.models import VisionTransformer

import ttame_core as tt
from ttame_core.images.reading import Preprocessing

SMALL = {
    "rise": {"masks": 10, "chunk": 4},
    "integrated-gradients": {"steps": 4},
    "iia": {"steps": 2},
}


CHUNKED = ["score-cam", "ablation-cam", "rise", "iia", "integrated-gradients"]


FOR_VITS = ["transformer-lrp", "attention-rollout"]


BACKBONES = ["demo_vgg", "demo_resnet", "demo_vit"]


def make(name, backbone, **options):
    return tt.method(name, backbone, **{**SMALL.get(name, {}), **options})


def served(backbones):
    return [(b, m) for b in backbones for m in tt.METHODS if "vit" in b or m not in FOR_VITS]


def right_half(images):
    return F.pad(images[..., 8:], (8, 0))


class RightHalf(nn.Module):
    """A CNN to which the left half is black, and all it sees evidence of its first class."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 6, 1, bias=False), nn.ReLU(), nn.AvgPool2d(4))
        self.head = nn.Linear(6, 3)
        nn.init.uniform_(self.stem[0].weight, 0, 1)
        with torch.no_grad():
            self.head.weight.copy_(torch.tensor([[0.5, 1, 0.5, 1, 1, 0.5], [0] * 6, [0] * 6]))

    def forward(self, x):
        return self.head(self.stem(right_half(x)).mean((2, 3)))


class RightHalfViT(VisionTransformer):
    """Likewise a ViT of one block, without norms and MLP: tokens and values are (red, green)."""

    def __init__(self):
        super().__init__(16, 4, 1, 1, 2, 2, num_classes=3, norm_layer=lambda dim: nn.Identity())
        for value in self.parameters():
            nn.init.zeros_(value)
        with torch.no_grad():
            self.conv_proj.weight[0, 0] = self.conv_proj.weight[1, 1] = 1
            attend = self.encoder.layers[0].self_attention
            attend.in_proj_weight[4:] = attend.out_proj.weight[:] = torch.eye(2)
            self.heads.head.weight[0] = torch.tensor([0.1, 0.2])

    def forward(self, x):
        return super().forward(right_half(x))


def looking_right(kind):
    small = Preprocessing(16, 16, mean=(0, 0, 0), std=(1, 1, 1))
    taps = ["stem"] if kind is RightHalf else ["encoder.layers.encoder_layer_0"]
    return tt.Backbone(kind(), taps, name="right", preprocessing=small)


class Linear(nn.Module):
    """Logits that are linear in the image; its tap is the image itself."""

    def __init__(self, weight):
        super().__init__()
        self.tap = nn.Identity()
        self.weight = nn.Parameter(weight)  # (K, 3, H, W)

    def forward(self, x):
        return torch.einsum("kchw,bchw->bk", self.weight, self.tap(x))


def linear(weight):
    size = weight.shape[-1]
    plain = Preprocessing(size, size, mean=(0, 0, 0), std=(1, 1, 1))
    return tt.Backbone(Linear(weight), ["tap"], preprocessing=plain)


class Share(nn.Module):
    """Two classes whose softmax scores are s and 1 - s, s linear in the image."""

    def __init__(self, weight):
        super().__init__()
        self.tap = nn.Identity()
        self.weight = nn.Parameter(weight)  # (3, H, W)

    def forward(self, x):
        s = (self.tap(x) * self.weight).sum((1, 2, 3))
        return torch.stack([s, 1 - s], 1).log()


class Quadratic(Linear):
    """Logits whose gradient with respect to the last map, weight x (1 + map), depends on the map."""

    def forward(self, x):
        maps = self.tap(x)
        return torch.einsum("kchw,bchw->bk", self.weight, maps + maps**2 / 2)
