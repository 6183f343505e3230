"""Hugging Face's image classifiers: read from a folder with their preprocessing, trained, explained."""

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
        (None, {"num_classes": 10}, "cannot be built with options.*num_classes"),
        ("DEFAULT", {"num_labels": 10}, "cannot be built with options {'num_labels': 10}"),
    ],
)
def test_what_a_folder_cannot_give(tmp_path, weights, options, message):
    with pytest.raises(tt.TTAMEError, match=message):
        tt.load_backbone(plant(tmp_path)[0], weights, **options)


def test_what_is_no_classifier_with_a_known_preprocessing(tmp_path):
    levit, _ = plant(tmp_path / "levit", "Levit", size={"shortest_edge": 64}, crop_size=64)
    with pytest.raises(tt.TTAMEError, match=r"LevitImageProcessor of.*tt.Backbone\(model"):
        tt.load_backbone(levit)
    transformers.BertConfig().save_pretrained(tmp_path / "bert")
    with pytest.raises(tt.TTAMEError, match="expected an image classifier of transformers'"):
        tt.load_backbone(f"hf/{tmp_path / 'bert'}", None)


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
        probabilities = model(backbone.standardise(images)).logits.softmax(1)
    assert torch.allclose(explanation.confidences, probabilities.amax(1))


def test_its_transformers_can_be_tapped_over_their_depth():
    model = transformers.ViTForImageClassification(transformers.ViTConfig(**VIT))
    backbone = tt.Backbone(model, preprocessing=tt.Preprocessing(image_size=64, resize=64))
    assert backbone.masking == "standardised" and backbone.prefix_tokens == 1
    norms = backbone.with_taps("spread-norms").taps
    assert norms == tuple(f"vit.layers.{k}.layernorm_before" for k in (1, 2, 3))
