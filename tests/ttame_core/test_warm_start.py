"""A warm start is the class activation map at step 0, and trains from there."""

import pytest
import torch

import ttame_core as tt
from ttame_core.classifiers.heads import warm_backbone
from ttame_core.classifiers.hooks import capture
from ttame_core.errors import NotServedError
from ttame_core.masking import minmax
from ttame_core.steps import initialise
from ttame_core.warm_start import warm_start

CNNS = {
    "demo_resnet": {"weights": "DEFAULT"},
    "efficientnet_lite0": {"weights": "DEFAULT"},
    "resnet18": {},
    "mobilenet_v2": {},
    "squeezenet1_1": {},  # a convolution for a head
    "densenet121": {},  # its last ReLU is no layer
    "timm/efficientnet_b0": {},  # the default taps end before the convolution that the head reads
    "timm/resnetv2_50": {},  # and here before a norm and a ReLU
}

OF_96 = {"image_size": 96, "resize": 96}


@pytest.mark.parametrize("name", CNNS)
@pytest.mark.slow
def test_step_0_is_the_class_activation_map(name):
    small = {} if "weights" in CNNS[name] else OF_96
    backbone = tt.load_backbone(name, CNNS[name].get("weights"), preprocessing=small)
    size = backbone.preprocessing.image_size
    images, classes = torch.rand(2, 3, size, size), torch.tensor([3, 7])
    explainer = tt.TTAME(warm_backbone(backbone))
    warm_start(explainer)
    layers = [
        m for m in backbone.model.modules() if isinstance(m, torch.nn.Linear | torch.nn.Conv2d)
    ]
    given = []
    hook = layers[-1].register_forward_pre_hook(lambda layer, inputs: given.append(inputs[0]))
    _, features = explainer.backbone.features(images)
    hook.remove()
    if name != "timm/efficientnet_b0":  # a SiLU leaves negative values, which a branch cuts
        pooled = given[0].mean((2, 3)) if given[0].ndim == 4 else given[0]
        assert torch.allclose(features[-1].relu().mean((2, 3)), pooled, atol=1e-4)
    weight = layers[-1].weight.flatten(1)
    rows = (weight - weight.mean(0))[classes]
    cam = torch.einsum("bc,bchw->bhw", rows, features[-1].relu())
    found = explainer.explain(images, classes)
    large = torch.nn.functional.interpolate(cam[:, None], found.shape[-2:], mode="bilinear")[:, 0]
    assert torch.allclose(found, minmax(large), atol=1e-4)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("demo_vit", {}),
        ("timm/deit_tiny_patch16_224", {"weights": None, "img_size": 64}),
    ],
)
def test_for_a_class_token_step_0_is_the_heads_weights_on_the_normed_patches(name, options):
    size = options.get("img_size", 64)
    backbone = tt.load_backbone(name, preprocessing={"image_size": size, "resize": size}, **options)
    warm = warm_backbone(backbone)
    assert warm.taps[:2] == backbone.taps[:2] and warm.masking == backbone.masking
    explainer = tt.TTAME(warm)
    warm_start(explainer)
    images, classes = torch.rand(2, 3, size, size), torch.tensor([3, 7])
    norm = warm.model.get_submodule(warm.taps[-1])
    with capture(warm.model, [warm.taps[-1]]) as seen:
        warm(images)
    tokens = seen[warm.taps[-1]][:, warm.prefix_tokens :]  # (B, N, D)
    assert (tokens < 0).any() and isinstance(norm, torch.nn.LayerNorm)
    weight = [m for m in warm.model.modules() if isinstance(m, torch.nn.Linear)][-1].weight
    rows = (weight - weight.mean(0))[classes]
    expected = torch.einsum("bd,bnd->bn", rows, tokens).unflatten(1, warm.shapes[-1][1:])
    assert torch.allclose(explainer.explain(images, classes), minmax(expected), atol=1e-4)


@pytest.mark.parametrize(
    "name",
    ["squeezenet1_1", pytest.param("swin_t", marks=pytest.mark.slow)],  # a norm's values have signs
)
def test_at_unit_scale_it_is_the_same_map_whose_values_the_sigmoid_tells_apart(name):
    size = 96
    backbone = warm_backbone(tt.load_backbone(name, None, preprocessing=OF_96))
    variants = "proposed", "scaled", "squashed", "tied"
    plain, scaled, squashed, tied = (tt.TTAME(backbone, variant) for variant in variants)
    photographs = [{"image": torch.rand(3, size, size)} for _ in range(2)]
    recipe = tt.Recipe(batch_size=2, start="warm")
    for explainer in (plain, scaled, squashed, tied):
        initialise(explainer.eval(), photographs, recipe)
    images = torch.stack([item["image"] for item in photographs])
    logits, features = backbone.features(images)
    truth = logits.argmax(1)
    with torch.no_grad():
        maps = squashed.attention(features, truth[:, None])[:, 0]
        of_all = [explainer.attention(features) for explainer in (squashed, tied)]
    assert torch.allclose(*of_all, atol=1e-3)  # rows tied to the head are the head's
    assert maps.flatten(1).std(1).mean().item() == pytest.approx(1.5, rel=1e-3)
    assert torch.allclose(scaled.explain(images), minmax(maps), atol=1e-5)
    assert torch.allclose(squashed.explain(images), minmax(maps.sigmoid()), atol=1e-5)
    assert torch.allclose(plain.explain(images), scaled.explain(images), atol=1e-3)
    assert not torch.allclose(squashed.explain(images), scaled.explain(images), atol=0.05)
    with pytest.raises(tt.TTAMEError, match="needs images to measure its maps"):
        warm_start(tt.TTAME(backbone, "squashed"))


def test_every_part_learns_from_there(noise):
    backbone = tt.load_backbone("demo_resnet")
    images = [{"image": torch.rand(3, 64, 64)} for _ in range(8)]
    recipe = tt.Recipe(steps=4, batch_size=4, max_lr=0.05, start="warm")
    explainer, start = tt.TTAME(backbone), tt.TTAME(backbone)
    warm_start(start)
    tt.train(explainer, images, recipe)
    before = start.attention.state_dict()
    same = [k for k, v in explainer.attention.state_dict().items() if torch.equal(v, before[k])]
    assert not [k for k in same if k.endswith("weight")]


@pytest.mark.slow
def test_a_norm_of_cells_is_tapped_with_its_signs():
    warm = warm_backbone(tt.load_backbone("swin_t", None, preprocessing=OF_96))
    assert warm.taps[-1] == "norm" and not warm.tokens
    explainer = tt.TTAME(warm)
    warm_start(explainer)
    images, classes = torch.rand(1, 3, 96, 96), torch.tensor([3])
    cells = warm.features(images)[1][-1]  # (1, C, h, w)
    assert (cells < 0).any()
    weight = warm.model.head.weight
    cam = torch.einsum("c,bchw->bhw", weight[3] - weight.mean(0), cells)
    found = explainer.explain(images, classes)
    large = torch.nn.functional.interpolate(cam[:, None], found.shape[-2:], mode="bilinear")[:, 0]
    assert torch.allclose(found, minmax(large), atol=1e-3)


def test_what_has_no_linear_head_on_its_last_tap_says_so(tiny):
    with pytest.raises(
        NotServedError, match="so there is no warm start from it; warm_backbone taps"
    ):
        warm_start(tt.TTAME(tt.load_backbone("demo_vit")))
    with pytest.raises(NotServedError, match="skip connection"):
        warm_start(tt.TTAME(tiny, "no_skip"))
    with pytest.raises(tt.TTAMEError, match="did you mean 'warm'"):
        tt.Recipe(start="wram")
