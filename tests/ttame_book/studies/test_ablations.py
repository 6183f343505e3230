"""Ablations differ from the proposed method in exactly the parts they name."""

from dataclasses import replace

import pandas as pd
import pytest
import torch

import ttame_core as tt
from ttame_book.studies.ablations import ablated, ablations, beyond, by_taps, study_recipe
from ttame_core.classifiers.taps import blocks_over_depth


def listed(name):
    backbone = tt.load_backbone(name, None)
    return ablations(backbone, tt.Recipe(), seeds=[1])


def rows(name):
    """Those of a backbone with one set of taps, by table and label."""
    found = {(a.table, a.label): a for a in listed(name)}
    assert len(found) == len(listed(name))
    return found


def test_a_vgg_has_table_vi_for_both_sets_of_taps():
    six = {
        "proposed": "proposed",
        "no skip": "no_skip",
        "no skip, no batch norm": "no_skip_no_batch_norm",
        "sigmoid in the branch": "sigmoid",
        "two layers": "two_taps",
        "one layer": "one_tap",
    }
    of_vgg = [a for a in listed("demo_vgg") if a.table == "VI"]
    for taps in ("max-pool", "conv"):
        own = [a for a in of_vgg if a.named_taps == taps]
        assert {a.label: a.variant for a in own} == six and len(own) == 6
        assert {a.taps for a in own} == {taps}
    assert len(of_vgg) == len({a.name for a in of_vgg}) == 12  # a file each
    of_vit = [a for a in listed("demo_vit") if a.table == "VI"]
    assert {a.label: a.variant for a in of_vit} == six
    assert {(a.taps, a.named_taps) for a in of_vit} == {(None, "")}


def test_masking_is_matched_or_the_other_familys():
    assert rows("demo_resnet")["VII", "mismatched"].masking == "standardised"
    assert rows("demo_vit")["VII", "mismatched"].masking == "image"
    assert rows("demo_vit")["VII", "matched"].masking == "standardised"


def test_each_departure_of_the_released_code_changes_one_thing():
    for name in ("demo_resnet", "demo_vit"):
        for (kind, label), ablation in rows(name).items():
            if kind != "released":
                continue
            changed = [
                ablation.taps is not None,
                ablation.evaluated_with is not None,
                bool(ablation.changes),
            ]
            assert sum(changed) == (label != "as in the paper"), label
    norms = rows("demo_vit")["released", "taps at the norms"].taps
    assert norms == [f"{tap}.ln_1" for tap in tt.load_backbone("demo_vit", None).taps]


@pytest.mark.slow
def test_a_training_that_two_tables_share_is_done_once(edition):
    recipe = study_recipe(edition, "demo_resnet")
    assert recipe.steps == 2
    model, told = edition.backbone("demo_resnet"), []
    asked = ablations(model, recipe, [1])
    explainers = ablated(
        edition, "demo_resnet", asked, lambda what: told.append(what) or (lambda *steps: None)
    )
    assert [e.variant for e in explainers] == [a.variant for a in asked]
    kept = edition.folder("demo_resnet") / "studies" / "ablations"
    once = {file.stem for file in kept.glob("*.safetensors")}
    assert {"VI-proposed", "seeds-seed_1", "released-variation_term"} <= once
    # all the proposed one again
    assert not once & {"VII-matched", "seeds-seed_0", "released-as_in_the_paper"}
    assert told == [f"{len(once) - 1} trainings together", "1 trainings together"]
    vit = [
        rows("demo_vit")["released", name]
        for name in ("as in the paper", "raw masks in evaluation")
    ]
    plain, raw = ablated(edition, "demo_vit", vit)
    assert (plain.backbone.masking, raw.backbone.masking) == ("standardised", "image")
    assert all(map(torch.equal, plain.state_dict().values(), raw.state_dict().values()))


def test_a_set_of_taps_goes_from_the_row_to_the_backbone():
    methods = ["no skip, no batch norm", "no skip, no batch norm", "matched"]
    scores = pd.DataFrame({"method": methods, "backbone": "vgg16", "taps": ["conv", "", None]})
    before = scores.copy()
    moved = by_taps(scores)
    assert moved["method"].tolist() == methods
    assert moved["backbone"].tolist() == ["vgg16, conv taps", "vgg16", "vgg16"]
    pd.testing.assert_frame_equal(scores, before)
    without = by_taps(scores.drop(columns="taps"))  # no backbone with several sets
    assert without["backbone"].tolist() == ["vgg16"] * 3


def test_taps_that_are_no_blocks_have_no_norms_to_be_compared_with(edition):
    vit = edition.backbone("demo_vit").with_taps("spread-norms")
    labels = {a.label for a in ablations(vit, edition.recipe("demo_vit"))}
    assert "taps at the norms" not in labels and "raw masks in evaluation" in labels


@pytest.mark.slow
def test_what_goes_beyond_the_paper_is_taken_apart(edition):
    vit = edition.backbone("demo_vit")
    assert beyond(edition, vit) == []
    edition.config["evaluate"]["methods"] += ["t-tame-matched"]
    asked = beyond(edition, vit)
    explainers = ablated(edition, "demo_vit", asked)
    rows = {a.label: e for a, e in zip(asked, explainers, strict=True)}
    assert list(rows) == [
        "the paper's recipe",
        "t-tame-matched",
        "matched, sigmoid masks",
        "matched, the paper's weights",
        "matched, last blocks",
        "matched, outputs of the blocks",
        "matched, no smoothing",
    ]
    smoothed = {label for label, e in rows.items() if e.attention.smoothing}
    assert smoothed == set(list(rows)[1:-1])
    norms = edition.training(vit, method="t-tame-matched").backbone.taps
    taps = {label: e.backbone.taps for label, e in rows.items()}
    assert {label for label in rows if taps[label] == vit.taps} == {"the paper's recipe"}
    assert taps["matched, last blocks"] == tuple(f"{block}.ln_1" for block in vit.taps)
    outputs = taps["matched, outputs of the blocks"]
    assert outputs == blocks_over_depth(vit.model, vit.taps[-1])
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


def test_whole_recipes_are_trained_by_each_seed_and_seed_0_is_the_editions_own(edition):
    edition.config["ablate"] |= {"steps": 1, "seeds": [4], "whole": ["t-tame", "l-cam-img"]}
    edition.config["train"]["steps"] = 3
    asked = beyond(edition, edition.backbone("demo_vit"))
    assert [(a.method, a.seed) for a in asked] == [("t-tame", 0), ("t-tame", 4)]  # a ViT's
    own = edition.explainer(edition.backbone("demo_vit"))
    first, other = ablated(edition, "demo_vit", asked)
    weights = [e.attention.fusion.weight for e in (own, first, other)]
    assert torch.equal(*weights[:2]) and not torch.equal(*weights[1:])
    (record,) = (edition.folder("demo_vit") / "studies").rglob("*.csv")  # of seed 4 alone
    assert pd.read_csv(record)["step"].tolist() == [0, 1, 2]


@pytest.mark.slow
def test_the_matched_warm_start_is_taken_apart_on_a_cnn(edition):
    edition.config["evaluate"]["methods"] += ["t-tame-warm-matched"]
    edition.config["trained"] = {"t-tame-warm-matched": {"loss": {"area": 9.0}}}
    cnn = edition.backbone("demo_resnet")
    asked = beyond(edition, cnn)
    explainers = ablated(edition, "demo_resnet", asked)
    rows = {a.label: e for a, e in zip(asked, explainers, strict=True)}
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


def test_an_ablation_is_trained_as_it_says_once_and_kept_with_the_studies(edition):
    done = []
    one_layer = rows("demo_vit")["VI", "one layer"]
    first = ablated(edition, "demo_vit", [one_layer], lambda _: lambda *steps: done.append(steps))[
        0
    ]
    assert done == [(1, 2), (2, 2)]  # no more steps than the edition gives its ablations
    assert len(first.attention.branches) == 1 and first.backbone.masking == "standardised"
    studies = edition.folder("demo_vit") / "studies" / "ablations"
    assert {f.name for f in studies.glob("*.safetensors")} == {f"{one_layer.name}.safetensors"}
    again = ablated(edition, "demo_vit", [one_layer], lambda _: lambda *steps: done.append(steps))[
        0
    ]
    images = torch.rand(2, 3, 64, 64)
    assert len(done) == 2 and torch.equal(first.explain(images), again.explain(images))
    mismatched = rows("demo_vit")["VII", "mismatched"]
    other = ablated(edition, "demo_vit", [mismatched], lambda _: lambda *steps: done.append(steps))[
        0
    ]
    assert len(done) == 4 and other.backbone.masking == "image"


def test_a_study_has_no_more_steps_than_the_edition_gives_it(edition):
    own = edition.recipe("demo_vit")
    assert study_recipe(edition, "demo_vit") == replace(own, steps=2)
    edition.config["ablate"]["steps"] = 100
    assert study_recipe(edition, "demo_vit") == own
    longer = replace(own, steps=1000, max_lr=0.5)
    assert study_recipe(edition, "demo_vit", longer) == replace(longer, steps=100)
