"""Frozen backbones, taps, grids, masking, and what happens to bad names and weights."""

import pytest
import torch
import torchvision
from safetensors.torch import save_file

import ttame_core as tt
from ttame_core.layers import to_grid
from ttame_core.taps import spread_taps
from ttame_core.zoo import LITE0, Preprocessing


@pytest.mark.parametrize(
    ("name", "shapes"),
    [
        ("demo_vgg", [(24, 16, 16), (48, 8, 8), (64, 4, 4)]),
        ("demo_resnet", [(20, 32, 32), (40, 16, 16), (80, 8, 8)]),
        ("demo_vit", [(80, 8, 8)] * 3),
    ],
)
def test_demo_taps_and_shapes(name, shapes):
    backbone = tt.load_backbone(name)
    assert list(backbone.shapes) == shapes
    logits, features = backbone.features(torch.rand(2, 3, 64, 64))
    assert logits.shape == (2, 10)
    assert [tuple(f.shape[1:]) for f in features] == shapes


@pytest.mark.parametrize(
    ("name", "taps", "shapes", "masking"),
    [
        (
            "resnet50",
            ("layer2", "layer3", "layer4"),
            [(512, 28, 28), (1024, 14, 14), (2048, 7, 7)],
            "image",
        ),
        (
            "vgg16",
            ("features.16", "features.23", "features.30"),
            [(256, 28, 28), (512, 14, 14), (512, 7, 7)],
            "image",
        ),
        (
            "vit_b_16",
            tuple(f"encoder.layers.encoder_layer_{i}" for i in (9, 10, 11)),
            [(768, 14, 14)] * 3,
            "standardised",
        ),
    ],
)
def test_the_papers_backbones(name, taps, shapes, masking):
    backbone = tt.load_backbone(name, weights=None)
    assert (backbone.taps, list(backbone.shapes)) == (taps, shapes)
    assert backbone.masking == masking
    assert backbone.preprocessing.mean == (0.485, 0.456, 0.406)


def test_vgg16_conv_taps_are_the_rectified_maps_before_the_pools():
    backbone = tt.load_backbone("demo_vgg", taps="conv")
    pooled = tt.load_backbone("demo_vgg")
    images = torch.rand(1, 3, 64, 64)
    for conv, pool in zip(backbone.features(images)[1], pooled.features(images)[1], strict=True):
        assert torch.equal(torch.nn.functional.max_pool2d(conv, 2), pool)


@pytest.mark.parametrize(
    "name",
    [
        "mobilenet_v3_small",
        "convnext_tiny",
        "swin_t",
        "timm/vit_tiny_patch16_224",
        "deit_tiny_distilled_patch16_224",
    ],
)
def test_other_architectures_by_name_with_default_taps(name):
    backbone = tt.load_backbone(name, weights=None)
    assert len(backbone.taps) == 3
    assert all(h == w > 1 for _, h, w in backbone.shapes)
    maps = tt.TTAME(backbone).explain(torch.rand(1, 3, 224, 224))
    assert maps.shape[0] == 1 and 0 <= maps.min() <= maps.max() <= 1


def test_lite0_reads_photographs():
    backbone = tt.load_backbone(LITE0)
    assert backbone.shapes == ((40, 28, 28), (112, 14, 14), (1280, 7, 7))
    assert backbone.preprocessing.mean[0] == pytest.approx(127 / 255)
    photographs = tt.WheelPhotographs("test")
    truth = [int(photographs[i]["id"].split("_")[-1]) for i in range(8)]
    images = torch.stack([photographs[i]["image"] for i in range(8)])
    right = (backbone(images).topk(5)[1] == torch.tensor(truth)[:, None]).any(1)
    assert right.sum() >= 6  # its own weights with its own preprocessing recognise what is there


def test_a_marked_patch_lands_in_its_cell():
    vit = torchvision.models.VisionTransformer(
        image_size=32,
        patch_size=8,
        num_layers=1,
        num_heads=1,
        hidden_dim=8,
        mlp_dim=8,
        num_classes=3,
    )
    with torch.no_grad():
        vit.encoder.pos_embedding.zero_()
    backbone = tt.Backbone(
        vit, ["encoder.dropout"], preprocessing=Preprocessing(image_size=32, resize=32)
    )
    images = torch.full((1, 3, 32, 32), 0.5)
    images[:, :, 8:16, 24:32] = 1.0  # row 1, column 3 of the 4 x 4 grid
    grid = backbone.features(images)[1][0]  # (1, 8, 4, 4)
    background = grid[0, :, 0, 0][:, None, None]
    changed = (grid[0] - background).abs().amax(0) > 1e-6
    assert changed.nonzero().tolist() == [[1, 3]]


def test_masking_orders_of_the_families():
    images, masks = torch.rand(2, 3, 64, 64), torch.rand(2, 8, 8)
    large = torch.nn.functional.interpolate(masks[:, None], size=64, mode="bilinear")
    cnn, vit = tt.load_backbone("demo_resnet"), tt.load_backbone("demo_vit")
    assert torch.allclose(cnn(images, masks), cnn.model(cnn.standardise(large * images)))
    assert torch.allclose(vit(images, masks), vit.model(large * vit.standardise(images)))
    assert torch.equal(vit(images), vit.model(vit.standardise(images)))


@pytest.mark.parametrize(
    ("output", "prefix", "shape"),
    [
        (torch.zeros(2, 5, 7, 7), None, (2, 5, 7, 7)),
        (torch.zeros(2, 7, 7, 5), None, (2, 5, 7, 7)),
        (torch.zeros(2, 50, 5), None, (2, 5, 7, 7)),
        (torch.zeros(2, 53, 5), 4, (2, 5, 7, 7)),
        ((torch.zeros(2, 49, 5), None), None, (2, 5, 7, 7)),
    ],
)
def test_grids(output, prefix, shape):
    assert to_grid(output, "tap", prefix).shape == shape


@pytest.mark.parametrize(
    "output", [torch.zeros(2, 5), torch.zeros(2, 5, 1, 1), torch.zeros(2, 2, 9), None]
)
def test_what_is_no_feature_map(output):
    with pytest.raises(tt.TTAMEError, match="'head' is no feature map"):
        to_grid(output, "head")


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


def test_the_statistics_are_where_the_classifier_is():
    model = tt.load_backbone("demo_resnet", None).model.to("meta")  # stands for an accelerator
    backbone = tt.Backbone(model, ["layer2", "layer4"])
    assert backbone.mean.device.type == backbone.std.device.type == "meta"
    assert backbone.with_taps(["layer3"]).mean.device.type == "meta"


def test_sets_of_taps_of_a_backbone_by_name_once_it_is_loaded():
    vgg = tt.load_backbone("demo_vgg")
    assert vgg.with_taps("conv").taps == tt.load_backbone("demo_vgg", taps="conv").taps != vgg.taps
    with pytest.raises(tt.TTAMEError, match="no set of taps 'stages'"):
        vgg.with_taps("stages")


def test_taps_spread_over_a_transformers_depth_by_name():
    vit = tt.load_backbone("demo_vit")
    spread = tt.load_backbone("demo_vit", taps="spread")
    assert spread.taps == spread_taps(vit.model, vit.taps[-1]) != vit.taps
    with pytest.raises(tt.TTAMEError, match="did you mean 'spread'"):
        tt.load_backbone("demo_vit", taps="spred")
    norms = tt.load_backbone("demo_vit", taps="spread-norms")
    assert norms.taps == tuple(f"{block}.ln_1" for block in spread.taps)
    assert vit.with_taps("spread-norms").taps == norms.taps
    images = torch.rand(2, 3, 64, 64)
    tokens = norms.features(images)[1][0].flatten(
        2
    )  # (B, C, N), before weight and bias at unit scale
    norm = norms.model.get_submodule(norms.taps[0])
    plain = (tokens - norm.bias[:, None]) / norm.weight[:, None]
    torch.testing.assert_close(
        plain.square().mean(1), torch.ones(2, tokens.shape[2]), rtol=0.01, atol=0
    )
    with pytest.raises(tt.TTAMEError, match="no norm before the attention found in 'layer2'"):
        tt.load_backbone("resnet18", None, taps="spread-norms")
    at_the_top = tt.load_backbone("resnet18", None, taps="spread")
    assert at_the_top.taps == ("layer2", "layer3", "layer4")
    with pytest.raises(tt.TTAMEError, match="taps 'spread' need four blocks alike"):
        tt.load_backbone("vgg11_bn", None, taps="spread")


def test_list_taps_shows_names_and_shapes_in_order():
    taps = tt.list_taps("demo_resnet")
    assert taps["layer2"] == (20, 32, 32)
    assert list(taps).index("layer2") < list(taps).index("layer3")
    assert "fc" not in taps


def test_windows_of_images_are_no_taps():
    name, tap = "timm/swin_tiny_patch4_window7_224", "layers.0.blocks.0.attn.proj"
    assert tap not in tt.list_taps(name)
    with pytest.raises(tt.TTAMEError, match="no feature map of whole images"):
        tt.load_backbone(name, None, [tap])


def test_every_listed_tap_can_be_tapped():
    name = "timm/vit_tiny_patch16_224"
    taps = tt.list_taps(name)
    assert "blocks.11" in taps and "patch_embed" not in taps  # its tokens lack the class token
    assert tt.load_backbone(name, None, list(taps)).shapes == tuple(taps.values())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("resnet5",), "did you mean 'resnet50'"),
        (("demo_vg",), "did you mean 'demo_vgg'"),
        (("demo_vgg", None, ["features.161"]), "did you mean 'features.16'"),
        (("demo_vgg", None, "max_pool"), "did you mean 'max-pool'"),
        (("demo_resnet", None, []), "no taps"),
        (("demo_resnet", None, ["fc"]), "'fc' is no feature map"),
        (("demo_resnet", "nowhere.safetensors"), "nowhere.safetensors"),
        (("resnet18", "IMAGENET1K_V9"), "did you mean 'IMAGENET1K_V1'"),
        (("timm/resnet18", "a4"), "has no weights 'a4'.*a1_in1k"),
    ],
)
def test_bad_names(arguments, message):
    with pytest.raises(tt.TTAMEError, match=message):
        tt.load_backbone(*arguments)


def test_unknown_masking():
    with pytest.raises(tt.TTAMEError, match="standardised"):
        tt.load_backbone("demo_resnet", masking="standardized")


def test_weights_from_a_file(tmp_path):
    source = tt.load_backbone("demo_resnet")
    state = {k: v.contiguous() for k, v in source.model.state_dict().items()}
    save_file(state, tmp_path / "a.safetensors")
    torch.save(source.model.state_dict(), tmp_path / "a.pth")
    images = torch.rand(2, 3, 64, 64)
    for name in ("a.safetensors", "a.pth"):
        loaded = tt.load_backbone("demo_resnet", tmp_path / name)
        assert torch.equal(loaded(images), source(images))


def test_weights_that_do_not_fit(tmp_path):
    save_file({"conv1.weight": torch.zeros(1)}, tmp_path / "b.safetensors")
    with pytest.raises(
        tt.TTAMEError, match=r"do not fit ResNet: 1\d\d missing.*conv1.weight is \(1,\)"
    ):
        tt.load_backbone("resnet18", tmp_path / "b.safetensors")
    (tmp_path / "c.safetensors").write_bytes(b"nonsense")
    with pytest.raises(tt.TTAMEError, match="cannot be read as weights"):
        tt.load_backbone("resnet18", tmp_path / "c.safetensors")


def test_published_weights_come_from_the_cache_or_say_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.hub, "_hub_dir", str(tmp_path))
    monkeypatch.setattr("torch.hub.urlopen", refuse)
    with pytest.raises(tt.TTAMEError, match=r"neither in the cache.*weights='path"):
        tt.load_backbone("resnet18")
    url = torchvision.models.ResNet18_Weights.DEFAULT.url
    model = torchvision.models.resnet18()
    (tmp_path / "checkpoints").mkdir(exist_ok=True)
    planted = tmp_path / "checkpoints" / url.rpartition("/")[2]
    torch.save(model.state_dict(), planted)
    images = torch.rand(1, 3, 224, 224)
    backbone = tt.load_backbone("resnet18")
    expected = model.eval()(backbone.standardise(images))
    assert torch.allclose(backbone(images), expected, atol=1e-4)


def refuse(*args, **kwargs):
    raise OSError("no network")


def test_vit_tiny_is_torchvisions_class_and_has_no_published_weights():
    backbone = tt.load_backbone("vit_ti_16", weights=None)
    assert backbone.shapes == ((192, 14, 14),) * 3 and backbone.prefix_tokens == 1
    assert sum(p.numel() for p in backbone.model.parameters()) == 5_717_416
    with pytest.raises(tt.TTAMEError, match="give a file, or load timm/vit_tiny_patch16_224"):
        tt.load_backbone("vit_ti_16")


def test_weights_of_ones_own_come_with_their_preprocessing():
    own = {"bgr": True, "mean": (0.1, 0.2, 0.3), "std": (1.0, 1.0, 1.0), "resize": 72}
    backbone = tt.load_backbone("squeezenet1_1", None, preprocessing=own)
    image = torch.rand(1, 3, 4, 4)
    blue, green, red = backbone.standardise(image)[0]
    assert torch.allclose(blue, image[0, 2] - 0.1) and torch.allclose(red, image[0, 0] - 0.3)
    assert torch.allclose(green, image[0, 1] - 0.2)
    assert backbone.preprocessing.resize == 72 and backbone.preprocessing.image_size == 224
    with pytest.raises(tt.TTAMEError, match="unexpected keyword argument 'men'; expected fields"):
        tt.load_backbone("squeezenet1_1", None, preprocessing={"men": 0})
