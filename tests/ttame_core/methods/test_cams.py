"""Class activation maps: the library's, and Score-CAM's worked out."""

import pytest
import torch
from pytorch_grad_cam import AblationCAM, GradCAM, GradCAMPlusPlus, LayerCAM, ScoreCAM
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from torch import nn

import ttame_core as tt
from tests.ttame_core.methods.models import Linear, linear, make
from ttame_core.images.reading import Preprocessing
from ttame_core.masking import minmax, upsample
from ttame_core.methods.cams import _Logits, score_cam, target_layer
from ttame_core.metrics.costs import counted_passes


@pytest.mark.parametrize("name", ["demo_vgg", "demo_resnet"])
@pytest.mark.parametrize(
    ("method", "library"),
    [
        ("grad-cam", GradCAM),
        ("grad-cam++", GradCAMPlusPlus),
        ("layer-cam", LayerCAM),
        ("score-cam", ScoreCAM),
        ("ablation-cam", AblationCAM),
    ],
)
@pytest.mark.slow
def test_the_librarys_maps(name, method, library, backbones, digits, monkeypatch):
    half_pixel = lambda size: nn.Upsample(size, mode="bilinear")  # noqa: E731
    monkeypatch.setattr(nn, "UpsamplingBilinear2d", half_pixel)  # as Score-CAM's authors have it
    backbone = backbones[name]
    classes = (backbone(digits).argmax(1) + torch.tensor([0, 0, 0, 0, 1])) % 10
    with library(
        _Logits(backbone, target_layer(backbone)),
        [backbone.model.get_submodule(target_layer(backbone))],
    ) as cam:
        theirs = torch.as_tensor(
            cam(digits.clone().requires_grad_(), [ClassifierOutputTarget(int(c)) for c in classes])
        )
    ours = upsample(make(method, backbone)(digits, classes), digits.shape[-2:])
    for a, b in zip(ours, theirs, strict=True):
        assert torch.corrcoef(torch.stack([a.flatten(), b.flatten()]))[0, 1] > 0.9999


@pytest.mark.parametrize(
    ("method", "library"),
    [("grad-cam", GradCAM), ("grad-cam++", GradCAMPlusPlus), ("layer-cam", LayerCAM)],
)
def test_the_librarys_maps_of_a_vit(method, library, backbones, digits):
    backbone = backbones["demo_vit"]
    classes = backbone(digits).argmax(1)
    with library(
        _Logits(backbone, target_layer(backbone)),
        [backbone.model.get_submodule(target_layer(backbone))],
        backbone.grid,
    ) as cam:
        theirs = cam(
            digits.clone().requires_grad_(), [ClassifierOutputTarget(int(c)) for c in classes]
        )
    ours = make(method, backbone)(digits, classes)
    assert torch.allclose(ours, torch.as_tensor(theirs), atol=1e-4)


def test_score_cam_of_a_vit_is_the_librarys_on_masked_standardised_images(
    backbones, digits, monkeypatch
):
    """The library masks what it is given: for a ViT's own procedure that is standardised images."""
    half_pixel = lambda size: nn.Upsample(size, mode="bilinear")  # noqa: E731
    monkeypatch.setattr(nn, "UpsamplingBilinear2d", half_pixel)
    backbone = backbones["demo_vit"]
    classes = backbone(digits).argmax(1)
    with ScoreCAM(
        backbone.model, [backbone.model.get_submodule(target_layer(backbone))], backbone.grid
    ) as cam:
        theirs = torch.as_tensor(
            cam(backbone.standardise(digits), [ClassifierOutputTarget(int(c)) for c in classes])
        )
    ours = upsample(make("score-cam", backbone)(digits, classes), digits.shape[-2:])
    for a, b in zip(ours, theirs, strict=True):
        assert torch.corrcoef(torch.stack([a.flatten(), b.flatten()]))[0, 1] > 0.9999


def test_score_cam_of_a_linear_model():
    weight, image = torch.randn(2, 3, 6, 6), torch.rand(3, 6, 6)
    scores = [(weight[1] * image * minmax(image[c])).sum() for c in range(3)]
    expected = torch.einsum("c,chw->hw", torch.stack(scores).softmax(0), image)
    maps = tt.method("score-cam", linear(weight))(image[None], torch.tensor([1]))
    assert torch.allclose(maps[0], minmax(expected), atol=1e-5)


def test_constant_channels_share_one_forward_of_score_cam():
    weight, image = 0.1 * torch.rand(2, 3, 6, 6), torch.rand(3, 6, 6)
    # below the mean, or a constant would not show in a scaled map
    means, image[0], image[2] = (0.75, 0, 0.5), 0.25, 0.4
    plain = Preprocessing(6, 6, mean=means, std=(1, 1, 1))
    backbone = tt.Backbone(Linear(weight), ["tap"], preprocessing=plain)
    mean = torch.tensor(means)[:, None, None]
    at_tap = image - mean
    scores = [(weight[1] * (image * minmax(at_tap[c]) - mean)).sum() for c in range(3)]
    expected = torch.einsum("c,chw->hw", torch.stack(scores).softmax(0), at_tap)
    with counted_passes(backbone.model) as passes:
        maps = score_cam(backbone, chunk=1)(image[None], torch.tensor([1]))
    assert torch.allclose(maps[0], minmax(expected.relu()), atol=1e-5)
    assert passes.forwards == 1 + 2  # for the maps, the one that varies, and both constant ones
