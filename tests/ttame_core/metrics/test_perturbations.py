"""Changing images by their maps, and the peers' measures that are defined alike."""

from contextlib import nullcontext

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pytorch_grad_cam.metrics import road
from pytorch_grad_cam.utils.model_targets import ClassifierOutputSoftmaxTarget
from torchcam.metrics import ClassificationMetric

import ttame_core as tt
from tests.conftest import TinyCNN
from ttame_core.images.reading import Preprocessing
from ttame_core.masking import ranks
from ttame_core.metrics.measures import CURVES, ROAD
from ttame_core.metrics.perturbations import perturbed_confidences, removed

GRID = Preprocessing(image_size=40, resize=40)


@pytest.fixture
def setting():
    """A classifier of 40 px images, images, truths, confidences and maps without equal values."""
    torch.manual_seed(3)
    backbone = tt.Backbone(TinyCNN(), ["stem", "middle", "last"], preprocessing=GRID)
    images = torch.rand(6, 3, 40, 40)
    full, classes = backbone(images).softmax(1).max(1)
    maps = torch.stack([torch.randperm(1600).view(40, 40) / 1599 for _ in range(6)])
    return backbone, images, classes, full, maps


def test_road_agrees_with_grad_cams(setting, monkeypatch):
    backbone, images, classes, full, maps = setting
    monkeypatch.setattr("ttame_core.metrics.perturbations.impute", without_noise)
    ours = tt.score_batch(backbone, images, classes, full, maps, ROAD)
    inputs = backbone.standardise(images)
    targets = [ClassifierOutputSoftmaxTarget(int(c)) for c in classes]
    for v in range(10, 100, 10):
        for measure, most in (("morf", True), ("lerf", False)):
            metric = (road.RemoveMostRelevantFirst if most else road.RemoveLeastRelevantFirst)(
                100 - v, road.NoisyLinearImputer(noise=0.0)
            )
            theirs = road.PerturbationConfidenceMetric(metric)(
                inputs, maps.numpy(), targets, backbone.model, return_diff=False
            )
            assert np.abs(ours[measure, v].numpy() - 100 * theirs).max() < 0.01, (measure, v)


def without_noise(images, removed, seed):
    return tt.impute(images, removed, noise=0, tolerance=1e-6)


class Extractor:
    """Hands torch-cam's metric the maps that are to be scored."""

    def __init__(self, model, maps):
        self.model, self.maps = model, maps

    def __call__(self, *args):
        return [self.maps]

    def fuse_cams(self, cams):
        return cams[0]

    def _hooks_off(self):
        return nullcontext()


def test_ad_and_ic_agree_with_torch_cams(setting):
    backbone, images, classes, full, maps = setting
    backbone.masking = "standardised"
    ours = tt.score_batch(backbone, images, classes, full, maps, {"ad": (100,), "ic": (100,)})
    metric = ClassificationMetric(Extractor(backbone.model, maps), lambda x: x.softmax(-1))
    metric.update(backbone.standardise(images), classes.tolist())
    theirs = metric.summary()
    assert float(ours["ad", 100].mean()) == pytest.approx(100 * theirs["avg_drop"], abs=1e-3)
    assert float(ours["ic", 100].mean()) == pytest.approx(100 * theirs["conf_increase"])


def test_a_map_that_is_60_percent_zeros_loses_exactly_v_percent_in_both_orders(
    setting, monkeypatch
):
    backbone, images, classes, _, maps = setting
    taken = []

    def count(images, removed, seed):
        taken.extend(removed.sum((1, 2)).tolist())
        return images

    monkeypatch.setattr("ttame_core.metrics.perturbations.impute", count)
    perturbations = [(kind, v) for kind in ("morf", "lerf") for v in range(10, 100, 10)]
    perturbed_confidences(backbone, images, classes, (maps - 0.6).clamp(min=0), perturbations)
    assert taken == [16 * v for _, v in perturbations for _ in images]


@settings(max_examples=25, deadline=None)
@given(v=st.integers(1, 19).map(lambda n: 5 * n), levels=st.integers(1, 9), seed=st.integers(0, 9))
def test_morfs_complement_is_lerfs(v, levels, seed):
    maps = torch.randint(
        0, levels, (1, 20, 20), generator=torch.Generator().manual_seed(seed)
    ).float()
    rank = ranks(maps, seed)
    assert torch.equal(removed(rank, "morf", v), ~removed(rank, "lerf", 100 - v))
    assert removed(rank, "morf", v).sum() == v * 4


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 999), v=st.sampled_from([0, 5, 15, 50, 85, 100]))
def test_scores_are_those_of_the_images_masked_and_deleted_by_hand(seed, v):
    generator = torch.Generator().manual_seed(seed)
    backbone = tt.Backbone(TinyCNN(), ["stem"], preprocessing=GRID)
    images = torch.rand(2, 3, 40, 40, generator=generator)
    full, classes = backbone(images).softmax(1).max(1)
    order = torch.stack([torch.randperm(1600, generator=generator) for _ in range(2)])
    order = order.view(2, 40, 40)
    maps, top = order / 1599, order >= 1600 - 16 * v  # without equal values
    scores = tt.score_batch(
        backbone, images, classes, full, maps, {m: (v,) for m in ("ad", "ic", "deletion")}
    )

    def confidence(inputs):
        return backbone.model(inputs).softmax(1).gather(1, classes[:, None])[:, 0]

    masked = confidence(backbone.standardise(images * (maps * top)[:, None]))
    expected = {
        "ad": 100 * (full - masked).clamp(min=0) / full,
        "ic": 100.0 * (masked > full),
        "deletion": 100 * confidence(backbone.standardise(images) * ~top[:, None]),
    }
    for name, values in expected.items():
        assert torch.allclose(scores[name, v], values, atol=1e-3), name
        assert values.min() >= 0 and values.max() <= 100, name
    assert torch.allclose(scores["coverage", 100], 100 * maps.mean((1, 2)))
    ones = tt.score_batch(
        *(backbone, images, classes, full, torch.ones(2, 5, 5), {"ad": (100,), "ic": (100,)}),
        allow_constant=True,
    )
    assert not ones["ad", 100].any() and not ones["ic", 100].any()


def test_ends_of_the_insertion_and_deletion_curves(setting):
    backbone, images, classes, full, maps = setting
    scores = tt.score_batch(backbone, images, classes, full, maps, CURVES)
    assert torch.allclose(scores["deletion", 0], 100 * full, atol=1e-4)
    assert torch.allclose(scores["insertion", 100], 100 * full, atol=1e-4)
    grey = torch.zeros(6, 3, 40, 40)  # the mean colour, standardised
    empty = backbone.logits(grey).softmax(1).gather(1, classes[:, None])[:, 0]
    assert torch.allclose(scores["deletion", 100], 100 * empty, atol=1e-4)


def test_every_forward_is_needed(setting):
    backbone, images, classes, full, maps = setting
    seen = []
    hook = backbone.model.register_forward_pre_hook(lambda module, args: seen.append(len(args[0])))
    measures = {"ad": (100, 50, 15), "ic": (100, 50, 15), **ROAD}
    tt.score_batch(backbone, images, classes, full, maps, measures, chunk=4)
    hook.remove()
    assert seen == [4] * 21 + [2] * 21  # AD and IC share theirs


@pytest.mark.parametrize(
    ("perturbation", "message"), [(("morff", 10), "did you mean 'morf'"), (("morf", -3), "-3")]
)
def test_unknown_perturbations(setting, perturbation, message):
    backbone, images, classes, _, maps = setting
    with pytest.raises(tt.TTAMEError, match=message):
        perturbed_confidences(backbone, images, classes, maps, [perturbation])


def test_removing_everything_is_refused(setting):
    backbone, images, classes, _, maps = setting
    with pytest.raises(tt.TTAMEError, match="nothing to fill them from"):
        perturbed_confidences(backbone, images, classes, maps, [("morf", 100)])
