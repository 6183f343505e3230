"""Architectures of many kinds by name: taps, training, explaining - small, with random weights."""

import pytest
import torch

import ttame_core as tt
from ttame_core.steps import training_step

BLOCKS = ("blocks.9", "blocks.10", "blocks.11")
ARCHITECTURES = {
    "resnet18": ("layer2", "layer3", "layer4"),
    "vgg11_bn": ("features.20", "features.27", "features"),
    "squeezenet1_1": ("features.4", "features.7", "features.12"),
    "mobilenet_v3_small": ("features.3", "features.8", "features"),
    "shufflenet_v2_x0_5": ("stage2", "stage3", "conv5"),
    "densenet121": ("features.denseblock2", "features.denseblock3", "features"),
    "regnet_y_400mf": ("trunk_output.block2", "trunk_output.block3", "trunk_output"),
    "efficientnet_lite0": ("blocks.2", "blocks.4", "bn2"),
    "timm/convnext_atto": ("stages.1", "stages.2", "stages.3"),
    "timm/ghostnet_100": ("blocks.3", "blocks.5", "blocks.7"),
    "timm/mobilevit_xxs": ("stages.2", "stages.3", "final_conv"),
    "timm/resnet10t": ("layer2", "layer3", "layer4"),
    "timm/swin_tiny_patch4_window7_224": ("layers.1", "layers.2", "layers.3"),
    "timm/vit_tiny_patch16_224": BLOCKS,
    "timm/deit_tiny_distilled_patch16_224": BLOCKS,
    "timm/vit_small_patch14_reg4_dinov2": BLOCKS,
}
"""The taps: ends of the last three stages, or the last three blocks."""
OPTIONS = {
    "timm/swin_tiny_patch4_window7_224": {"img_size": 64},
    "timm/vit_tiny_patch16_224": {"img_size": 64},
    "timm/deit_tiny_distilled_patch16_224": {"img_size": 64},
    "timm/vit_small_patch14_reg4_dinov2": {"img_size": 70, "num_classes": 12},
}
SHAPES = {
    "resnet18": [(128, 8), (256, 4), (512, 2)],
    "vgg11_bn": [(512, 8), (512, 4), (512, 2)],
    "squeezenet1_1": [(128, 15), (256, 7), (512, 3)],
    "mobilenet_v3_small": [(24, 8), (48, 4), (576, 2)],
    "shufflenet_v2_x0_5": [(48, 8), (96, 4), (1024, 2)],
    "densenet121": [(512, 8), (1024, 4), (1024, 2)],
    "regnet_y_400mf": [(104, 8), (208, 4), (440, 2)],
    "efficientnet_lite0": [(40, 8), (112, 4), (1280, 2)],
    "timm/convnext_atto": [(80, 8), (160, 4), (320, 2)],
    "timm/ghostnet_100": [(40, 8), (80, 4), (160, 2)],
    "timm/mobilevit_xxs": [(48, 8), (64, 4), (320, 2)],
    "timm/resnet10t": [(128, 8), (256, 4), (512, 2)],
    "timm/swin_tiny_patch4_window7_224": [(192, 8), (384, 4), (768, 2)],
    "timm/vit_tiny_patch16_224": [(192, 4)] * 3,
    "timm/deit_tiny_distilled_patch16_224": [(192, 4)] * 3,
    "timm/vit_small_patch14_reg4_dinov2": [(384, 5)] * 3,
}
"""Channels and side of each tapped map."""
PREFIX = {
    "timm/vit_tiny_patch16_224": 1,
    "timm/deit_tiny_distilled_patch16_224": 2,  # class and distillation token
    "timm/vit_small_patch14_reg4_dinov2": 5,  # and registers
}


@pytest.fixture(scope="module", params=ARCHITECTURES)
def architecture(request):
    """An architecture's name, its backbone with random weights, and four images."""
    name = request.param
    options = OPTIONS.get(name, {})
    size = options.get("img_size", 64)
    given = {"image_size": size, "resize": size}
    torch.manual_seed(0)
    backbone = tt.load_backbone(name, None, preprocessing=given, **options)
    return name, backbone, torch.rand(4, 3, size, size)


def test_its_taps_are_the_last_stages_or_blocks(architecture):
    name, backbone, _ = architecture
    assert backbone.taps == ARCHITECTURES[name]
    assert [shape[:2] for shape in backbone.shapes] == SHAPES[name]
    assert all(h == w for _, h, w in backbone.shapes)
    assert (backbone.tokens, backbone.prefix_tokens) == (name in PREFIX, PREFIX.get(name, 0))


@pytest.mark.slow
def test_a_changed_corner_changes_its_map_and_the_earliest_tap_most_there(architecture):
    _, backbone, images = architecture
    half = images.shape[-1] // 2
    changed = images.clone()
    changed[..., :half, half:] = 1 - changed[..., :half, half:]  # top right
    before, after = (backbone.features(each)[1][0] for each in (images, changed))
    difference = (after - before).abs().mean((0, 1))  # (h, w)
    side = len(difference) // 2
    corners = {
        (y, x): float(difference[rows, columns].mean())
        for y, rows in (("top", slice(side)), ("bottom", slice(-side, None)))
        for x, columns in (("left", slice(side)), ("right", slice(-side, None)))
    }
    there = corners.pop(("top", "right"))
    assert there > 1.5 * max(corners.values())
    explainer, classes = tt.TTAME(backbone), torch.zeros(4).long()
    maps, others = (explainer.explain(each, classes) for each in (images, changed))
    assert ((maps - others).abs().mean((1, 2)) > 0.02).all()
    for i in range(3):  # of one class, and yet of each image
        assert (maps[i] - maps[i + 1]).abs().mean() > 0.02


def test_every_part_of_the_attention_gets_a_gradient_and_the_classifier_none(architecture):
    _, backbone, images = architecture
    explainer = tt.TTAME(backbone)
    recipe = tt.Recipe(batch_size=4, other_classes="in-batch")
    terms = training_step(backbone, explainer.attention, images, recipe, torch.Generator())
    terms["total"].backward()
    gradients = {name: p.grad for name, p in explainer.attention.named_parameters()}
    assert len(gradients) == 4 * 3 + 2  # convolution and norm of three branches, the fusion
    for name, gradient in gradients.items():
        assert torch.isfinite(gradient).all(), name
        # a norm takes off again what a convolution's bias adds; the others may be tiny, as the
        # classifier's weights are random, and none is 0
        assert name.endswith("conv.bias") or gradient.any(), name
    assert not any(p.requires_grad or p.grad is not None for p in backbone.parameters())


@pytest.mark.slow
def test_it_trains_and_explains(architecture):
    name, backbone, images = architecture
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
    maps = tt.method("grad-cam", backbone)(images, explanation.classes)
    assert maps.shape == images.shape[:1] + images.shape[2:]
    if not backbone.tokens and name != "squeezenet1_1":
        assert tt.method("iia", backbone, steps=1)(images[:1], explanation.classes[:1]).max() == 1
