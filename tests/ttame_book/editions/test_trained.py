"""Trainings of an edition: described by its settings, done once, found again."""

import pytest
import torch

import ttame_book as tb
import ttame_core as tt
from tests.commands import ROOT
from tests.ttame_book.smoke import read
from ttame_core.classifiers.taps import blocks_over_depth
from ttame_core.errors import NotServedError


def test_a_matched_training_has_masks_as_evaluated_and_a_transformers_maps_spread_and_smooth(
    edition,
):
    cnn = edition.backbone("demo_resnet")
    training = edition.training(cnn, method="t-tame-matched")
    assert training.backbone.taps == cnn.taps
    assert (training.variant, training.recipe.mask) == ("scaled", "min-max")
    assert edition.recipe("demo_resnet").mask == "sigmoid"
    vit = edition.backbone("demo_vit")
    training = edition.training(vit, method="t-tame-matched")
    assert (training.variant, training.recipe.mask) == ("smooth", "min-max")
    matched = training.backbone
    assert (matched.masking, matched.name) == (vit.masking, vit.name)
    blocks = blocks_over_depth(vit.model, vit.taps[-1])
    assert matched.taps == tuple(f"{block}.ln_1" for block in blocks)


def test_a_matched_warm_start_is_for_cnns_and_keeps_its_sigmoid(edition):
    training = edition.training(edition.backbone("demo_resnet"), method="t-tame-warm-matched")
    recipe = training.recipe
    assert (training.variant, recipe.start, recipe.mask) == ("squashed", "warm", "min-max")
    with pytest.raises(NotServedError, match="works on tokens, t-tame-warm-matched is for CNNs"):
        edition.training(edition.backbone("demo_vit"), method="t-tame-warm-matched")


def test_a_method_has_its_own_rate_on_each_backbone():
    edition = tb.Edition.read("imagenette", root=ROOT)
    methods = ("t-tame", "t-tame-matched", "t-tame-top")
    rates = {}
    for name in ("efficientnet_lite0", "resnet18"):
        backbone = tt.load_backbone(name, weights=None)
        rates[name] = [edition.training(backbone, method=m).recipe.max_lr for m in methods]
    assert rates == {
        "efficientnet_lite0": [0.003, 0.03, 3e-4],
        "resnet18": [0.01, 0.03, 1e-3],  # the edition's own, and the method's
    }


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


def test_an_explainer_of_other_taps_or_masking_is_trained_anew(tmp_path):
    edition, steps = read(tmp_path, steps=2), []
    for options in ({}, {"masking": "standardised"}, {"taps": ["layer3", "layer4"]}):
        model = tt.load_backbone("demo_resnet", **options)
        edition.explainer(model, lambda done, total: steps.append(done))
    assert steps == [1, 2] * 3


def test_a_variant_has_files_of_its_own(tmp_path):
    edition = read(tmp_path, variant="no_skip")
    names = [f.name for f in edition.training_files("demo_resnet")]
    assert names == ["explainer-no_skip.safetensors", "training-no_skip.csv"]
