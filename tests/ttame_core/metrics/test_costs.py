"""Costs: counted passes, arithmetic in bare forwards."""

import pytest
import torch

import ttame_core as tt
from tests.ttame_core.methods.models import make
from ttame_core.metrics.costs import counted_passes


@pytest.mark.parametrize(
    ("name", "method", "forwards", "backwards"),
    [
        ("demo_resnet", "grad-cam", 1, 1),
        ("demo_resnet", "rise", 10, 0),
        ("demo_resnet", "score-cam", 81, 0),  # the image, and once a channel
        ("demo_resnet", "ablation-cam", 2, 0),  # the rest is behind the last map
        ("demo_resnet", "iia", 3, 9),
        ("demo_vit", "transformer-lrp", 1, 1),
        ("demo_vit", "iia", 9, 9),
        ("demo_vit", "attention-rollout", 1, 0),
        ("demo_resnet", "all-ones", 0, 0),
    ],
)
def test_passes_are_counted(name, method, forwards, backwards, backbones, digits):
    backbone = backbones[name]
    classes = backbone(digits[:2]).argmax(1)
    with counted_passes(backbone.model) as passes:
        make(method, backbone)(digits[:2], classes)
    assert (passes.forwards, passes.backwards) == (2 * forwards, 2 * backwards)


def test_costs_in_bare_forwards(backbones, digits):
    backbone = backbones["demo_resnet"]
    methods = {"t-tame": tt.TTAME(backbone).explain}
    methods |= {m: make(m, backbone) for m in ("grad-cam", "rise", "integrated-gradients")}
    costs = tt.explanation_costs(backbone, methods, digits[:1], torch.tensor([3]), repeats=1)
    costs = costs.set_index("method")
    assert costs.loc["t-tame", "equivalents"] == pytest.approx(1, abs=0.05)
    assert costs.loc["grad-cam", "equivalents"] == pytest.approx(1, abs=0.01)
    assert costs.loc["rise", "equivalents"] == pytest.approx(10, abs=0.01)
    assert costs.loc["integrated-gradients", "equivalents"] > 4 * 1.9  # with their backwards
    assert (costs["milliseconds"] > 0).all() and (costs["megabytes"] > 0).all()
