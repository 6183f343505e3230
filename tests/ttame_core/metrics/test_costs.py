"""Costs: counted passes, arithmetic in bare forwards, times of one core."""

import os
import time

import pytest
import torch

import ttame_core as tt
from tests.ttame_core.methods.models import make
from ttame_core.metrics import costs as costs_module
from ttame_core.metrics.costs import counted_passes, metered


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
    explain = make(method, backbone)  # which may look at the classifier once
    with counted_passes(backbone.model) as passes:
        explain(digits[:2], classes)
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


def test_what_taps_other_layers_costs_one_pass_from_its_first_explanation_on(backbones, digits):
    backbone = backbones["demo_resnet"]
    method = tt.TTAME(backbone.with_taps(["layer2", "layer3"])).explain
    one = (digits[:1], torch.tensor([3]))
    (row,) = tt.explanation_costs(backbone, {"a": method}, *one, repeats=1).to_dict("records")
    assert row["forwards"] == 1 and row["equivalents"] == pytest.approx(1, abs=0.05)


def test_arithmetic_and_bytes_of_a_product_are_counted_exactly():
    left, right = torch.rand(10, 20), torch.rand(20, 30)
    with metered() as (flops, memory):
        product = left @ right
        del product
        other = left @ right
        other[0] += 1  # a view, edited in place: nothing new
    assert flops.get_total_flops() == 2 * (2 * 10 * 20 * 30)
    assert memory.peak == memory.alive == 4 * 10 * 30
    del other
    assert memory.alive == 0


def test_costs_are_for_each_image_and_repeat_as_often_as_asked(tiny, noise):
    images, classes, calls = noise.images[:4], torch.zeros(4).long(), []

    def twice(images, classes):
        calls.append(len(images))
        return tiny(1 - images)[:, :1] + tiny(images)[:, :1]

    found = tt.explanation_costs(tiny, {"twice": twice}, images, classes, repeats=3)
    assert calls == [4] * (1 + 3)
    (row,) = found.to_dict("records")
    assert (row["method"], row["forwards"], row["backwards"]) == ("twice", 2, 0)
    assert row["equivalents"] == pytest.approx(2, abs=0.01)
    calls.clear()
    tt.explanation_costs(tiny, {"twice": twice}, images, classes, repeats=9, patience=0)
    assert calls == [4] * 2  # one that counts, one that is timed
    assert not any(m._forward_hooks for m in tiny.modules())


def test_time_is_that_of_the_fastest_call_of_one_image(tiny, noise, monkeypatch):
    times = iter([5.0, 0.008, 0.012, 0.016])
    monkeypatch.setattr(costs_module, "timed", lambda function, clock: next(times))
    found = tt.explanation_costs(
        *(tiny, {"a": lambda images, classes: images}, noise.images[:4], torch.zeros(4).long()),
        repeats=4,
    )
    assert found["milliseconds"].tolist() == pytest.approx([1000 * 0.008 / 4])


def test_methods_are_timed_in_turn(tiny, noise):
    calls, names = [], "ab"
    methods = {n: lambda images, classes, n=n: calls.append(n) or images[:, 0] for n in names}
    one = noise.images[:2], torch.zeros(2).long()
    tt.explanation_costs(tiny, methods, *one, repeats=3, patience=60)
    assert calls == 4 * ["a", "b"]  # first counted


@pytest.fixture
def threads():
    """Two threads, and as many as before afterwards."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def test_methods_are_timed_on_one_thread_and_the_others_are_given_back(tiny, noise, threads):
    seen, images, classes = [], noise.images[:2], torch.zeros(2).long()

    def method(images, classes):
        seen.append(torch.get_num_threads())
        return images[:, 0]

    tt.explanation_costs(tiny, {"a": method}, images, classes, repeats=2, patience=60)
    assert seen == [2, 1, 1] and torch.get_num_threads() == 2

    def failing(images, classes):
        if torch.get_num_threads() == 1:
            raise KeyboardInterrupt
        return images[:, 0]

    with pytest.raises(KeyboardInterrupt):
        tt.explanation_costs(tiny, {"a": failing}, images, classes)
    assert torch.get_num_threads() == 2


@pytest.mark.happens(
    "Measures and methods",
    "explanations are timed on a machine that is busy with something else",
    "on a CPU the time that a core works on them is taken, and waiting is not",
)
@pytest.mark.skipif(os.name != "posix", reason="Windows' clock of a process is too coarse")
def test_what_a_method_waits_for_is_no_cost(tiny, noise):
    def waiting(images, classes):
        time.sleep(0.2)
        return images[:, 0]

    found = tt.explanation_costs(tiny, {"a": waiting}, noise.images[:2], torch.zeros(2).long(), 1)
    assert found["milliseconds"].item() < 50


def test_costs_of_another_classifier_are_not_counted(tiny, backbones, noise):
    other = tt.method("random", backbones["demo_resnet"])
    with pytest.raises(tt.TTAMEError, match="a explains demo_resnet, and tiny is to be asked"):
        tt.explanation_costs(tiny, {"a": other}, noise.images[:2], torch.zeros(2).long())
