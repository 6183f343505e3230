"""Editions: settings, overrules, explainers that are trained once."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

import ttame_core as tt
from ttame_core.compared import compared_methods, evaluation_rounds
from ttame_core.configuration import validate
from ttame_core.training import Recipe
from ttame_core.zoo import Preprocessing

ROOT = Path(__file__).parents[1]


def read(tmp_path, **settings):
    return tt.Edition.read("smoke", settings, results=str(tmp_path), root=ROOT)


def test_a_backbones_own_settings_win_over_the_editions():
    edition = tt.Edition.read("demo", root=ROOT)
    assert edition.recipe("demo_vgg") == Recipe(steps=125, batch_size=32, max_lr=0.1)
    own = edition.recipe("efficientnet_lite0")
    assert own.other_classes == "in-batch"
    assert own.loss == tt.LossWeights()


def test_costly_maps_are_found_by_runs_of_other_settings(tmp_path):
    images = torch.rand(1, 3, 64, 64)
    files = []
    for methods in (["rise"], ["rise", "random"]):
        edition = read(tmp_path, methods=methods)
        backbone = edition.backbone("demo_resnet")
        ready, _ = compared_methods(edition, backbone, keep=True)
        ready["rise"](images, torch.tensor([1]))
        files.append(list(tmp_path.rglob("*.npy")))
    assert files[0] == files[1] and len(files[0]) == 1


def test_a_method_has_its_own_rate_on_each_backbone():
    edition = tt.Edition.read("imagenette", root=ROOT)
    methods = ("t-tame", "t-tame-warm", "t-tame-scaled")
    rates = {}
    for name in ("efficientnet_lite0", "squeezenet1_1"):
        backbone = tt.load_backbone(name, weights=None)
        rates[name] = [edition.training(backbone, method=m).recipe.max_lr for m in methods]
    assert rates == {
        "efficientnet_lite0": [0.003, 0.003, 0.03],
        "squeezenet1_1": [0.003, 3e-5, 0.03],
    }


def test_given_settings_win_over_both(tmp_path):
    edition = tt.Edition.read("demo", {"max_lr": 0.5, "seed": 7}, root=ROOT)
    assert {edition.recipe(b).max_lr for b in edition.backbones} == {0.5}
    assert edition.seed == 7
    assert tt.Edition.read("demo", root=ROOT).seed == 0


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"stepps": 3}, "stepps"),
        ({"steps": 0}, "0 is less than"),
        ({"variant": "no-skip"}, "no_skip"),
        ({"methods": ["gradcam"]}, "gradcam"),
        ({"data_root": "photos"}, "choose the edition imagenette"),
    ],
)
def test_bad_settings(settings, message):
    with pytest.raises(tt.TTAMEError, match=message):
        tt.Edition.read("smoke", settings, root=ROOT)


def test_a_configuration_that_names_no_data_or_half_a_folder(tmp_path):
    folder = {"kind": "folder", "root": "x", "val": 1}
    config = {**read(tmp_path).config, "data": {"digits": folder}}
    with pytest.raises(tt.TTAMEError, match=r"data\.digits: 'test' is a required property"):
        validate(config, ROOT, "mine.yaml")
    config["data"] = {"digit": {"kind": "digits"}}
    with pytest.raises(tt.TTAMEError, match="data 'digits' is unknown; did you mean 'digit'"):
        validate(config, ROOT, "mine.yaml")
    config = {**read(tmp_path).config, "download": "imagenette"}
    with pytest.raises(tt.TTAMEError, match=r"mine\.yaml, download: data 'imagenette' is unknown"):
        validate(config, ROOT, "mine.yaml")


def test_unknown_edition_and_backbone(tmp_path):
    with pytest.raises(tt.TTAMEError, match="did you mean 'demo'"):
        tt.Edition.read("dem", root=ROOT)
    with pytest.raises(tt.TTAMEError, match="did you mean 'demo_vit'"):
        read(tmp_path).backbone("demo_vitt")
    with pytest.raises(tt.TTAMEError, match="did you mean 'resnet50'"):
        tt.Edition.read("demo", root=ROOT).entry("resnet500")


def test_any_imagenet_classifier_runs_on_an_editions_photographs():
    edition = tt.Edition.read("demo", root=ROOT)
    assert edition.entry("timm/vit_tiny_patch16_224") == {"data": "photographs"}
    assert edition.folder("timm/vit_tiny_patch16_224").name == "timm-vit_tiny_patch16_224"


def test_images_are_cropped_as_the_weights_ask_for(tmp_path):
    edition = tt.Edition.read("demo", results=str(tmp_path), root=ROOT)
    small = tt.Backbone(
        torch.nn.Sequential(torch.nn.Conv2d(3, 4, 1), torch.nn.Flatten(), torch.nn.Linear(4096, 2)),
        ["0"],
        name="efficientnet_lite0",
        preprocessing=Preprocessing(image_size=32, resize=40),
    )
    assert edition.images(small, "test")[0]["image"].shape == (3, 32, 32)


def test_an_explainer_is_trained_once_for_a_recipe(tmp_path):
    steps = []
    first = read(tmp_path, steps=2)
    model = first.backbone("demo_resnet")

    def count(done, total):
        steps.append((done, total))

    trained = first.explainer(model, count)
    assert steps == [(1, 2), (2, 2)]
    again = first.explainer(model, count)
    assert len(steps) == 2
    images = torch.rand(2, 3, 64, 64)
    assert torch.equal(again.explain(images), trained.explain(images))
    read(tmp_path, steps=3).explainer(model, count)
    assert steps[2:] == [(1, 3), (2, 3), (3, 3)]
    variations = tmp_path / "smoke" / "variations"
    assert {p.name for p in variations.iterdir()} == {"steps=2", "steps=3"}
    names = {"explainer.safetensors", "training.csv", "explainer.checkpoint"}
    assert {p.name for p in (variations / "steps=2" / "demo_resnet").iterdir()} == names


def test_other_settings_have_a_folder_of_their_own_and_use_the_editions_explainer(tmp_path):
    plain, other = read(tmp_path), read(tmp_path, methods=["t-tame", "random"], images=3)
    assert other.folder("demo_vit") == (
        plain.home / "variations" / "images=3,methods=t-tame+random" / "demo_vit"
    )
    photos = tt.Edition.read("imagenette", {"data_root": "photos"}, root=ROOT)
    assert photos.overruled.startswith("data_root=photos-")
    others = tt.Edition.read("imagenette", {"data_root": "other/photos"}, root=ROOT)
    assert others.results != photos.results != photos.home
    model, steps = plain.backbone("demo_resnet"), []
    plain.explainer(model)
    other.explainer(model, lambda done, total: steps.append(done))
    assert not steps  # the edition's is of the same recipe
    assert len(read(tmp_path, methods=list(tt.METHODS)).overruled) < 80


def test_what_cannot_serve_a_backbone_is_left_out_and_says_why(tmp_path):
    edition = read(tmp_path, methods=["l-cam-img", "grad-cam", "transformer-lrp", "random"])
    cnn, vit = (edition.backbone(name) for name in ("demo_resnet", "demo_vit"))
    ready, left_out = compared_methods(edition, vit)
    assert list(ready) == ["grad-cam", "transformer-lrp", "random"]
    assert left_out == {"l-cam-img": "demo_vit works on tokens, l-cam-img is for CNNs"}
    ready, left_out = compared_methods(edition, cnn)
    assert list(ready) == ["l-cam-img", "grad-cam", "random"]
    assert "demo_resnet is no ViT" in left_out["transformer-lrp"]


def test_costly_methods_are_scored_on_fewer_images(tmp_path):
    edition = read(tmp_path)
    model = edition.backbone("demo_vit")
    methods = dict.fromkeys(["rise", "grad-cam", "random"])
    groups = evaluation_rounds(edition, model, methods)
    assert [(len(images), list(some)) for images, some in groups] == [
        (24, ["grad-cam", "random"]),
        (8, ["rise"]),
    ]
    everything = {item["id"] for item in groups[0][0]}
    assert {item["id"] for item in groups[1][0]} < everything
    assert len(evaluation_rounds(edition, model, methods, "road_images")) == 1  # 6 are fewer than 8


def test_an_explainer_of_other_taps_or_masking_is_trained_anew(tmp_path):
    edition, steps = read(tmp_path, steps=2), []
    for options in ({}, {"masking": "standardised"}, {"taps": ["layer3", "layer4"]}):
        model = tt.load_backbone("demo_resnet", **options)
        edition.explainer(model, lambda done, total: steps.append(done))
    assert steps == [1, 2] * 3


def test_retrained_weights_are_taken_where_they_are(tmp_path):
    edition = read(tmp_path)
    other = tt.load_backbone("demo_resnet", weights=None)
    (tmp_path / "smoke" / "backbones").mkdir(parents=True)
    save_file(
        {k: v.contiguous() for k, v in other.model.state_dict().items()},
        tmp_path / "smoke" / "backbones" / "demo_resnet.safetensors",
    )
    images = torch.rand(2, 3, 64, 64)
    assert torch.equal(edition.backbone("demo_resnet")(images), other(images))


def test_a_variant_has_files_of_its_own(tmp_path):
    edition = read(tmp_path, variant="no_skip")
    names = [f.name for f in edition.training_files("demo_resnet")]
    assert names == ["explainer-no_skip.safetensors", "training-no_skip.csv"]


def test_an_optional_backbone_without_its_file_is_left_out(tmp_path):
    edition = tt.Edition.read("imagenette", results=str(tmp_path))
    edition.config["backbones"] = {
        "efficientnet_lite0": {"data": "imagenette"},
        "vgg16": {"data": "imagenette", "weights": "DEFAULT", "optional": True},
        "vit_ti_16": {"data": "imagenette", "weights": "no/such.safetensors", "optional": True},
    }
    assert edition.backbones == edition.studied == ["efficientnet_lite0", "vgg16"]
    assert list(edition.missing) == ["vit_ti_16"]
    del edition.config["backbones"]["vit_ti_16"]["optional"]
    assert edition.backbones[-1] == "vit_ti_16"
    with pytest.raises(tt.TTAMEError, match="are no file and no published name"):
        edition.backbone("vit_ti_16")


def test_a_classifier_of_digits_is_none_for_photographs():
    edition = tt.Edition.read("imagenette")
    with pytest.raises(tt.TTAMEError, match="'demo_vit' is unknown to edition imagenette"):
        edition.entry("demo_vit")
    assert edition.entry("resnet50") == {"data": "imagenette"}
