"""The shipped demo classifiers."""

import pytest
import torch
from torchvision.models.vgg import cfgs, make_layers

import ttame_book as tb
import ttame_core as tt
from ttame_book.demo import classifiers, training


@pytest.mark.parametrize(
    ("name", "least"), [("demo_vgg", 95), ("demo_resnet", 95), ("demo_vit", 90)]
)
@pytest.mark.slow
def test_shipped_weights_recognise_digits(name, least):
    model = classifiers.load_demo_backbone(name)
    assert 0.1e6 < sum(p.numel() for p in model.parameters()) < 0.4e6
    assert training.accuracy_of(model, tb.DigitsInPhotographs("test", 600)) >= least


def test_unknown_names_and_weights():
    with pytest.raises(tt.TTAMEError, match="did you mean 'demo_vgg'"):
        classifiers.load_demo_backbone("demo_vg")
    with pytest.raises(tt.TTAMEError, match="has no weights"):
        classifiers.load_demo_backbone("demo_vgg", "BEST")


@pytest.mark.parametrize(
    ("name", "taps", "shapes"),
    [
        (
            "demo_vgg",
            ("features.16", "features.23", "features.30"),
            [(24, 16, 16), (48, 8, 8), (64, 4, 4)],
        ),
        (
            "demo_resnet",
            ("layer2", "layer3", "layer4"),
            [(20, 32, 32), (40, 16, 16), (80, 8, 8)],
        ),
        (
            "demo_vit",
            tuple(f"encoder.layers.encoder_layer_{i}" for i in (2, 3, 4)),
            [(80, 8, 8)] * 3,
        ),
    ],
)
def test_demo_taps_and_shapes(name, taps, shapes):
    backbone = tt.load_backbone(name)
    assert backbone.taps == taps
    assert list(backbone.shapes) == shapes
    images = torch.rand(2, 3, 64, 64)
    logits, features = backbone.features(images)
    assert logits.shape == (2, 10)
    assert [tuple(f.shape[1:]) for f in features] == shapes
    model = classifiers.load_demo_backbone(name)  # itself, without taps
    assert torch.allclose(logits, model(backbone.standardise(images)), atol=1e-4)
    assert backbone.preprocessing == classifiers.PREPROCESSING


def test_layers_are_numbered_as_a_vgg16s_and_the_named_taps_are_before_and_behind_its_pools():
    vgg = classifiers.demo_vgg()
    kinds = [type(layer).__name__ for layer in vgg.features]
    of_16 = [type(layer).__name__ for layer in make_layers(cfgs["D"])]
    assert [a for a, b in zip(kinds, of_16, strict=True) if a != b] == ["Identity"]
    assert kinds[9] == "Identity"  # the second pool
    for name, kind in (("conv", "ReLU"), ("max-pool", "MaxPool2d")):
        taps = tt.load_backbone("demo_vgg", taps=name).taps
        assert [kinds[int(tap.rpartition(".")[2])] for tap in taps] == [kind] * 3


def test_a_registered_classifier_takes_no_options():
    with pytest.raises(
        tt.TTAMEError, match=r"demo_vgg takes no options, \['num_classes'\] were given"
    ):
        tt.load_backbone("demo_vgg", None, num_classes=3)
