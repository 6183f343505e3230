"""The shipped demo classifiers."""

import pytest
import torch

import ttame_core as tt
from ttame_core import demo


@pytest.mark.parametrize(
    ("name", "least"), [("demo_vgg", 95), ("demo_resnet", 95), ("demo_vit", 90)]
)
def test_shipped_weights_recognise_digits(name, least):
    model = demo.load_demo_backbone(name)
    assert 0.1e6 < sum(p.numel() for p in model.parameters()) < 0.4e6
    assert demo.accuracy(model, tt.DigitsInPhotographs("test", 600)) >= least


def test_training_is_repeatable_and_leaves_the_random_state_alone():
    before = torch.get_rng_state()
    first, second = (
        demo.train_demo_backbone("demo_resnet", count=64, epochs=2).state_dict() for _ in range(2)
    )
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(first[k], second[k]) for k in first)
    fresh = demo.load_demo_backbone("demo_resnet", weights=None).state_dict()
    assert not torch.equal(first["conv1.weight"], fresh["conv1.weight"])


def test_unknown_names_and_weights():
    with pytest.raises(tt.TTAMEError, match="did you mean 'demo_vgg'"):
        demo.load_demo_backbone("demo_vg")
    with pytest.raises(tt.TTAMEError, match="has no weights"):
        demo.load_demo_backbone("demo_vgg", "BEST")
