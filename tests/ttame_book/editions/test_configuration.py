"""Configurations: what they may hold, how settings overrule them, where the project lies."""

from copy import deepcopy

import pytest
import yaml

import ttame_book as tb
import ttame_core as tt
from tests.commands import ROOT
from tests.ttame_book.smoke import read
from ttame_book.editions import configuration
from ttame_book.editions.configuration import in_short, overrule, validate
from ttame_book.report.claims import FAMILIES


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"stepps": 3}, "stepps"),
        ({"steps": 0}, r"the parameters given, .*steps is 0; expected at least 1"),
        ({"variant": "no-skip"}, "no_skip"),
        ({"methods": ["gradcam"]}, "gradcam"),
        ({"data_root": "photos"}, "choose the edition imagenette"),
    ],
)
def test_bad_settings(settings, message):
    with pytest.raises(tt.TTAMEError, match=message):
        tb.Edition.read("smoke", settings, root=ROOT)


def test_a_configuration_that_names_no_data_or_half_a_folder(tmp_path):
    folder = {"kind": "folder", "root": "x", "val": 1}
    config = {**read(tmp_path).config, "data": {"digits": folder}}
    with pytest.raises(tt.TTAMEError, match=r"mine\.yaml, data\.digits: test must be given"):
        validate(config, ROOT, "mine.yaml")
    config["data"] = {"digit": {"kind": "digits"}}
    with pytest.raises(tt.TTAMEError, match="data 'digits' is unknown; did you mean 'digit'"):
        validate(config, ROOT, "mine.yaml")
    config = {**read(tmp_path).config, "download": "imagenette"}
    with pytest.raises(tt.TTAMEError, match=r"mine\.yaml, download: data 'imagenette' is unknown"):
        validate(config, ROOT, "mine.yaml")


def test_an_optional_backbone_without_its_file_is_left_out(tmp_path):
    edition = tb.Edition.read("imagenette", results=str(tmp_path))
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


def test_the_project_is_found_from_below_and_the_lack_of_one_is_said(tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT / "notebooks")
    assert configuration.project_root() == ROOT
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(configuration, "__file__", str(tmp_path / "site" / "core" / "c.py"))
    with pytest.raises(tt.TTAMEError, match="no project found"):
        configuration.project_root()


def test_the_configuration_names_the_backbone_that_stands_for_each_family(tmp_path):
    edition = read(tmp_path)
    assert edition.families == {"resnet": "demo_resnet", "vit": "demo_vit"}
    config = deepcopy(edition.config)
    config["claims"] = {"vgg": "demo_vgg"}
    message = (
        r"mine\.yaml, claims\.vgg: backbone 'demo_vgg' is unknown; .*valid: demo_resnet, demo_vit"
    )
    with pytest.raises(tt.TTAMEError, match=message):
        validate(config, ROOT, "mine.yaml")
    config["claims"] = {"vggs": "demo_vit"}
    with pytest.raises(tt.TTAMEError, match="'vggs' is unknown, did you mean 'vgg'"):
        validate(config, ROOT, "mine.yaml")
    config["claims"] = {"vit": "demo_vit"}
    config["backbones"]["demo_vit"]["scored"] = False
    with pytest.raises(tt.TTAMEError, match=r"claims\.vit: backbone 'demo_vit' is unknown"):
        validate(config, ROOT, "mine.yaml")  # as a gallery decides nothing
    config["backbones"]["demo_resnet"]["scored"] = False
    with pytest.raises(tt.TTAMEError, match="backbones: none is scored; expected one"):
        validate(config, ROOT, "mine.yaml")
    gone = {"data": "digits", "weights": "no/such.safetensors", "optional": True}
    edition.config["backbones"]["demo_vit"] = gone
    assert edition.families == {"resnet": "demo_resnet"}  # as one that is missing stands for none
    del edition.config["claims"]
    assert edition.families == {}


def test_the_families_of_the_schema_are_those_of_the_claims():
    schema = yaml.safe_load((ROOT / "config" / "schema.yaml").read_text())
    assert set(schema["properties"]["claims"]["properties"]) == set(FAMILIES)


def test_settings_overrule_a_copy_and_every_place_where_they_count(tmp_path):
    plain = read(tmp_path)
    before = deepcopy(plain.config)
    settings = {"seed": 5, "max_lr": 0.5, "methods": ["random"], "images": 7}
    changed = overrule(plain.config, settings)
    assert plain.config == before and settings == {
        **{"seed": 5, "max_lr": 0.5, "methods": ["random"], "images": 7}
    }
    assert changed["seed"] == 5
    assert changed["train"] == before["train"] | {"max_lr": 0.5}
    assert all(e["train"]["max_lr"] == 0.5 for e in changed["backbones"].values())
    evaluated = {"methods": ["random"], "images": 7, "road_images": 7}
    assert changed["evaluate"] == before["evaluate"] | evaluated
    same = ("data", "ablate", "tune", "sanity", "counterfactual", "converge", "claims")
    assert {name: changed[name] for name in same} == {name: before[name] for name in same}
    with pytest.raises(tt.TTAMEError, match=r"settings \['stepps'\] are unknown"):
        overrule(plain.config, {"stepps": 1})


def test_another_folder_of_photographs_is_taken_whole_and_nothing_is_downloaded(tmp_path):
    edition = tb.Edition.read("imagenette", {"data_root": str(tmp_path)}, root=ROOT)
    assert "download" in tb.Edition.read("imagenette", root=ROOT).config
    assert "download" not in edition.config
    assert edition.config["data"]["imagenette"]["root"] == str(tmp_path)
    (tmp_path / "val").mkdir()
    assert edition.photographs("efficientnet_lite0", "train", "val") == [tmp_path / "val"]


@pytest.mark.parametrize(
    ("settings", "short"),
    [
        ({}, ""),
        ({"steps": 2, "images": 3}, "images=3,steps=2"),
        ({"methods": ["t-tame", "grad-cam++"]}, "methods=t-tame+grad-cam++"),
        ({"variant": "a b/c"}, "variant=a-b-c"),
    ],
)
def test_a_folder_is_named_after_its_settings(settings, short):
    assert in_short(settings) == short


def test_long_settings_and_folders_of_one_name_are_told_apart():
    methods = [f"method-{i}" for i in range(30)]
    names = {in_short({"methods": methods}), in_short({"methods": methods[:-1]})}
    names |= {in_short({"data_root": place}) for place in ("a/photos", "b/photos")}
    assert len(names) == 4 and all(len(name) < 80 for name in names)


def test_what_the_schema_leaves_open_is_filled_from_the_registries():
    edition = yaml.safe_load((ROOT / "config" / "smoke.yaml").read_text())
    for place, name, near in (
        (("train", "variant"), "propsed", "proposed"),
        (("train", "other_classes"), "uniforms", "uniform"),
        (("evaluate", "methods"), ["grad-camm"], "grad-cam"),
    ):
        config = deepcopy(edition)
        config[place[0]][place[1]] = name
        with pytest.raises(tt.TTAMEError, match=near):
            validate(config, ROOT, "mine.yaml")
    validate(edition, ROOT, "mine.yaml")


@pytest.mark.happens(
    "Configurations and parameters",
    "-p steps where methods have steps of their own",
    "overrules all",
)
@pytest.mark.slow
def test_a_number_of_steps_overrules_every_training_whatever_its_own():
    edition = tb.Edition.read("imagenette", {"steps": 2, "max_lr": 0.5}, root=ROOT)
    plain = tb.Edition.read("imagenette", root=ROOT)
    for name in ("efficientnet_lite0", "vit_ti_16"):
        backbone = tt.load_backbone(name, weights=None)
        for method in ("t-tame", "t-tame-top", "t-tame-matched", "t-tame-rise"):
            recipe = edition.training(backbone, method=method).recipe
            assert recipe.steps == 2, (name, method)
            # AdamW's rate is its own: no rate of SGD's suits it
            assert recipe.max_lr == 0.5 or recipe.optimizer == "adamw", (name, method)
            assert plain.training(backbone, method=method).recipe.steps > 2


def test_a_rate_overrules_those_of_images_too_and_a_variant_only_that_of_the_method_itself(
    tmp_path,
):
    config = read(tmp_path).config
    config["data"]["digits"]["recipe"] = {"max_lr": 0.2, "momentum": 0.5}
    config["trained"] = {"t-tame-rise": {"variant": "smooth", "steps": 9, "max_lr": 0.3}}
    changed = overrule(config, {"max_lr": 0.4, "variant": "no_skip"})
    assert changed["data"]["digits"]["recipe"]["max_lr"] == 0.4
    assert changed["data"]["digits"]["recipe"]["momentum"] == 0.5
    expected = {"variant": "smooth", "steps": 9, "max_lr": 0.4}
    assert changed["trained"]["t-tame-rise"] == expected
    assert changed["train"]["variant"] == "no_skip"
