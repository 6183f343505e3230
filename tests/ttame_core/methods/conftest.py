"""Classifiers and images that the tests of methods share."""

import pytest
import torch
from torch import nn
from torchvision.models import VisionTransformer

import ttame_core as tt
from tests.ttame_core.methods.models import Quadratic
from tests.ttame_core.methods.written_out import CLASS_TOKEN, HEAD, MEAN, STD
from ttame_core.images.reading import Preprocessing


@pytest.fixture
def quadratic():
    plain = Preprocessing(4, 4, mean=(0, 0, 0), std=(1, 1, 1))
    return tt.Backbone(Quadratic(torch.randn(2, 3, 4, 4)), ["tap"], preprocessing=plain).double()


@pytest.fixture
def one_block():
    """A ViT of one block without norms and MLP on 2 x 2 patches of a pixel: tokens are (red, green).

    The query is (1, 0) for every token, the key is the token, so attention goes by red; the value is the token.
    """
    model = VisionTransformer(2, 1, 1, 1, 2, 2, num_classes=2, norm_layer=lambda dim: nn.Identity())
    for value in model.parameters():
        nn.init.zeros_(value)
    with torch.no_grad():
        model.conv_proj.weight[:, :, 0, 0] = torch.tensor([[1.0, 0, 0], [0, 1, 0]])
        model.class_token[0, 0] = CLASS_TOKEN
        attend = model.encoder.layers[0].self_attention
        attend.in_proj_bias[0] = 1
        attend.in_proj_weight[2:] = torch.eye(2).repeat(2, 1)
        attend.out_proj.weight.copy_(torch.eye(2))
        model.heads.head.weight.copy_(HEAD)
    plain = Preprocessing(2, 2, mean=(0, 0, 0), std=(1, 1, 1))
    return tt.Backbone(model, ["encoder.layers.encoder_layer_0"], preprocessing=plain)


@pytest.fixture
def pixels():
    return torch.rand(1, 3, 2, 2)


@pytest.fixture
def two_blocks():
    """A ViT of two blocks, two heads of width 3, and 2 x 2 patches; weights of either sign; double precision."""
    model = VisionTransformer(4, 2, 2, 2, 6, 5, num_classes=3)
    for value in model.parameters():
        nn.init.normal_(value, std=0.7)
    plain = Preprocessing(4, 4, mean=MEAN, std=STD)
    return tt.Backbone(model, ["encoder.layers.encoder_layer_1"], preprocessing=plain).double()


@pytest.fixture
def images():
    return torch.rand(2, 3, 4, 4, dtype=torch.float64)
