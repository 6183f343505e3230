"""Classifiers by name: their taps, weights and preprocessing, and what bad names are told."""

import pytest
import torch
import torchvision
from safetensors.torch import save_file

import ttame_book as tb
import ttame_core as tt
from ttame_core.classifiers.loading import LITE0


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
