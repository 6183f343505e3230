"""Editions: settings, overrules, explainers that are trained once."""

import pytest
import torch
from safetensors.torch import save_file

import ttame_book as tb
import ttame_core as tt
from tests.commands import ROOT
from tests.ttame_book.smoke import read
from ttame_book.editions.graph import STEPS, step_key
from ttame_book.editions.kept import kept_answers
from ttame_core.images.reading import Preprocessing
from ttame_core.recipes import Recipe


def test_a_backbones_own_settings_win_over_the_editions():
    edition = tb.Edition.read("demo", root=ROOT)
    assert edition.recipe("demo_vgg") == Recipe(steps=125, batch_size=32, max_lr=0.1)
    own = edition.recipe("efficientnet_lite0")
    assert own.other_classes == "in-batch"
    assert own.loss == tt.LossWeights()


def test_a_weight_that_is_given_leaves_a_methods_other_weights_as_they_are(tmp_path):
    edition = read(tmp_path)
    model = edition.backbone("demo_vit")
    own = edition.training(model, method="t-tame-top").recipe.loss
    assert own.q == 0.5
    edition.config["trained"] = {"t-tame-top": {"loss": {"ce": 2.5}}}
    edition.config["backbones"]["demo_vit"]["trained"] = {"t-tame-top": {"loss": {"area": 3.0}}}
    given = edition.training(model, method="t-tame-top").recipe.loss
    assert (given.q, given.ce, given.area, given.power) == (0.5, 2.5, 3.0, own.power)


def test_given_settings_win_over_both(tmp_path):
    edition = tb.Edition.read("demo", {"max_lr": 0.5, "seed": 7}, root=ROOT)
    assert {edition.recipe(b).max_lr for b in edition.backbones} == {0.5}
    assert edition.seed == 7
    assert tb.Edition.read("demo", root=ROOT).seed == 0


def test_unknown_edition_and_backbone(tmp_path):
    with pytest.raises(tt.TTAMEError, match="did you mean 'demo'"):
        tb.Edition.read("dem", root=ROOT)
    with pytest.raises(tt.TTAMEError, match="did you mean 'demo_vit'"):
        read(tmp_path).backbone("demo_vitt")
    with pytest.raises(tt.TTAMEError, match="did you mean 'resnet50'"):
        tb.Edition.read("demo", root=ROOT).entry("resnet500")


def test_any_imagenet_classifier_runs_on_an_editions_photographs():
    edition = tb.Edition.read("demo", root=ROOT)
    assert edition.entry("timm/vit_tiny_patch16_224") == {"data": "photographs"}
    assert edition.folder("timm/vit_tiny_patch16_224").name == "timm-vit_tiny_patch16_224"


def test_classifiers_run_in_the_editions_precision_and_results_are_told_apart_by_it(tmp_path):
    plain, other = read(tmp_path), read(tmp_path)
    other.config["precision"] = "bfloat16"
    before, after = (edition.backbone("demo_resnet") for edition in (plain, other))
    assert (plain.precisions, other.precisions) == (
        {"demo_resnet": before.precision},
        {"demo_resnet": "bfloat16"},
    )
    assert read(tmp_path).precisions == {}
    on_gpu = torch.cuda.is_available()
    assert on_gpu or before.precision == "float32"
    images = torch.rand(2, 3, 64, 64).to(before.mean.device)
    assert torch.equal(before(images), after(images)) == (before.precision == "bfloat16")
    keys = [{step_key(e, step, "demo_resnet") for step in STEPS} for e in (plain, other)]
    assert not set.intersection(*keys)
    assert plain.training(before).about.items() < other.training(after).about.items()
    if before.precision != after.precision:
        assert kept_answers(plain, before).about != kept_answers(other, after).about


def test_images_are_cropped_as_the_weights_ask_for(tmp_path):
    edition = tb.Edition.read("demo", results=str(tmp_path), root=ROOT)
    small = tt.Backbone(
        torch.nn.Sequential(torch.nn.Conv2d(3, 4, 1), torch.nn.Flatten(), torch.nn.Linear(4096, 2)),
        ["0"],
        name="efficientnet_lite0",
        preprocessing=Preprocessing(image_size=32, resize=40),
    )
    assert edition.images(small, "test")[0]["image"].shape == (3, 32, 32)


def test_other_settings_have_a_folder_of_their_own_and_use_the_editions_explainer(tmp_path):
    plain, other = read(tmp_path), read(tmp_path, methods=["t-tame", "random"], images=3)
    assert other.folder("demo_vit") == (
        plain.home / "variations" / "images=3,methods=t-tame+random" / "demo_vit"
    )
    photos = tb.Edition.read("imagenette", {"data_root": "photos"}, root=ROOT)
    assert photos.overruled.startswith("data_root=photos-")
    others = tb.Edition.read("imagenette", {"data_root": "other/photos"}, root=ROOT)
    assert others.results != photos.results != photos.home
    model, steps = plain.backbone("demo_resnet"), []
    plain.explainer(model)
    other.explainer(model, lambda done, total: steps.append(done))
    assert not steps  # the edition's is of the same recipe
    assert len(read(tmp_path, methods=list(tt.METHODS)).overruled) < 80


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


def test_a_classifier_of_digits_is_none_for_photographs():
    edition = tb.Edition.read("imagenette")
    with pytest.raises(tt.TTAMEError, match="edition imagenette: backbone 'demo_vit' is unknown"):
        edition.entry("demo_vit")
    assert edition.entry("resnet50") == {"data": "imagenette"}
