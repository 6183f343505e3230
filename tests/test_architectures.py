"""Architectures of many kinds by name: default taps, training, explaining - small, with random weights."""

import pytest
import torch

import ttame_core as tt

ARCHITECTURES = {
    "resnet18": {},
    "vgg11_bn": {},
    "squeezenet1_1": {},
    "mobilenet_v3_small": {},
    "shufflenet_v2_x0_5": {},
    "densenet121": {},
    "regnet_y_400mf": {},
    "efficientnet_lite0": {},
    "timm/convnext_atto": {},
    "timm/ghostnet_100": {},
    "timm/mobilevit_xxs": {},
    "timm/resnet10t": {},
    "timm/swin_tiny_patch4_window7_224": {"img_size": 64},
    "timm/vit_tiny_patch16_224": {"img_size": 64},
    "timm/deit_tiny_distilled_patch16_224": {"img_size": 64},  # class and distillation token
    "timm/vit_small_patch14_reg4_dinov2": {"img_size": 70, "num_classes": 12},  # registers
}


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_it_trains_and_explains(name):
    options = ARCHITECTURES[name]
    size = options.get("img_size", 64)
    backbone = tt.load_backbone(
        name, None, preprocessing={"image_size": size, "resize": size}, **options
    )
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(4, 3, size, size, generator=generator)
    explainer = tt.TTAME(backbone)
    before = {k: v.clone() for k, v in explainer.attention.state_dict().items()}
    items = [{"image": image} for image in images]
    history = tt.train(explainer, items, tt.Recipe(steps=2, batch_size=2, max_lr=0.01))
    assert all(0 < row["total"] < 1e3 for row in history)
    after = explainer.attention.state_dict()
    assert all(not torch.equal(after[k], v) for k, v in before.items() if k.endswith("conv.weight"))
    explanation = explainer(images)
    assert explanation.maps.shape == (4, *max(shape[1:] for shape in backbone.shapes))
    assert torch.allclose(explanation.confidences, backbone(images).softmax(1).amax(1))
    assert len(backbone.taps) == 3
    maps = tt.method("grad-cam", backbone)(images, explanation.classes)
    assert maps.shape == images.shape[:1] + images.shape[2:]
    if not backbone.tokens and name != "squeezenet1_1":
        assert tt.method("iia", backbone, steps=1)(images[:1], explanation.classes[:1]).max() == 1
