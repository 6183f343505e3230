"""Benchmarks: exponents of known laws, what a series varies, memory that is known, what was asked."""

import importlib
import json
import math
import sys
from dataclasses import asdict

import numpy as np
import pytest
import torch

import ttame_core as tt
from tests.commands import ROOT
from ttame_core.metrics.costs import counted_passes

sys.path.append(str(ROOT / "benchmarks"))
growth = importlib.import_module("growth")


@pytest.mark.parametrize("power", [-1, 0, 0.5, 1.7, 2])
def test_the_exponent_of_a_power_law_is_its_power(power):
    x = np.array([1.0, 3.0, 10.0, 40.0])
    assert growth.exponent(x, 7.0 * x**power) == pytest.approx(power, abs=1e-12)


@pytest.mark.parametrize(
    ("x", "y"), [([2], [3]), ([1, 2, 3], [1, math.nan, 2]), ([1, 2, 3], [0, 1, 2])]
)
def test_there_is_no_exponent_of_one_point_or_of_what_was_not_measured(x, y):
    assert math.isnan(growth.exponent(x, y))


def test_a_fixed_cost_weighs_less_in_the_upper_half_of_a_series():
    def rows(what, times):
        told = {"classifier": "a", "what": what, "against": "size", "GB": 0.25}
        return [
            {**told, "at": at, "ms": ms} for at, ms in zip((1, 2, 4, 8, 16), times, strict=True)
        ]

    # constant up to 4, then with the square
    fits = growth.exponents([*rows("explain", [5, 5, 5, 20, 80]), *rows("step", [1, 2, 4, 8, 16])])
    assert [(fit["classifier"], fit["what"], fit["against"]) for fit in fits] == [
        ("a", "explain", "size"),
        ("a", "step", "size"),
    ]
    assert (fits[0]["from"], fits[0]["to"]) == (1, 16)
    assert fits[0]["time, upper half"] == pytest.approx(2)
    assert fits[0]["time, all"] == pytest.approx(1)  # the slope of 0, 0, 0, 2, 4 over 0 to 4
    assert fits[1]["time, all"] == fits[1]["time, upper half"] == pytest.approx(1)
    assert fits[0]["memory, all"] == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("against", growth.SERIES)
def test_a_series_varies_one_thing_alone_least_first(against):
    settings = [asdict(setting) for setting in growth.SERIES[against]]
    values = [setting.pop(against) for setting in settings]
    assert values == sorted(set(values)) and len(values) >= 4
    assert all(setting == settings[0] for setting in settings)


def test_an_evaluation_scores_so_many_methods_on_so_many_images(tiny):
    setting = growth.Setting(size=16, batch=2, images=5, methods=3)
    scores = growth.evaluation(tt.TTAME(tiny), setting)
    assert set(scores["method"]) == {"t-tame", "random 0", "random 1"}
    assert scores["image_id"].nunique() == 5


def test_a_step_trains_the_mechanism(tiny, noise):
    explainer = tt.TTAME(tiny)
    before = explainer.attention.fusion.weight.clone()
    growth.step(explainer, noise.images[:4])()
    assert not before.equal(explainer.attention.fusion.weight)


@pytest.mark.skipif(sys.platform != "linux", reason="a fork's peak is counted anew on Linux")
def test_the_memory_of_a_fork_is_what_its_call_holds_at_most():
    def hold():
        np.ones(200_000_000, np.uint8)  # given back before it is asked

    held = growth.resident_in_a_fork(hold) - growth.resident_in_a_fork(int)
    assert held == pytest.approx(0.2, abs=0.01)


def test_the_guide_tells_of_what_was_asked_as_the_tables_have_it():
    reached = importlib.import_module("reached")
    guide = (ROOT / "benchmarks" / "README.md").read_text()
    assert f"<!-- reached -->\n{reached.markdown()}\n<!-- end -->" in guide


def test_what_was_asked_of_a_gpu_is_compared_at_its_batch():
    reached = importlib.import_module("reached")

    def row(precision, batch, **columns):
        return {"classifier": "vgg16", "what": f"explain, {precision}", "batch": batch, **columns}

    rows = [
        row("float32", 32, **{"plain forwards": 0.3, "forwards": 1.1}),
        row("bfloat16", 32, **{"plain forwards": 0.2, "forwards": 1.1}),
        row("bfloat16", 1, **{"plain forwards": 1.2}),
        {"classifier": "resnet50", "what": "RISE, bfloat16", "batch": 8, "forwards/s": 9_999.0},
    ]
    table = {"device": "a GPU", "threads": 8, "rows": rows}
    found = {(r["what"], r["batch"]): r["reached"] for r in reached.compared(table)}
    assert found == {
        ("explain, plain forwards", "1"): "no",
        ("explain, plain forwards", "32"): "in bfloat16",
        ("explain, forwards", "32"): "yes",
        ("RISE, forwards/s", "8"): "no",
    }


def test_one_thread_is_compared_with_what_was_asked_and_road_with_the_earlier_commit():
    reached = importlib.import_module("reached")

    def row(what, before, now, half):
        told = {"classifier": "resnet50", "batch": 8, "what": what, "before": before}
        return {**told, "now": now, "now, bfloat16": half}

    rows = [
        row("explain", 1.0, 0.76, 0.4),
        row("training step", 3.3, 2.1, 1.0),
        row("RISE", 14.0, 11.0, 3.0),  # nothing was asked
        row("ROAD", 22.0, 22.1, 22.2),
    ]
    found = list(reached.against_earlier({"threads": 1, "rows": rows}))
    assert [(r["what"].partition(",")[0], r["reached"]) for r in found] == [
        ("explain", "in bfloat16"),
        ("training step", "yes"),
        ("ROAD", "no"),
    ]


def test_a_table_in_part_replaces_none_and_holds_no_number_that_is_none(tmp_path, monkeypatch):
    gpu = importlib.import_module("gpu")
    monkeypatch.setattr(gpu, "RESULTS", tmp_path)
    gpu.keep({"device": "A GPU"}, [{"ms": 1.0}], "growth-")
    rows = [{"ms": 2.0, "GB": None, "forwards": math.nan}]
    gpu.keep({"device": "A GPU"}, rows, "growth-", whole=False, exponents=rows)
    table, part = (tmp_path / f"growth-a-gpu.json{end}" for end in ("", ".part"))
    assert json.loads(table.read_text())["rows"] == [{"ms": 1.0}]
    told = json.loads(part.read_text())
    assert told["rows"] == told["exponents"] == [{"ms": 2.0}]


def test_grad_cam_is_timed_by_a_forward_and_the_way_back_to_its_layer(tiny, noise):
    gpu = importlib.import_module("gpu")
    images = noise.images[:3]
    once = gpu.passes_of_grad_cam(tiny, images, torch.tensor([0, 1, 2]))
    with counted_passes(tiny.model) as passes:
        once()
    assert (passes.forwards, passes.backwards) == (3, 3)
    assert all(p.grad is None for p in tiny.model.parameters())
