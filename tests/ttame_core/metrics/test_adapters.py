"""Metrics of Quantus by name, against its own call; skipped where it is not installed."""

import sys

import numpy as np
import pytest
import torch

import ttame_core as tt
from ttame_core.masking import minmax
from ttame_core.metrics.measures import direction, measure_label


@pytest.fixture
def quantus():
    return pytest.importorskip("quantus", reason="Quantus is not installed: pip install quantus")


@pytest.mark.parametrize(
    ("name", "arrow"),
    [("Sparseness", " ↑"), ("Complexity", " ↓"), ("RelevanceMassAccuracy", " ↑")],
)
def test_scores_are_those_of_its_own_call(name, arrow, quantus, tiny):
    images, maps = torch.rand(3, 3, 16, 16), minmax(torch.rand(3, 16, 16))
    truth = torch.rand(3, 16, 16) > 0.5
    full, classes = tiny(images).softmax(1).max(1)
    theirs = getattr(quantus, name)(disable_warnings=True)(
        model=tiny,
        x_batch=images.numpy(),
        y_batch=classes.numpy(),
        a_batch=maps[:, None].numpy(),
        s_batch=truth[:, None].numpy(),
        softmax=True,
    )
    measure = f"quantus:{name}"
    found = tt.score_batch(tiny, images, classes, full, maps, {measure: [100]}, truth)
    assert np.allclose(found[measure, 100], theirs, rtol=1e-6)
    assert measure_label(measure) == measure + arrow


def test_metrics_stand_beside_ours_in_an_evaluation(quantus, tiny):
    images = torch.rand(3, 3, 16, 16)
    batches = [{"image": images[:2], "id": ["a", "b"]}, {"image": images[2:], "id": ["c"]}]
    measures = {"ad": [50], "quantus:FaithfulnessCorrelation": [100]}
    method = tt.method("random", tiny)
    scores, again = (tt.evaluate(tiny, {"random": method}, batches, measures) for _ in range(2))
    assert scores.equals(again)  # it draws from our seed
    assert (scores["measure"] == "quantus:FaithfulnessCorrelation").sum() == 3
    other = tt.evaluate(tiny, {"random": method}, batches, measures, seed=1)
    assert not scores.equals(other)


@pytest.mark.happens(
    "Measures and methods", "the measure {name} of Quantus is asked for at {v}", "{message}"
)
@pytest.mark.parametrize(
    ("name", "v", "message"),
    [
        ("Sparsenes", [100], "'quantus:Sparsenes' is none of quantus; did you mean 'Sparseness'"),
        ("Sparseness", [50, 15], "is \\[50, 15\\]; it has none: give \\[100\\]"),
        ("MaxSensitivity", [100], "quantus:MaxSensitivity cannot score these maps: .*explain_func"),
    ],
)
def test_a_metric_that_cannot_score_is_told(name, v, message, quantus, tiny):
    batches = [{"image": torch.rand(1, 3, 16, 16), "id": ["a"]}]
    with pytest.raises(tt.TTAMEError, match=message):
        tt.evaluate(tiny, {"r": tt.method("random", tiny)}, batches, {f"quantus:{name}": v})


@pytest.mark.happens(
    "Measures and methods",
    "a metric of Quantus is asked for, and Quantus is not installed",
    "refused before anything is scored; what to install is told",
)
def test_without_quantus_its_metrics_are_told_to_need_it(tiny, monkeypatch):
    monkeypatch.setitem(sys.modules, "quantus", None)  # an import of it fails
    batches = [{"image": torch.rand(1, 3, 16, 16), "id": ["a"]}]
    measures = {"quantus:Sparseness": [100]}
    with pytest.raises(tt.TTAMEError, match=r"needs quantus, .* pip install 'quantus'"):
        tt.evaluate(tiny, {"r": tt.method("random", tiny)}, batches, measures)
    assert direction("quantus:Sparseness") == 0  # which is not known then
    assert measure_label("quantus:Sparseness") == "quantus:Sparseness"
