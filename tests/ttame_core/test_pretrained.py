"""Explainers that come with their classifier, and files of one's own."""

import json

import pytest
import torch

import ttame_core as tt
from ttame_core.__main__ import main


def test_an_explainer_comes_with_its_classifier_and_takes_a_photograph(shipped, photos):
    loaded = tt.load_explainer("demo_resnet")
    image = loaded.backbone.read(photos / "a.png")
    explanation = loaded(photos / "a.png")
    assert torch.equal(explanation.maps, loaded(image).maps)
    assert torch.allclose(explanation.maps, shipped(image).maps, atol=0.02)  # half precision
    assert all(p.dtype == torch.float32 for p in loaded.attention.parameters())


def test_an_unknown_explainer_names_those_there_are(shipped):
    with pytest.raises(tt.TTAMEError, match="did you mean 'demo_resnet'"):
        tt.load_explainer("demo_resnt")


def test_an_explainer_refuses_a_classifier_with_other_weights(shipped):
    with pytest.raises(tt.TTAMEError, match="backbone_fingerprint"):
        tt.load_explainer("demo_resnet", weights=None)


def test_a_file_tells_its_classifiers_preprocessing_and_classes(photos, tmp_path, capsys):
    given = {"image_size": 64, "resize": (70, 66), "mean": (0.4, 0.5, 0.6), "bgr": True}
    backbone = tt.load_backbone("resnet18", None, num_classes=3, preprocessing=given)
    weights, file = str(tmp_path / "weights.pt"), str(tmp_path / "mine.safetensors")
    torch.save(backbone.model.state_dict(), weights)
    tt.TTAME(backbone).save(file)
    loaded = tt.load_explainer(file, weights)
    assert loaded.backbone.preprocessing == backbone.preprocessing
    assert loaded.backbone.num_classes == 3
    out = tmp_path / "out"
    options = ["--explainer", file, "--weights", weights, "--out", str(out)]
    assert main(["explain", str(photos / "a.png"), *options]) == 0
    row = json.loads((out / "explanations.json").read_text())["explanations"][0]
    confidences = backbone(backbone.read(photos / "a.png")).softmax(1)
    assert row["confidence"] == pytest.approx(confidences.max().item(), abs=1e-5)
    for call in (
        lambda: tt.load_explainer(file, weights, preprocessing={"bgr": False}),
        lambda: tt.TTAME.load(file, tt.load_backbone("resnet18", weights, num_classes=3)),
    ):
        with pytest.raises(tt.TTAMEError, match="was trained with preprocessing"):
            call()


def test_a_classifier_without_a_known_name_is_to_be_given(tiny, tmp_path):
    tt.TTAME(tiny).save(tmp_path / "own.safetensors")
    with pytest.raises(tt.TTAMEError, match=r"cannot be loaded.*call tt\.TTAME\.load\(file"):
        tt.load_explainer(tmp_path / "own.safetensors")


def test_a_file_that_is_not_there_is_no_name_of_a_ready_made_one(tmp_path):
    with pytest.raises(
        tt.TTAMEError, match=r"there is no explainer at .*mine\.safetensors; correct"
    ):
        tt.load_explainer(tmp_path / "mine.safetensors")
