"""Integrated gradients."""

import torch

import ttame_core as tt
from tests.ttame_core.methods.models import linear
from ttame_core.masking import minmax


def test_integrated_gradients_of_a_linear_model_is_weight_times_image():
    weight, images = torch.randn(2, 3, 6, 6), torch.rand(2, 3, 6, 6)
    maps = tt.method("integrated-gradients", linear(weight))(images, torch.tensor([0, 1]))
    assert torch.allclose(maps, minmax((weight * images).sum(1).relu()), atol=1e-5)
