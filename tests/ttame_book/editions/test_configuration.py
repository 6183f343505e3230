"""Configurations: what they may hold, how settings overrule them, where the project lies."""

from pathlib import Path

import pytest

import ttame_book as tb
import ttame_core as tt
from tests.commands import ROOT
from tests.ttame_book.smoke import read
from ttame_book.editions.configuration import validate


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
        tb.Edition.read("smoke", settings, root=ROOT)


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
    from ttame_book.editions import configuration

    root = Path(__file__).parents[3]
    monkeypatch.chdir(root / "notebooks")
    assert configuration.project_root() == root
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(configuration, "__file__", str(tmp_path / "site" / "core" / "c.py"))
    with pytest.raises(tt.TTAMEError, match="no project found"):
        configuration.project_root()
