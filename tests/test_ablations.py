"""Ablations differ from the proposed method in exactly the parts they name."""

from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
import torch
from torch import nn

import ttame_core as tt
from ttame_core.ablations import (
    ablate,
    ablations,
    beyond,
    by_taps,
    grid,
    study_recipe,
    training_lengths,
)
from ttame_core.errors import NotServedError
from ttame_core.losses import released_variation_loss, variation_loss
from ttame_core.taps import spread_taps

ROOT = Path(__file__).parents[1]


def kinds(explainer):
    return [type(m).__name__ for m in explainer.attention.modules()]


@pytest.fixture
def edition(tmp_path):
    return tt.Edition.read("smoke", results=str(tmp_path), root=ROOT)


def listed(name):
    backbone = tt.load_backbone(name, None)
    return {(a.table, a.label): a for a in ablations(backbone, tt.Recipe(), seeds=[1])}


def test_the_variants_differ_in_the_parts_they_name(tiny):
    parts = {name: kinds(tt.TTAME(tiny, name)) for name in tt.VARIANTS}
    proposed = parts["proposed"]
    assert proposed.count("BatchNorm2d") == proposed.count("ReLU") == 3
    assert parts["no_skip"] == proposed  # the skip is no module
    assert not any(b.skip for b in tt.TTAME(tiny, "no_skip").attention.branches)
    assert parts["no_skip_no_batch_norm"] == [
        "Identity" if k == "BatchNorm2d" else k for k in proposed
    ]
    assert parts["sigmoid"] == ["Sigmoid" if k == "ReLU" else k for k in proposed]
    for name, count in (("two_taps", 2), ("one_tap", 1)):
        assert parts[name].count("FeatureBranch") == count
    assert parts["l_cam_img"] == ["AttentionMechanism", "ModuleList", "Identity", "Conv2d"]


def test_a_vgg_has_table_vi_for_both_sets_of_taps():
    of_vgg = listed("demo_vgg")
    six = {a.label for a in of_vgg.values() if a.table == "VI"}
    assert len(six) == 12
    assert of_vgg["VI", "one layer, conv taps"].taps == "conv"
    assert of_vgg["VI", "no skip, max-pool taps"].variant == "no_skip"
    assert len([k for k in listed("demo_vit") if k[0] == "VI"]) == 6


def test_masking_is_matched_or_the_other_familys():
    assert listed("demo_resnet")["VII", "mismatched"].masking == "standardised"
    assert listed("demo_vit")["VII", "mismatched"].masking == "image"
    assert listed("demo_vit")["VII", "matched"].masking == "standardised"


def test_each_departure_of_the_released_code_changes_one_thing():
    for name in ("demo_resnet", "demo_vit"):
        for (kind, label), ablation in listed(name).items():
            if kind != "released":
                continue
            changed = [
                ablation.taps is not None,
                ablation.evaluated_with is not None,
                bool(ablation.changes),
            ]
            assert sum(changed) == (label != "as in the paper"), label
    norms = listed("demo_vit")["released", "taps at the norms"].taps
    assert norms == [f"{tap}.ln_1" for tap in tt.load_backbone("demo_vit", None).taps]


def test_the_released_variation_term():
    maps = torch.rand(2, 3, 5, 4)
    border = torch.ones(5, 4).bool()
    border[1:-1, 1:-1] = False
    expected = 20 * variation_loss(maps) + 0.3 * maps[..., border].sum(2).mean()
    assert torch.allclose(released_variation_loss(maps), expected)
    logits, truth = torch.randn(2, 3), torch.tensor([0, 1])
    weights = tt.LossWeights(released_variation=True)
    terms = tt.ttame_loss(logits, truth, maps, weights)
    assert torch.allclose(terms.total, 1.5 * terms.ce + 2 * terms.area + 0.01 * expected)


def test_a_train_mode_backbone_drifts_in_a_copy_only(tiny, noise):
    before = {k: v.clone() for k, v in tiny.state_dict().items()}
    recipe = tt.Recipe(steps=3, batch_size=6, max_lr=0.05)
    explainers = []
    for mode in ("eval", "train"):
        explainer = tt.TTAME(tiny)
        tt.train(explainer, noise, replace(recipe, backbone_mode=mode))
        explainers.append(explainer.attention.fusion.weight)
    assert all(torch.equal(before[k], v) for k, v in tiny.state_dict().items())
    assert not any(m.training for m in tiny.modules())
    assert not torch.equal(*explainers)  # dropout and batch statistics were in the way
    with pytest.raises(tt.TTAMEError, match="'eval' or 'train'"):
        tt.Recipe(backbone_mode="frozen")


def test_a_training_that_two_tables_share_is_done_once(edition):
    recipe = study_recipe(edition, "demo_resnet")
    assert recipe.steps == 2
    model, trained = edition.backbone("demo_resnet"), []
    for ablation in ablations(model, recipe, [1]):
        before = len(trained)
        explainer = ablate(
            edition,
            "demo_resnet",
            ablation,
            lambda done, total, a=ablation: trained.append(a.label),
        )
        assert explainer.variant == ablation.variant
        assert len(trained) - before in (0, 2)
    once = {label for label in trained}
    assert "proposed" in once and "seed 1" in once and "variation term" in once
    assert not once & {"matched", "seed 0", "as in the paper"}  # all the proposed one again
    explainer = ablate(
        edition, "demo_vit", listed("demo_vit")["released", "raw masks in evaluation"]
    )
    assert explainer.backbone.masking == "image"
    assert isinstance(explainer.attention, nn.Module)


def test_the_grid_is_rates_by_steps_and_the_editions_own(edition):
    recipes = grid(edition, "demo_vit")
    grid_of = [(0.03, 2), (0.1, 2), (0.03, 3), (0.1, 3)]  # the last is the edition's own
    assert [(r.max_lr, r.steps) for r in recipes] == grid_of
    edition.config["tune"] |= {"steps": [3], "max_lr": [0.1]}
    assert grid(edition, "demo_vit") == [edition.recipe("demo_vit")]


def test_a_set_of_taps_goes_from_the_row_to_the_backbone():
    rows = ["no skip, no batch norm, conv taps", "no skip, no batch norm", "matched"]
    moved = by_taps(pd.DataFrame({"method": rows, "backbone": "vgg16"}))
    assert moved["method"].tolist() == [
        "no skip, no batch norm",
        "no skip, no batch norm",
        "matched",
    ]
    assert moved["backbone"].tolist() == ["vgg16, conv taps", "vgg16", "vgg16"]


def test_the_rest_of_the_grid_is_the_editions(edition):
    recipes = grid(edition, "demo_vit")
    assert {replace(r, max_lr=0.1, steps=3) for r in recipes} == {edition.recipe("demo_vit")}


def test_each_kind_is_shown_before_and_after_its_trainings(edition):
    edition.config["converge"] = {"steps": [2], "images": 4}
    edition.config["trained"] = {"t-tame-matched": {"steps": 1}}
    model = edition.backbone("demo_resnet", ["layer2", "layer3", "layer4"])
    found = {(method, steps): e for method, steps, e in training_lengths(edition, model)}
    methods = ["t-tame", *(f"t-tame-{k}" for k in ("warm", "scaled", "matched", "warm-matched"))]
    own = edition.recipe("demo_resnet").steps
    lengths = {method: (0, 2, own) for method in methods} | {"t-tame-matched": (0, 1, 2)}
    assert list(found) == [(method, steps) for method in methods for steps in lengths[method]]
    weights = {key: e.attention.fusion.weight for key, e in found.items()}
    assert (weights["t-tame-warm", 0][:, :-80] == 0).all() and (weights["t-tame", 0] != 0).all()
    for method in methods:
        assert not torch.equal(weights[method, 0], weights[method, 2])
    assert found["t-tame", 0].attention.scales is None
    assert (found["t-tame-scaled", 0].attention.scales != 1).all()
    vgg = tt.load_backbone("demo_vgg")  # its head is no one layer on the last tap
    edition.config["backbones"]["demo_vgg"] = {"data": "digits"}
    of_tokens = edition.backbone("demo_vit")
    assert "t-tame-warm-matched" not in {name for name, *_ in training_lengths(edition, of_tokens)}
    assert {name for name, *_ in training_lengths(edition, vgg)} == {
        "t-tame",
        "t-tame-scaled",
        "t-tame-matched",
    }


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
    blocks = spread_taps(vit.model, vit.taps[-1])
    assert matched.taps == tuple(f"{block}.ln_1" for block in blocks)


def test_a_matched_warm_start_is_for_cnns_and_keeps_its_sigmoid(edition):
    training = edition.training(edition.backbone("demo_resnet"), method="t-tame-warm-matched")
    recipe = training.recipe
    assert (training.variant, recipe.start, recipe.mask) == ("squashed", "warm", "min-max")
    with pytest.raises(NotServedError, match="works on tokens, t-tame-warm-matched is for CNNs"):
        edition.training(edition.backbone("demo_vit"), method="t-tame-warm-matched")


def test_blocks_at_the_quarters_of_the_depth():
    model = nn.ModuleDict({"blocks": nn.Sequential(*(nn.Identity() for _ in range(12)))})
    assert spread_taps(model, "blocks.11") == ("blocks.3", "blocks.6", "blocks.9")
    with pytest.raises(NotServedError, match="of blocks's kind there are 1"):
        spread_taps(model, "blocks")


def test_taps_that_are_no_blocks_have_no_norms_to_be_compared_with(edition):
    vit = edition.backbone("demo_vit").with_taps("spread-norms")
    labels = {a.label for a in ablations(vit, edition.recipe("demo_vit"))}
    assert "taps at the norms" not in labels and "raw masks in evaluation" in labels


def test_what_goes_beyond_the_paper_is_taken_apart(edition):
    vit = edition.backbone("demo_vit")
    assert beyond(edition, vit) == []
    edition.config["evaluate"]["methods"] += ["t-tame-scaled", "t-tame-matched"]
    rows = {a.label: ablate(edition, "demo_vit", a) for a in beyond(edition, vit)}
    assert list(rows) == [
        "the paper's recipe",
        "t-tame-scaled",
        "t-tame-matched",
        "matched, sigmoid masks",
        "matched, the paper's weights",
        "matched, last blocks",
        "matched, outputs of the blocks",
        "matched, no smoothing",
    ]
    smoothed = {label for label, e in rows.items() if e.attention.smoothing}
    assert smoothed == set(list(rows)[2:-1])
    norms = edition.training(vit, method="t-tame-matched").backbone.taps
    taps = {label: e.backbone.taps for label, e in rows.items()}
    assert {label for label in rows if taps[label] == vit.taps} == {
        "the paper's recipe",
        "t-tame-scaled",
    }
    assert taps["matched, last blocks"] == tuple(f"{block}.ln_1" for block in vit.taps)
    outputs = taps["matched, outputs of the blocks"]
    assert outputs == spread_taps(vit.model, vit.taps[-1])
    assert {label for label in rows if taps[label] == norms} == {
        "t-tame-matched",
        "matched, sigmoid masks",
        "matched, the paper's weights",
        "matched, no smoothing",
    }
    weights = {label: e.attention.fusion.weight for label, e in rows.items()}
    assert not torch.equal(weights["t-tame-matched"], weights["matched, sigmoid masks"])
    assert rows["the paper's recipe"].attention.scales is None
    assert all(e.attention.scales is not None for e in list(rows.values())[1:])


def test_the_matched_warm_start_is_taken_apart_on_a_cnn(edition):
    edition.config["evaluate"]["methods"] += ["t-tame-warm-matched"]
    edition.config["trained"] = {"t-tame-warm-matched": {"loss": {"area": 9.0}}}
    cnn = edition.backbone("demo_resnet")
    rows = {a.label: ablate(edition, "demo_resnet", a) for a in beyond(edition, cnn)}
    assert list(rows) == [
        "the paper's recipe",
        "t-tame-warm-matched",
        "warm-matched, sigmoid masks",
        "warm-matched, the paper's weights",
        "warm-matched, random start",
        "warm-matched, explained without sigmoid",
    ]
    _, whole, sigmoid, weights, random, raw = rows.values()
    same = torch.equal
    trained = [e.attention.fusion.weight for e in (whole, raw, sigmoid, weights, random)]
    assert same(trained[0], trained[1])  # the training is the same
    assert not any(same(trained[0], other) for other in trained[2:])
    images = torch.rand(2, 3, 64, 64)
    assert not same(whole(images).maps, raw(images).maps)
    assert (whole.attention.branches[0].norm.weight < 0.5).all()  # 0 at the start
    assert (random.attention.branches[0].norm.weight > 0.5).all()
