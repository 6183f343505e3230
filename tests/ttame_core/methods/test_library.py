"""What all methods have in common: batches, chunks, what they look at, that they leave nothing behind."""

import copy
import gc

import pytest
import torch

import ttame_core as tt
from tests.ttame_core.methods.models import (
    BACKBONES,
    CHUNKED,
    FOR_VITS,
    RightHalf,
    RightHalfViT,
    looking_right,
    make,
    served,
)
from ttame_core.errors import NotServedError
from ttame_core.masking import upsample
from ttame_core.methods.registry import CONTROLS


@pytest.mark.parametrize(("name", "method"), served(BACKBONES))
@pytest.mark.slow
def test_batch_equals_loop_and_chunks_do_not_matter(name, method, backbones, digits):
    backbone = backbones[name]
    if method == "integrated-gradients":  # whose gradients flip with a sum's last bit at a ReLU
        backbone, digits = copy.deepcopy(backbone).double(), digits.double()
    classes = backbone(digits).argmax(1)
    before = digits.clone()
    together = make(method, backbone)(digits, classes)
    assert together.shape[0] == 5 and together.ndim == 3 and together.device == digits.device
    assert together.min() >= 0 and together.max() <= 1 and torch.isfinite(together).all()
    for i in (0, 4):
        alone = make(method, backbone)(digits[i : i + 1], classes[i : i + 1])
        assert torch.allclose(alone[0], together[i], atol=1e-5), i
    if method in CHUNKED:
        other = make(method, backbone, chunk=7)(digits, classes)
        assert torch.allclose(other, together, atol=1e-5)
    assert torch.equal(digits, before)


@pytest.mark.parametrize("kind", [RightHalf, RightHalfViT])
@pytest.mark.parametrize(
    "method", [m for m in tt.METHODS if m not in (*CONTROLS, "attention-rollout")]
)
@pytest.mark.slow
def test_every_method_prefers_the_half_the_model_looks_at(kind, method):
    backbone = looking_right(kind)
    if kind is RightHalf and method in FOR_VITS:
        with pytest.raises(NotServedError, match="right is no ViT"):
            make(method, backbone)
        return
    images = torch.rand(4, 3, 16, 16)
    options = {"masks": 1000} if method == "rise" else {}
    maps = upsample(make(method, backbone, **options)(images, backbone(images).argmax(1)), (16, 16))
    left, right = maps[..., :8].sum((1, 2)), maps[..., 8:].sum((1, 2))
    assert (right > left).all()


@pytest.fixture
def only_new_objects():
    """Let the garbage collector list, and search, only what the test itself makes: far faster."""
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.mark.parametrize(("kind", "method"), served(["cnn", "vit"]))
@pytest.mark.slow
def test_nothing_is_left_behind(kind, method, tiny, only_new_objects):
    backbone = tiny if kind == "cnn" else looking_right(RightHalfViT)
    explain = make(method, backbone, **({"masks": 2} if method == "rise" else {}))
    image, c = torch.rand(1, 3, 16, 16), torch.tensor([0])
    live = []
    for repeats in (5, 195):
        for _ in range(repeats):
            explain(image, c)
        gc.collect()
        tensors = [o for o in gc.get_objects() if issubclass(type(o), torch.Tensor)]
        live.append(
            (
                len(tensors),
                sum(t.untyped_storage().nbytes() for t in tensors if t.layout is torch.strided),
            )
        )
        del tensors
    assert live[1][0] <= live[0][0] and live[1][1] <= live[0][1]  # objects, bytes
    modules = list(backbone.modules())
    hooks = [
        h for m in modules for h in (*m._forward_hooks, *m._forward_pre_hooks, *m._backward_hooks)
    ]
    assert not hooks and not any("forward" in m.__dict__ for m in modules)
    assert not any(p.requires_grad or p.grad is not None for p in backbone.parameters())


@pytest.mark.happens(
    "Measures and methods", "the method {name} is asked for with {options}", "{message}"
)
@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("rise", {"masks": 0}, "masks is 0; expected a whole number, at least 1"),
        ("rise", {"mask": 5}, "'rise' cannot be made with"),
        ("gradcam", {}, "did you mean 'grad-cam'"),
        ("lcam-img", {}, "did you mean 'l-cam-img'"),
        ("ablation-cam", {"chunk": 0}, "chunk is 0; expected a whole number, at least 1"),
        ("score-cam", {"chunk": -1}, "chunk is -1; expected a whole number, at least 1"),
        ("integrated-gradients", {"steps": 0}, "steps is 0; expected a whole number, at least 1"),
        ("integrated-gradients", {"chunk": 1.5}, "chunk is 1.5; expected a whole number"),
        ("iia", {"steps": 0}, "steps is 0; expected a whole number, at least 1"),
        ("iia", {"chunk": 0}, "chunk is 0; expected a whole number, at least 1"),
        ("rise", {"seed": "a"}, "seed is 'a'; expected a whole number"),
        ("rise", {"masks": -1}, "masks is -1; expected a whole number, at least 1"),
        ("rise", {"masks": "8"}, "masks is '8'; expected a whole number, at least 1"),
        ("rise", {"cells": 0}, "cells is 0; expected a whole number, at least 1"),
        ("rise", {"chunk": True}, "chunk is True; expected a whole number, at least 1"),
        ("rise", {"p": 5}, "p is 5; expected a finite number, at least 0 and at most 1"),
        ("rise", {"p": 1}, "p is 1; expected a probability between 0 and 1, neither of them"),
        (
            "rise",
            {"masking": "standard"},
            "masking 'standard' is unknown; did you mean 'standardised'",
        ),
        ("rise", {"logits": 1}, "logits is 1; expected True or False"),
        ("iia", {"original": "yes"}, "original is 'yes'; expected True or False"),
        ("random", {"seed": "a"}, "seed is 'a'; expected a whole number"),
    ],
)
def test_options_that_make_no_sense_are_refused_when_a_method_is_made(
    name, options, message, backbones
):
    with pytest.raises(tt.TTAMEError, match=message):
        tt.method(name, backbones["demo_vit"], **options)


@pytest.mark.happens(
    "Measures and methods", "in place of a backbone a method is given {what}", "{message}"
)
@pytest.mark.parametrize(
    ("what", "given", "message"),
    [
        (
            *("a plain model", torch.nn.Flatten()),
            r"is a Flatten; expected a tt.Backbone: tt.Backbone\(model\)",
        ),
        (*("a name", "resnet18"), r"expected a tt.Backbone: tt.load_backbone\('resnet18'\)"),
        (*("nothing", None), r"is None; expected a tt.Backbone: tt.Backbone\(model\) or"),
    ],
)
def test_what_is_no_backbone_is_told_how_to_make_one(what, given, message):
    with pytest.raises(tt.TTAMEError, match=message):
        tt.method("grad-cam", given)


@pytest.mark.happens(
    "Measures and methods",
    "a method that is trained is asked for by its name",
    "refused: tt.TTAME and tt.train make one, tt.load_explainer loads one",
)
def test_a_trained_method_is_not_made_by_its_name(backbones):
    for name in ("t-tame", "l-cam-img"):
        with pytest.raises(tt.TTAMEError, match=f"'{name}' is trained, .*tt.TTAME.*tt.load_expl"):
            tt.method(name, backbones["demo_vit"])
    with pytest.raises(tt.TTAMEError, match=r"explainer\.backbone"):
        tt.method("grad-cam", tt.TTAME(backbones["demo_vit"]))
    with pytest.raises(tt.TTAMEError, match=r"the name of a method is \['rise'\]"):
        tt.method(["rise"], backbones["demo_vit"])
