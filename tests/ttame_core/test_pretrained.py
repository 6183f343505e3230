"""Explainers that come with their classifier, and files of one's own."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

import ttame_core as tt
from ttame_core.__main__ import main
from ttame_core.pretrained import shipped_explainers


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


@pytest.mark.happens(
    "Weights",
    "an explainer whose classifier goes by no name",
    "told, with the way to load it",
)
def test_a_classifier_without_a_known_name_is_to_be_given(tiny, tmp_path):
    tt.TTAME(tiny).save(tmp_path / "own.safetensors")
    with pytest.raises(
        tt.TTAMEError,
        match=r"cannot be loaded: backbone 'tiny' is unknown.*call tt\.TTAME\.load\(file",
    ):
        tt.load_explainer(tmp_path / "own.safetensors")
    assert tt.TTAME.load(tmp_path / "own.safetensors", tiny).backbone is tiny


@pytest.mark.happens(
    "Weights",
    "an explainer whose classifier cannot be loaded",
    "its own reason, and no guess",
)
def test_why_a_classifier_that_is_known_cannot_be_loaded_is_told_alone(tmp_path):
    small = {"image_size": 64, "resize": 64}
    backbone = tt.load_backbone("resnet18", None, num_classes=3, preprocessing=small)
    tt.TTAME(backbone).save(tmp_path / "mine.safetensors")
    for weights, message in (
        ("nowhere.pth", "'nowhere.pth' are no file"),
        ("DEFAULT", "expected value 1000 but got 3"),
        (torch.nn.Linear(1, 1).state_dict(), "do not fit ResNet"),
    ):
        with pytest.raises(tt.TTAMEError, match=f"classifier 'resnet18' of .*{message}") as raised:
            tt.load_explainer(tmp_path / "mine.safetensors", weights)
        assert "tt.TTAME.load" not in str(raised.value) and "trained with" not in str(raised.value)
    state = backbone.model.state_dict()
    loaded = tt.load_explainer(tmp_path / "mine.safetensors", state)
    assert torch.equal(loaded.backbone.model.fc.weight, backbone.model.fc.weight)


@pytest.mark.happens(
    "Weights",
    "a photograph in the place of an explainer",
    "refused in words",
)
def test_a_photograph_is_no_explainer(photos):
    with pytest.raises(tt.TTAMEError, match=r"a\.png is no explainer \(.*expected a file written"):
        tt.load_explainer(photos / "a.png")
    with pytest.raises(tt.TTAMEError, match=r"no ready-made explainer 'nowhere\.png'"):
        tt.load_explainer("nowhere.png")


@pytest.mark.happens(
    "Weights",
    "an explainer from before a field of the preprocessing was added",
    "loads",
)
def test_files_from_before_a_field_of_the_preprocessing_are_read(tmp_path):
    given = {"image_size": 64, "resize": 70, "mean": (0.0, 0.5, 1.0)}
    backbone = tt.load_backbone("resnet18", None, num_classes=3, preprocessing=given)
    weights = backbone.model.state_dict()
    tt.TTAME(backbone).save(tmp_path / "new.safetensors")
    about, state = (
        tt.TTAME.metadata(tmp_path / "new.safetensors"),
        load_file(tmp_path / "new.safetensors"),
    )
    fields = json.loads(about["preprocessing"])
    del fields["crop_mode"]
    older = {**about, "preprocessing": json.dumps({**fields, "mean": [0, 0.5, 1]})}
    save_file(state, tmp_path / "old.safetensors", older)
    assert (
        tt.load_explainer(tmp_path / "old.safetensors", weights).backbone.preprocessing
        == backbone.preprocessing
    )
    save_file(
        state,
        tmp_path / "other.safetensors",
        {**about, "preprocessing": json.dumps({**fields, "resize": 71})},
    )
    with pytest.raises(tt.TTAMEError, match=r"was trained with preprocessing .*71"):
        tt.TTAME.load(tmp_path / "other.safetensors", backbone)


def test_the_explainers_that_come_with_the_package_are_read():
    assert shipped_explainers() == ["efficientnet_lite0", "squeezenet1_1", "vit_ti_16"]
    explainer = tt.load_explainer("efficientnet_lite0")
    assert explainer.backbone.preprocessing.crop_mode == "center"


def test_a_file_that_is_not_there_is_no_name_of_a_ready_made_one(tmp_path):
    with pytest.raises(
        tt.TTAMEError, match=r"there is no explainer at .*mine\.safetensors; correct"
    ):
        tt.load_explainer(tmp_path / "mine.safetensors")


@pytest.mark.parametrize("name", [None, 3, ["demo_resnet"]])
def test_what_is_no_name_of_an_explainer_is_told(name):
    with pytest.raises(tt.TTAMEError, match=r"name is .*; expected a ready-made explainer's name"):
        tt.load_explainer(name)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("variant", "{"),
        ("variant", '{"foo": 1}'),
        ("variant", '"unheard_of"'),
        ("variant", "null"),
        ("preprocessing", "[1]"),
        ("preprocessing", "{"),
        ("taps", '["stem"'),
        ("taps", "[1]"),
        ("num_classes", "many"),
        ("masking", "neither"),
        ("backbone", None),
        ("taps", None),
    ],
)
@pytest.mark.happens("Weights", "an explainer whose header says {key} {value}", "refused in words")
def test_a_broken_header_is_told_whoever_reads_it(key, value, tiny, tmp_path):
    tt.TTAME(tiny).save(tmp_path / "good.safetensors")
    about = tt.TTAME.metadata(tmp_path / "good.safetensors")
    about = {k: v for k, v in {**about, key: value}.items() if v is not None}
    file = tmp_path / "broken.safetensors"
    save_file(load_file(tmp_path / "good.safetensors"), file, about)
    for read in (tt.load_explainer, lambda file: tt.TTAME.load(file, tiny), tt.TTAME.metadata):
        with pytest.raises(tt.TTAMEError) as raised:
            read(file)
        told = f"is no explainer that can be read, its header says {key} {value!r}; train anew, or"
        assert told in str(raised.value)
