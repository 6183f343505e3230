"""Hugging Face's image classifiers: read from a folder with their preprocessing, trained, explained."""

import json
import sys

import numpy as np
import pytest
import torch
from PIL import Image

import ttame_core as tt

transformers = pytest.importorskip("transformers")
NAMES = ("robin", "house finch", "brambling", "junco", "bulbul")
SMALL = {"image_size": 64, "num_labels": len(NAMES)}
VIT = {
    **SMALL,
    **{"hidden_size": 32, "num_hidden_layers": 4, "num_attention_heads": 2, "patch_size": 16},
    **{"intermediate_size": 64, "initializer_range": 0.3},  # logits that tell images apart
}
PROCESSORS = {
    "whole picture": ("ViT", {"size": {"height": 64, "width": 64}}),
    "whole picture, then a crop": ("DeiT", {"size": {"height": 72, "width": 72}, "crop_size": 64}),
    "shorter side, then a crop": ("Bit", {"size": {"shortest_edge": 72}, "crop_size": 64}),
    "crop as a share": ("ConvNext", {"size": {"shortest_edge": 64}, "crop_pct": 0.8}),
    "standardised twice": ("EfficientNet", {"size": {"height": 64, "width": 64}}),
    "blue first": ("MobileViT", {"size": {"shortest_edge": 70}, "crop_size": 64}),
    "not standardised": ("ViT", {"size": {"height": 64, "width": 64}, "do_normalize": False}),
}


def plant(folder, processor="ViT", **settings):
    """Write a small ViT with random weights and its image processor."""
    torch.manual_seed(0)
    names = dict(enumerate(NAMES))
    model = transformers.ViTForImageClassification(transformers.ViTConfig(**VIT, id2label=names))
    model.save_pretrained(folder)
    kind = getattr(transformers, f"{processor}ImageProcessor")
    kind(**{"size": {"height": 64, "width": 64}, **settings}).save_pretrained(folder)
    return f"hf/{folder}", model.eval()


@pytest.mark.parametrize("how", PROCESSORS)
def test_logits_are_those_of_transformers_own_processor_and_model(tmp_path, how):
    kind, settings = PROCESSORS[how]
    name, model = plant(tmp_path, kind, **settings)
    rng = np.random.default_rng(0)
    coarse = Image.fromarray(rng.integers(0, 256, (8, 12, 3), dtype=np.uint8))
    coarse.resize((180, 120), Image.Resampling.BICUBIC).save(tmp_path / "photo.png")
    processor = transformers.AutoImageProcessor.from_pretrained(tmp_path)
    inputs = processor(images=Image.open(tmp_path / "photo.png"), return_tensors="pt")
    backbone = tt.load_backbone(name)
    image = backbone.read(tmp_path / "photo.png")
    scale = inputs["pixel_values"].std()
    difference = (backbone.standardise(image) - inputs["pixel_values"]).abs() / scale
    assert difference.mean() < 0.005 and difference.max() < 0.05  # they round while they resize
    with torch.no_grad():
        torch.testing.assert_close(
            backbone(image), model(**inputs).logits, rtol=0.02, atol=0.02 * scale.item()
        )


def test_random_weights_and_weights_from_a_file(tmp_path):
    name, model = plant(tmp_path)
    images = torch.rand(2, 3, 64, 64)
    published, fresh = tt.load_backbone(name), tt.load_backbone(name, None, num_labels=3)
    assert fresh.num_classes == 3 and published.num_classes == 5
    assert tt.load_backbone(name, None, num_classes=4).num_classes == 4
    assert fresh.shapes == published.shapes == ((32, 4, 4),) * 3
    torch.save(model.state_dict(), tmp_path / "own.pth")
    loaded = tt.load_backbone(name, tmp_path / "own.pth")
    assert torch.equal(loaded(images), published(images))
    assert not torch.equal(tt.load_backbone(name, None)(images), published(images))
    tt.TTAME(published).save(tmp_path / "explainer.safetensors")
    assert tt.load_explainer(tmp_path / "explainer.safetensors").backbone.name == name
    model.half().save_pretrained(tmp_path)
    assert tt.load_backbone(name)(images).dtype == torch.float32


def test_classes_go_by_the_configurations_names(tmp_path):
    backbone = tt.load_backbone(plant(tmp_path)[0])
    assert backbone.label(1) == "house finch"
    assert backbone.class_index("finch") == 1 and backbone.class_index("3") == 3
    with pytest.raises(tt.TTAMEError, match="did you mean 'bulbul'"):
        backbone.class_index("bulbull")


@pytest.mark.parametrize(
    ("weights", "options", "message"),
    [
        ("v1", {}, "has no weights 'v1'; expected 'DEFAULT'"),
        (None, {"num_clases": 10}, "cannot be built with options.*num_clases"),
        ("DEFAULT", {"num_labels": 10}, "cannot be built with options {'num_labels': 10}"),
    ],
)
def test_what_a_folder_cannot_give(tmp_path, weights, options, message):
    with pytest.raises(tt.TTAMEError, match=message):
        tt.load_backbone(plant(tmp_path)[0], weights, **options)


@pytest.mark.happens(
    "Weights",
    "a folder without configuration, weights or classifier",
    "refused, each in its words",
)
def test_what_is_no_classifier(tmp_path):
    transformers.BertConfig().save_pretrained(tmp_path / "bert")
    with pytest.raises(tt.TTAMEError, match=r"cannot be built .*BertConfig.*tt\.Backbone\(model"):
        tt.load_backbone(f"hf/{tmp_path / 'bert'}", None)
    with pytest.raises(tt.TTAMEError, match=r"there is no folder .*nowhere; correct"):
        tt.load_backbone(f"hf/{tmp_path / 'nowhere'}")
    transformers.ViTConfig(**VIT).save_pretrained(tmp_path / "bare")
    with pytest.raises(tt.TTAMEError, match=r"is no whole classifier: .*model.safetensors"):
        tt.load_backbone(f"hf/{tmp_path / 'bare'}")
    (tmp_path / "empty").mkdir()
    with pytest.raises(tt.TTAMEError, match=r"cannot be built .*`model_type` key in its config"):
        tt.load_backbone(f"hf/{tmp_path / 'empty'}")


OWN = {"image_size": 64, "resize": 70, "mean": (0.1, 0.2, 0.3), "std": (0.4, 0.5, 0.6)}


@pytest.mark.happens(
    "Weights",
    "a Hugging Face folder without a processor",
    "the missing file is named; a preprocessing that is given will do",
)
def test_a_preprocessing_of_ones_own_suffices_where_there_is_no_processor(tmp_path):
    name, _ = plant(tmp_path)
    (tmp_path / "preprocessor_config.json").unlink()
    for given in ({}, {"image_size": 64}, {"bgr": True}):
        with pytest.raises(
            tt.TTAMEError, match=r"holds no preprocessor_config.json; give .*preprocessing=.*'mean'"
        ):
            tt.load_backbone(name, preprocessing=given)
    for given in (OWN, tt.Preprocessing(**OWN)):
        backbone = tt.load_backbone(name, preprocessing=given)
        assert backbone.preprocessing == tt.Preprocessing(**OWN)
    tt.TTAME(backbone).save(
        tmp_path / "explainer.safetensors"
    )  # its header tells all that is asked
    assert tt.load_explainer(tmp_path / "explainer.safetensors").backbone.preprocessing.resize == 70


def test_a_preprocessing_of_ones_own_suffices_where_the_processor_does_what_is_not_known(tmp_path):
    name, _ = plant(tmp_path, do_resize=False)
    with pytest.raises(
        tt.TTAMEError, match=r"is not known: a ViTImageProcessor .*; give load_back"
    ):
        tt.load_backbone(name)
    assert tt.load_backbone(name, preprocessing=OWN).preprocessing == tt.Preprocessing(**OWN)


@pytest.mark.happens(
    "Weights",
    "a Hugging Face checkpoint without a head, or with one that does not fit",
    "refused, tensors named",
)
def test_a_checkpoint_without_a_trained_head_is_refused(tmp_path):
    name, model = plant(tmp_path)
    model.vit.save_pretrained(tmp_path)
    with pytest.raises(
        tt.TTAMEError, match=r"no weights for \['classifier.bias', 'classifier.weight'\] \(2 in all"
    ):
        tt.load_backbone(name)
    assert tt.load_backbone(name, model.state_dict()).num_classes == 5
    model.save_pretrained(tmp_path)
    options = {"num_labels": 7, "ignore_mismatched_sizes": True}
    with pytest.raises(tt.TTAMEError, match=r"holds no weights for .*classifier.weight"):
        tt.load_backbone(name, **options)
    assert tt.load_backbone(name, None, num_labels=7).num_classes == 7


def test_a_classifier_of_several_labels_an_image_is_refused(tmp_path):
    name, _ = plant(tmp_path)
    for kind in ("multi_label_classification", "regression"):
        with pytest.raises(tt.TTAMEError, match=rf"else than one label an image \({kind}"):
            tt.load_backbone(name, problem_type=kind)


@pytest.mark.happens(
    "Weights",
    "a folder that brings code of its own",
    "refused: never run, never asked for",
)
@pytest.mark.parametrize("kind", ["AutoConfig", "AutoModelForImageClassification"])
def test_code_that_comes_with_a_classifier_is_never_run(kind, tmp_path, monkeypatch):
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("it asked on standard input"))
    (tmp_path / "own.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\nclass Own: pass\n")
    about = {"model_type": "own", "auto_map": {kind: "own.Own"}}
    (tmp_path / "config.json").write_text(json.dumps(about))
    for options in ({}, {"trust_remote_code": True}):
        with pytest.raises(tt.TTAMEError, match=r"code that comes with .* not run.*tt.Backbone\("):
            tt.load_backbone(f"hf/{tmp_path}", **options)
    # a classifier that transformers knows itself is loaded by what transformers has
    name, _ = plant(tmp_path)
    known = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**known, "auto_map": {kind: "own.Own"}}))
    assert tt.load_backbone(name).num_classes == 5
    assert not (tmp_path / "ran").exists()


def test_the_preprocessing_follows_the_size_that_a_configuration_is_given(tmp_path):
    name, _ = plant(tmp_path, size={"height": 80, "width": 80}, do_center_crop=False)
    with pytest.raises(tt.TTAMEError, match=r"80.*doesn't match model|cannot classify images"):
        tt.load_backbone(name)
    backbone = tt.load_backbone(name, None, image_size=96)
    assert backbone.preprocessing.image_size == 96 and backbone.preprocessing.resize == (96, 96)
    assert backbone.shapes[-1] == (32, 6, 6)


@pytest.mark.happens(
    "Preprocessing and labels",
    "names of classes with holes, numbers, placeholders",
    "its own names, or “class i”",
)
@pytest.mark.parametrize(
    ("names", "labels"),
    [
        ({0: "robin", 1: "junco"}, ("robin", "junco")),
        ({0: "LABEL_0", 1: "LABEL_1"}, ("class 0", "class 1")),
        ({0: "LABEL_0", 1: "junco"}, ("class 0", "junco")),
        ({0: 7, 1: 3.5}, ("7", "3.5")),
        ({0: "robin", 2: None, 1: "junco"}, ("robin", "junco", "class 2")),
        ({0: "robin", 5: "junco"}, ("robin", "class 1")),
    ],
)
def test_names_of_classes_as_configurations_have_them(names, labels):
    config = transformers.ViTConfig(**{**VIT, "num_labels": len(names), "id2label": names})
    config.id2label = names
    model = transformers.ViTForImageClassification(config)
    backbone = tt.Backbone(model, preprocessing=tt.Preprocessing(image_size=64, resize=64))
    assert backbone.labels == labels


@pytest.mark.happens(
    "Preprocessing and labels",
    "a thousand classes with names of their own",
    "those, and not ImageNet's",
)
def test_its_own_thousand_names_come_before_imagenets():
    mine = {i: f"thing {i}" for i in range(1000)}
    for names, first in ((mine, "thing 0"), ({i: f"LABEL_{i}" for i in mine}, "tench")):
        config = transformers.ViTConfig(**{**VIT, "num_labels": 1000})
        config.id2label = names
        model = transformers.ViTForImageClassification(config)
        backbone = tt.Backbone(model, preprocessing=tt.Preprocessing(image_size=64, resize=64))
        assert backbone.label(0) == first


def test_what_is_neither_cached_nor_to_be_downloaded_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    for weights in ("DEFAULT", None):
        with pytest.raises(
            tt.TTAMEError, match=r"(?s)neither in the cache.*a folder, 'hf/path/to/it'"
        ):
            tt.load_backbone("hf/google/vit-base-patch16-224", weights)
    with pytest.raises(tt.TTAMEError, match="Hugging Face's start with 'hf/'"):
        tt.load_backbone("google/vit-base-patch16-224")
    monkeypatch.setitem(sys.modules, "transformers", None)  # as if it were not installed
    with pytest.raises(
        tt.TTAMEError,
        match=r"needs transformers, which is not installed.*; pip install 'transformers'",
    ):
        tt.load_backbone("hf/google/vit-base-patch16-224")


STAGES = {"depths": [1, 2, 3, 1], **SMALL}
CLASSIFIERS = {
    "ViT": (VIT, [f"vit.layers.{k}" for k in (1, 2, 3)]),
    "Swin": (
        {**STAGES, "embed_dim": 12, "num_heads": [1, 2, 2, 4], "window_size": 2, "patch_size": 2},
        ["swin.encoder.layers.0", "swin.encoder.layers.1", "swin.encoder.layers.3"],
    ),
    "ConvNext": (
        {**STAGES, "hidden_sizes": [8, 12, 16, 24]},
        [f"convnext.encoder.stages.{k}" for k in (1, 2, 3)],
    ),
    "MobileViT": (SMALL, [f"mobilevit.encoder.layer.{k}" for k in (2, 3, 4)]),
}


@pytest.mark.parametrize("kind", CLASSIFIERS)
def test_it_trains_and_explains_with_its_default_taps(kind):
    settings, taps = CLASSIFIERS[kind]
    torch.manual_seed(0)
    config = getattr(transformers, f"{kind}Config")(**settings)
    model = getattr(transformers, f"{kind}ForImageClassification")(config)
    backbone = tt.Backbone(model, preprocessing=tt.Preprocessing(image_size=64, resize=64))
    assert list(backbone.taps) == taps
    images = torch.rand(4, 3, 64, 64)
    explainer = tt.TTAME(backbone)
    items = [{"image": image} for image in images]
    history = tt.train(explainer, items, tt.Recipe(steps=2, batch_size=2, max_lr=0.01))
    assert all(0 < row["total"] < 1e3 for row in history)
    explanation = explainer(images)
    assert explanation.maps.shape == (4, *max(shape[1:] for shape in backbone.shapes))
    with torch.no_grad():
        probabilities = model.eval()(backbone.standardise(images)).logits.softmax(1)
    assert torch.allclose(explanation.confidences, probabilities.amax(1))


def test_its_transformers_can_be_tapped_over_their_depth():
    model = transformers.ViTForImageClassification(transformers.ViTConfig(**VIT))
    backbone = tt.Backbone(model, preprocessing=tt.Preprocessing(image_size=64, resize=64))
    assert backbone.masking == "standardised" and backbone.prefix_tokens == 1
    norms = backbone.with_taps("spread-norms").taps
    assert norms == tuple(f"vit.layers.{k}.layernorm_before" for k in (1, 2, 3))


@pytest.mark.happens(
    "Layers",
    "what lies behind a layer counts on the images that went in",
    "each channel's ablation goes the whole way",
)
def test_channels_are_ablated_where_a_layer_is_reshaped_by_the_number_of_images():
    torch.manual_seed(0)
    widths = {"hidden_sizes": [8, 16, 24, 32], "num_attention_heads": [1, 2, 3, 4]}
    small = transformers.PvtV2Config(**SMALL, **widths, depths=[1] * 4, mlp_ratios=[2] * 4)
    model = transformers.PvtV2ForImageClassification(small).eval()
    backbone = tt.Backbone(model, name="pvt", preprocessing=tt.Preprocessing(64, 64))
    images, classes = torch.rand(2, 3, 64, 64), torch.tensor([1, 3])
    maps = tt.method("ablation-cam", backbone)(images, classes)
    layer, weights = backbone.taps[-1], torch.empty(2, 32)
    for channel in range(32):
        edit = lambda output, c=channel: output * (torch.arange(32) != c)  # noqa: E731
        with backbone.replaced(layer, edit), torch.no_grad():
            without = backbone(images)[[0, 1], classes]
        whole = backbone(images)[[0, 1], classes]
        weights[:, channel] = (whole - without) / whole
    expected = torch.einsum("bc,bchw->bhw", weights, backbone.output_of(layer, images)).relu()
    expected = expected - expected.amin((1, 2), keepdim=True)
    expected = expected / expected.amax((1, 2), keepdim=True).clamp(min=1e-12)
    assert torch.allclose(maps, expected, atol=1e-3)
