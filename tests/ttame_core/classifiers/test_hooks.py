"""Hooks: what they read and change, and that they always go away."""

import pytest
import torch

import ttame_core as tt
from ttame_core.images.reading import Preprocessing


def test_an_inplace_relu_does_not_change_a_tap():
    model = torch.nn.Sequential(
        torch.nn.Conv2d(3, 4, 1),
        torch.nn.ReLU(inplace=True),
        torch.nn.Flatten(),
        torch.nn.Linear(64, 2),
    )
    small = Preprocessing(image_size=4, resize=4)
    backbone = tt.Backbone(model, ["0"], preprocessing=small)
    assert (backbone.features(torch.rand(2, 3, 4, 4))[1][0] < 0).any()


def test_no_hooks_are_left():
    backbone = tt.load_backbone("demo_resnet")
    backbone.features(torch.rand(1, 3, 64, 64))
    with pytest.raises(RuntimeError):
        backbone.features(torch.rand(1, 4, 64, 64))
    assert not any(m._forward_hooks for m in backbone.modules())
