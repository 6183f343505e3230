"""The measures against values worked out by hand."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

import ttame_core as tt
from ttame_core.images.reading import Preprocessing
from ttame_core.metrics.measures import (
    invalid_maps,
)
from ttame_core.metrics.scores import evaluate


class LeftHalf(nn.Module):
    """Two classes; the first one's logit is the mean of the left half of the image."""

    def __init__(self):
        super().__init__()
        self.tap = nn.Identity()
        self.weight = nn.Parameter(torch.ones(()))

    def forward(self, x):
        x = self.tap(x * self.weight)
        left = x[..., :, : x.shape[-1] // 2].mean((1, 2, 3))
        return torch.stack([left * 4, torch.zeros_like(left)], 1)


@pytest.fixture
def left_half():
    plain = Preprocessing(image_size=8, resize=8, mean=(0.0,) * 3, std=(1.0,) * 3)
    return tt.Backbone(LeftHalf(), ["tap"], name="left", preprocessing=plain)


def test_scores_of_a_classifier_that_looks_left(left_half):
    images = torch.ones(2, 3, 8, 8)
    classes = torch.zeros(2, dtype=torch.int64)
    maps = torch.zeros(2, 8, 8)
    maps[0, :, :4] = 1  # the half that counts
    maps[1, :, 4:] = 1  # the other
    sure = left_half(images).softmax(1)[:, 0]
    scores = tt.score_batch(left_half, images, classes, sure, maps)
    full, empty, part = (torch.tensor(x).sigmoid() for x in (4.0, 0.0, 4 * 0.3125))
    expected = {(100, 0): 0, (100, 1): full - empty, (50, 0): 0, (50, 1): full - empty}
    for (v, image), drop in expected.items():
        assert scores["ad", v][image] == pytest.approx(float(100 * drop / full), abs=1e-4)
    assert scores["ad", 15][0] == pytest.approx(float(100 * (full - part) / full), abs=1e-4)
    assert sure[0] == pytest.approx(float(full))


def test_insertion_and_deletion_go_the_right_way(left_half):
    images, classes = torch.ones(1, 3, 16, 16), torch.zeros(1, dtype=torch.int64)
    maps = torch.zeros(1, 16, 16)
    maps[0, :, :8] = 1  # the half that counts
    full = left_half(images).softmax(1)[:, 0]
    measures = {"insertion": (0, 50, 100), "deletion": (0, 50, 100)}
    scores = tt.score_batch(left_half, images, classes, full, maps, measures)
    sure, empty = (float(100 * torch.tensor(x).sigmoid()) for x in (4.0, 0.0))
    assert scores["deletion", 0][0] == pytest.approx(sure, abs=1e-3)
    assert scores["deletion", 50][0] == pytest.approx(empty, abs=1e-3)  # the half is gone
    images[..., 8:] = 0  # so that a blur takes something away
    scores = tt.score_batch(left_half, images, classes, full, maps, measures)
    assert scores["insertion", 50][0] == pytest.approx(sure, abs=1e-3)  # the half is whole
    assert scores["insertion", 0][0] < sure - 0.5


def test_all_ones_changes_nothing(left_half):
    images = torch.rand(5, 3, 8, 8)
    full, classes = left_half(images).softmax(1).max(1)
    scores = tt.score_batch(
        left_half, images, classes, full, torch.ones(5, 8, 8), allow_constant=True
    )
    assert scores["ad", 100].max() == 0
    assert scores["ic", 100].max() == 0


def test_invalid_maps_are_found_counted_and_not_scored(left_half, noise):
    maps = torch.rand(3, 4, 4)
    maps[1, 0, 0] = torch.nan
    maps[2] = 0.5
    assert invalid_maps(maps).tolist() == [False, True, True]
    assert invalid_maps(torch.stack([maps[0] * 50, maps[0] - 1])).all()

    def broken(images, classes):
        return maps[:, :, :].clone()

    batch = {"image": torch.rand(3, 3, 8, 8), "id": ["a", "b", "c"]}
    scores = evaluate(left_half, {"broken": broken}, [batch])
    assert scores[scores["measure"] == "invalid"]["value"].tolist() == [0, 1, 1]
    assert set(scores[scores["measure"] == "ad"]["image_id"]) == {"a"}


@settings(
    max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.integers(0, 2**32), st.integers(1, 7), st.floats(1, 99), st.booleans())
def test_chunks_and_batches_do_not_matter(tiny, noise, seed, chunk, v, ties):
    images = noise.images[:6]
    full, classes = tiny(images).softmax(1).max(1)
    maps = torch.rand(6, 4, 4, generator=torch.Generator().manual_seed(seed))
    if ties:
        maps = (maps - 0.6).relu()  # most pixels equal
    before = images.clone(), maps.clone()
    measures = {name: (v,) for name, m in tt.MEASURES.items() if m.perturbation}
    together = tt.score_batch(tiny, images, classes, full, maps, measures)
    chunked = tt.score_batch(tiny, images, classes, full, maps, measures, chunk=chunk)
    for key, values in together.items():
        assert torch.allclose(values, chunked[key], atol=1e-3), key
    one = slice(seed % 6, seed % 6 + 1)
    alone = tt.score_batch(tiny, images[one], classes[one], full[one], maps[one], measures)
    for key, value in alone.items():
        assert torch.allclose(value, together[key][one], atol=1e-3), key
    assert torch.equal(images, before[0]) and torch.equal(maps, before[1])


def test_a_mask_of_ones_neither_drops_nor_raises_the_confidence(tiny, noise, monkeypatch):
    logits = tiny.logits
    rounding = torch.tensor([1, 1 + 1e-5])  # as a device's kernels differ by the size of the batch
    monkeypatch.setattr(tiny, "logits", lambda x: logits(x) * rounding[len(x) % 2])
    batch = {"image": noise.images[:4], "id": list("abcd")}
    ones = {"all-ones": tt.method("all-ones", tiny)}
    values = evaluate(tiny, ones, [batch], chunk=1).set_index(["measure", "v"])["value"]
    assert (values["ad", 100] == 0).all() and (values["ic", 100] == 0).all()
    assert (values["ad", 50] != 0).any()


def test_an_explainer_is_a_method(tiny, noise):
    explainer = tt.TTAME(tiny)
    batch = {"image": noise.images[:4], "id": list("abcd")}
    methods = {"t-tame": explainer, "the same": explainer.explain}
    values = evaluate(tiny, methods, [batch]).groupby("method")["value"].apply(list)
    assert values["t-tame"] == values["the same"]


def test_maps_that_explain_nothing_have_no_scores(tiny, noise):
    full, classes = tiny(noise.images[:3]).softmax(1).max(1)
    maps = torch.rand(3, 4, 4)
    maps[0], maps[1, 0, 0] = 0.5, torch.nan
    truth = torch.ones(3, 16, 16).bool()
    measures = {"ad": (50,), "morf": (50,)}
    scores = tt.score_batch(tiny, noise.images[:3], classes, full, maps, measures, truth)
    assert scores.pop(("invalid", 100)).tolist() == [1, 1, 0]
    for key, values in scores.items():
        assert torch.isnan(values).tolist() == [True, True, False], key


def test_maps_of_any_size_are_scaled_alike(left_half):
    """A cell's peak is less than 1 once upsampled; the measures see 1 all the same."""
    images, classes = torch.rand(1, 3, 8, 8), torch.zeros(1, dtype=torch.int64)
    full = left_half(images).softmax(1)[:, 0]
    small = torch.zeros(1, 4, 4)
    small[0, 1, 1] = 1
    large = F.interpolate(small[None], (8, 8), mode="bilinear")[0]
    assert large.max() < 0.9
    scores = [
        tt.score_batch(left_half, images, classes, full, m) for m in (small, large / large.max())
    ]
    for key in scores[0]:
        assert torch.allclose(scores[0][key], scores[1][key]), key


def test_wrong_number_of_maps(tiny, noise):
    classes = torch.zeros(24).long()
    with pytest.raises(tt.TTAMEError, match=r"expected \(24, h, w\)"):
        tt.score_batch(tiny, noise.images, classes, torch.rand(24), torch.rand(3, 4, 4))
    batch = {"image": noise.images[:2], "id": ["a", "b"]}
    with pytest.raises(tt.TTAMEError, match=r"flat gives maps \(2, 4\)"):
        evaluate(tiny, {"flat": lambda images, classes: torch.rand(2, 4)}, [batch])


@pytest.mark.parametrize(
    ("measures", "message"),
    [({"morff": (10,)}, "did you mean 'morf'"), ({"ad": (101,)}, "101")],
)
def test_measures_that_do_not_exist(tiny, noise, measures, message):
    full, classes = tiny(noise.images).softmax(1).max(1)
    with pytest.raises(tt.TTAMEError, match=message):
        tt.score_batch(tiny, noise.images, classes, full, torch.rand(24, 4, 4), measures)


def test_a_batch_without_ids_is_refused_before_it_is_scored(tiny):
    def method(images, classes):
        raise AssertionError("explained all the same")

    with pytest.raises(tt.TTAMEError, match="expected ids too"):
        tt.evaluate(tiny, {"m": method}, [{"image": torch.rand(2, 3, 16, 16)}])
