"""Classifiers by name: their taps, weights and preprocessing, and what bad names are told."""

from urllib.error import URLError

import pytest
import timm
import torch
import torchvision
from safetensors.torch import save_file
from timm.data import resolve_data_config
from torchvision.models import ResNet18_Weights, ResNet50_Weights, ViT_B_16_Weights

import ttame_book as tb
import ttame_core as tt
from ttame_core.classifiers import loading
from ttame_core.classifiers.labels import IMAGENET_CLASSES
from ttame_core.classifiers.loading import LITE0

SMALL = {"image_size": 64, "resize": 64}


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
@pytest.mark.slow
def test_the_papers_backbones(name, taps, shapes, masking):
    backbone = tt.load_backbone(name, weights=None)
    assert (backbone.taps, list(backbone.shapes)) == (taps, shapes)
    assert backbone.masking == masking
    assert backbone.preprocessing.mean == (0.485, 0.456, 0.406)


@pytest.mark.parametrize(
    ("name", "taps", "sides"),
    [
        ("mobilenet_v3_small", ("features.3", "features.8", "features"), [28, 14, 7]),
        ("convnext_tiny", ("features.3", "features.5", "features"), [28, 14, 7]),
        ("swin_t", ("features.3", "features.5", "permute"), [28, 14, 7]),  # channels first again
        ("timm/vit_tiny_patch16_224", ("blocks.9", "blocks.10", "blocks.11"), [14] * 3),
        ("deit_tiny_distilled_patch16_224", ("blocks.9", "blocks.10", "blocks.11"), [14] * 3),
    ],
)
@pytest.mark.slow
def test_other_architectures_by_name_with_default_taps(name, taps, sides):
    backbone = tt.load_backbone(name, weights=None)
    assert backbone.taps == taps
    assert [shape[1:] for shape in backbone.shapes] == [(side, side) for side in sides]
    images = torch.rand(2, 3, 224, 224)
    maps = tt.TTAME(backbone).explain(images, torch.tensor([3, 3]))
    assert maps.shape == (2, sides[0], sides[0])
    assert (maps.amin((1, 2)) == 0).all() and (maps.amax((1, 2)) == 1).all()
    assert (maps[0] - maps[1]).abs().mean() > 0.02  # of one class, and of each image


def test_lite0_reads_photographs():
    backbone = tt.load_backbone(LITE0)
    assert backbone.shapes == ((40, 28, 28), (112, 14, 14), (1280, 7, 7))
    assert backbone.preprocessing.mean[0] == pytest.approx(127 / 255)
    photographs = tb.PackagePhotographs("test")
    truth = [int(photographs[i]["id"].split("_")[-1]) for i in range(8)]
    images = torch.stack([photographs[i]["image"] for i in range(8)])
    right = (backbone(images).topk(5)[1] == torch.tensor(truth)[:, None]).any(1)
    assert right.sum() >= 6  # its own weights with its own preprocessing recognise what is there


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("resnet5",), "did you mean 'resnet50'"),
        (("demo_vg",), "did you mean 'demo_vgg'"),
        (("demo_vgg", None, ["features.161"]), "did you mean 'features.16'"),
        (("demo_vgg", None, "max_pool"), "did you mean 'max-pool'"),
        (("demo_resnet", None, []), "the taps of .* are \\[\\]"),
        (("demo_resnet", None, ["fc"]), "'fc' is no feature map"),
        (("demo_resnet", "nowhere.safetensors"), "nowhere.safetensors"),
        (("resnet18", "IMAGENET1K_V9"), "did you mean 'IMAGENET1K_V1'"),
        (("timm/resnet18", "a4"), "has no weights 'a4'.*a1_in1k"),
    ],
)
def test_bad_names(arguments, message):
    with pytest.raises(tt.TTAMEError, match=message):
        tt.load_backbone(*arguments)


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


@pytest.mark.happens(
    "Weights",
    "weights that are True, False or a state dict",
    "the published ones, random ones, these",
)
def test_a_state_dict_in_memory_and_the_bools_that_torchvision_took():
    source = tt.load_backbone("demo_resnet")
    images = torch.rand(2, 3, 64, 64)
    for weights in (source.model.state_dict(), {"model": source.model.state_dict()}, True):
        assert torch.equal(tt.load_backbone("demo_resnet", weights)(images), source(images))
    for weights in (False, None):
        torch.manual_seed(0)
        fresh = tt.load_backbone("demo_resnet", weights)
        torch.manual_seed(0)
        assert torch.equal(fresh(images), tt.load_backbone("demo_resnet", None)(images))


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """Weights of torchvision's in an empty cache, without a network; plants random ones."""
    monkeypatch.setattr(torch.hub, "_hub_dir", str(tmp_path))
    monkeypatch.setattr("torch.hub.urlopen", refuse)
    (tmp_path / "checkpoints").mkdir(exist_ok=True)

    def plant(entry, model):
        file = tmp_path / "checkpoints" / entry.url.rpartition("/")[2]
        torch.save(model.state_dict(), file)
        return file

    return plant


@pytest.mark.happens(
    "Weights",
    "a member of torchvision's enumeration of weights",
    "taken as its name is",
)
@pytest.mark.parametrize(
    "weights",
    [ResNet18_Weights.DEFAULT, ResNet18_Weights.IMAGENET1K_V1, "IMAGENET1K_V1", "DEFAULT", True],
)
@pytest.mark.slow
def test_torchvisions_ways_to_name_published_weights(weights, hub):
    model = torchvision.models.resnet18()
    hub(ResNet18_Weights.DEFAULT, model)
    loaded = tt.load_backbone("resnet18", weights)
    assert torch.equal(loaded.model.fc.weight, model.fc.weight)


@pytest.mark.happens(
    "Weights",
    "another classifier's published weights",
    "refused, both named",
)
@pytest.mark.parametrize("name", ["resnet18", "timm/resnet50", LITE0, "demo_resnet"])
def test_weights_of_another_classifier_are_refused(name):
    with pytest.raises(tt.TTAMEError, match=f"of another classifier than {name}; give its own"):
        tt.load_backbone(name, ResNet50_Weights.DEFAULT)


@pytest.mark.happens(
    "Weights",
    "published weights, and no network",
    "read from the cache, or told what to copy there",
)
def test_published_weights_come_from_the_cache_or_say_what_to_do(hub):
    with pytest.raises(
        tt.TTAMEError, match=r"neither in the cache.*URLError: .*no network.*weights='path"
    ):
        tt.load_backbone("resnet18")
    model = torchvision.models.resnet18()
    hub(ResNet18_Weights.DEFAULT, model)
    images = torch.rand(1, 3, 224, 224)
    backbone = tt.load_backbone("resnet18")
    expected = model.eval()(backbone.standardise(images))
    assert torch.allclose(backbone(images), expected, atol=1e-4)


@pytest.mark.happens(
    "Weights",
    "a cached file that does not fit",
    "said so, and no network blamed",
)
def test_what_is_in_the_cache_and_does_not_fit_is_no_missing_network(hub):
    hub(ResNet18_Weights.DEFAULT, torchvision.models.resnet34())
    with pytest.raises(tt.TTAMEError, match=r"weights 'DEFAULT' \(RuntimeError: .*Unexpected") as e:
        tt.load_backbone("resnet18")
    assert "neither in the cache" not in str(e.value)


def refuse(*args, **kwargs):
    raise URLError("no network")


def test_vit_tiny_is_torchvisions_class_and_has_no_published_weights():
    backbone = tt.load_backbone("vit_ti_16", weights=None)
    assert backbone.shapes == ((192, 14, 14),) * 3 and backbone.prefix_tokens == 1
    assert sum(p.numel() for p in backbone.model.parameters()) == 5_717_416
    with pytest.raises(tt.TTAMEError, match="give a file, or load timm/vit_tiny_patch16_224"):
        tt.load_backbone("vit_ti_16")


def test_weights_of_ones_own_come_with_their_preprocessing():
    own = {"bgr": True, "mean": (0.1, 0.2, 0.3), "std": (1.0, 1.0, 1.0), "resize": 240}
    backbone = tt.load_backbone("squeezenet1_1", None, preprocessing=own)
    image = torch.rand(1, 3, 4, 4)
    blue, green, red = backbone.standardise(image)[0]
    assert torch.allclose(blue, image[0, 2] - 0.1) and torch.allclose(red, image[0, 0] - 0.3)
    assert torch.allclose(green, image[0, 1] - 0.2)
    assert backbone.preprocessing.resize == 240 and backbone.preprocessing.image_size == 224
    whole = tt.load_backbone("squeezenet1_1", None, preprocessing=backbone.preprocessing)
    assert whole.preprocessing == backbone.preprocessing
    with pytest.raises(tt.TTAMEError, match="unexpected keyword argument 'men'; expected fields"):
        tt.load_backbone("squeezenet1_1", None, preprocessing={"men": 0})
    with pytest.raises(tt.TTAMEError, match=r"resize of a preprocessing is 256; .*image_size, 448"):
        tt.load_backbone("squeezenet1_1", None, preprocessing={"image_size": 448})


@pytest.mark.happens(
    "Preprocessing and labels",
    "another `img_size` or `image_size`",
    "the preprocessing follows",
)
@pytest.mark.parametrize(
    ("name", "options", "size", "resize", "side"),
    [
        ("timm/vit_tiny_patch16_224", {"img_size": 384}, 384, 426, 24),
        ("timm/vit_tiny_patch16_224", {"img_size": (96, 96)}, 96, 106, 6),
        ("vit_b_16", {"image_size": 64}, 64, 73, 4),
        ("vit_ti_16", {"image_size": 64}, 64, 71, 4),
    ],
)
@pytest.mark.slow
def test_the_preprocessing_follows_the_size_that_a_constructor_is_given(
    name, options, size, resize, side
):
    backbone = tt.load_backbone(name, None, **options)
    assert backbone.preprocessing.image_size == size and backbone.preprocessing.resize == resize
    assert backbone.shapes[-1][1:] == (side, side)
    assert set(tt.list_taps(name, **options).values()) >= {backbone.shapes[-1]}
    if name.startswith("timm/"):
        config = resolve_data_config({"img_size": size}, model=backbone.model)
        assert int(size / config["crop_pct"]) == resize


@pytest.mark.happens(
    "Weights",
    "a published ViT at another size of image",
    "position embeddings are interpolated",
)
def test_published_position_embeddings_are_interpolated_to_another_size(hub, monkeypatch):
    narrow = {"patch_size": 16, "num_layers": 3, "num_heads": 1, "hidden_dim": 8, "mlp_dim": 8}

    def make(name, weights=None, image_size=224, **options):
        return torchvision.models.VisionTransformer(image_size, **narrow, **options)

    monkeypatch.setattr(torchvision.models, "get_model", make)
    model = make("vit_b_16")
    model.encoder.pos_embedding.data[:] = torch.rand(1, 197, 1)
    torch.nn.init.normal_(model.heads.head.weight)
    hub(ViT_B_16_Weights.DEFAULT, model)
    loaded = tt.load_backbone("vit_b_16", image_size=448)
    assert loaded.preprocessing.image_size == 448 and loaded.shapes[-1][1:] == (28, 28)
    assert torch.equal(loaded.model.heads.head.weight, model.heads.head.weight)
    own, theirs = loaded.model.encoder.pos_embedding, model.encoder.pos_embedding
    assert torch.equal(own[:, 0], theirs[:, 0])
    corners = (
        own[:, 1:].reshape(28, 28, 8)[::27, ::27],
        theirs[:, 1:].reshape(14, 14, 8)[::13, ::13],
    )
    assert torch.allclose(*corners, atol=1e-5)


@pytest.mark.happens(
    "Weights",
    "a size or an option that the classifier does not take",
    "refused in words",
)
@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("timm/vit_tiny_patch16_224", {"img_size": (384, 224)}, "image size is .*expected one num"),
        ("timm/vit_base_patch16_sapiens2", {"num_classes": 10}, r"image size is \(3, 1024, 768\)"),
        ("timm/vit_tiny_patch16_224", {"img_size": 0}, "cannot be built with options .*positive"),
        ("vit_ti_16", {"image_size": 65}, "cannot be built .*AssertionError: .*indivisible"),
        ("resnet18", {"image_size": 64}, "cannot be built .*unexpected keyword .*correct them"),
        ("timm/resnet18", {"img_size": 64}, "cannot be built .*unexpected keyword"),
        ("resnet18", {"num_classes": -1}, "cannot be built with options .*RuntimeError: .*negat"),
        ("vit_ti_16", {"preprocessing": SMALL}, "cannot classify images .*Expected 224 but got 64"),
    ],
)
def test_sizes_and_options_that_a_classifier_does_not_take(name, options, message):
    with pytest.raises(tt.TTAMEError, match=message):
        tt.load_backbone(name, None, **options)


@pytest.mark.happens(
    "Weights",
    "published weights with another number of classes, or without a head",
    "refused before anything is downloaded",
)
@pytest.mark.parametrize(
    ("name", "weights", "options", "message"),
    [
        ("timm/resnet18", "DEFAULT", {"num_classes": 10}, "have a head for 1000 classes, and anot"),
        ("timm/resnet18", "a1_in1k", {"num_classes": 0}, "num_classes=0 of .*head for 1000 class"),
        ("timm/vit_tiny_patch16_224.augreg_in21k", True, {"num_classes": 1000}, "for 21843 class"),
        ("timm/vit_small_patch14_dinov2", "DEFAULT", {}, "no trained head, they end in features"),
        ("vit_small_patch14_dinov2", "DEFAULT", {"num_classes": 9}, "no trained head, they end in"),
        ("vit_base_patch32_clip_224.openai", "DEFAULT", {}, "end in a projection to 512 features"),
        ("timm/vit_small_patch16_18x2_224", "DEFAULT", {}, "has no weights 'DEFAULT'; it has none"),
        ("vgg16", "IMAGENET1K_FEATURES", {}, "those of features, without a trained head"),
    ],
)
def test_weights_without_a_trained_head_are_refused_before_they_are_fetched(
    name, weights, options, message, monkeypatch
):
    monkeypatch.setattr(timm, "create_model", refuse)
    monkeypatch.setattr(torchvision.models, "get_model", refuse)
    with pytest.raises(tt.TTAMEError, match=message):
        tt.load_backbone(name, weights, **options)


@pytest.mark.happens(
    "Weights",
    "a file of weights with a head of another size",
    "refused, shapes told",
)
def test_a_head_of_another_size_does_not_get_the_wheels_weights():
    with pytest.raises(tt.TTAMEError, match=r"weights in the package of .*\(1000,\).*num_classes"):
        tt.load_backbone(LITE0, num_classes=10)


def test_every_published_head_of_timm_is_of_classes_that_have_names_or_is_refused(monkeypatch):
    taken = {}

    def built(name, pretrained, **options):
        taken[name] = timm.get_pretrained_cfg(name).num_classes
        raise OSError

    monkeypatch.setattr(timm, "create_model", built)
    for name in timm.list_pretrained():
        with pytest.raises(tt.TTAMEError, match=r"neither in the cache|no trained head"):
            loading.build(name, "DEFAULT", {})
    assert set(taken.values()) == {1000, 11221, 11821, 21841, 21842, 21843, *loading.NAMELESS}
    assert len(taken) > 1400
    assert not [name for name in taken if name.endswith((".openai", ".webli", ".metaclip_400m"))]


def test_every_published_head_of_torchvision_is_of_imagenets_classes():
    heads = [
        tuple(entry.meta["categories"] or ())
        for name in loading.TORCHVISION
        for entry in torchvision.models.get_model_weights(name)
    ]
    assert len(heads) > 100 and set(heads) == {IMAGENET_CLASSES, ()}


@pytest.mark.parametrize(("name", "options"), [("vit_b_16", {"image_size": 32}), ("vit_ti_16", {})])
def test_a_random_vit_tells_images_apart(name, options):
    model, _ = loading.build(name, None, {}, **options)
    images = torch.rand(2, 3, model.image_size, model.image_size)
    with torch.no_grad():
        first, second = model(images)
    assert not torch.allclose(first, second, atol=1e-3)
