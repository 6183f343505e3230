"""Hours: counts over measured rates."""

import json

import pytest

import ttame_core as tt
from tests.commands import ROOT
from tests.ttame_book.editions.test_counts import BY_HAND
from ttame_book.editions import hours
from ttame_book.editions.counts import Work


def row(what, batch, classifier="vgg16", **measured):
    return {"classifier": classifier, "what": what, "batch": batch, **measured}


ROWS = [
    row("forward, float32", 32, **{"images/s": 100}),
    row("forward, bfloat16", 32, **{"images/s": 400}),
    row("training step, bfloat16", 32, **{"images/s": 50}),
    row("training step, bfloat16", 128, **{"images/s": 70}),
    row("training step, float32", 32, **{"images/s": 9}),
    row("RISE, bfloat16", 8, **{"forwards/s": 300}),
    row("RISE, bfloat16", 8, classifier="resnet50", **{"forwards/s": 1000}),
]
H100 = {"device": "NVIDIA H100", "rows": ROWS}


@pytest.mark.parametrize(
    ("device", "kind", "batch", "per_second"),
    [
        ("NVIDIA H100", "training step", 32, 3 * 50),
        ("NVIDIA H100", "training step", 100, 3 * 70),  # the nearest batch that was measured
        ("CPU", "training step", 32, 3 * 9),  # where the classifier runs in float32
        ("NVIDIA H100", "RISE", 50, 300),
        ("NVIDIA H100", "Grad-CAM", 50, 400),  # was not measured: bare forwards
        ("CPU", "Grad-CAM", 50, 100),
        ("CPU", "RISE", 50, 100),  # in float32 it was not
    ],
)
def test_a_rate_is_that_of_the_kind_and_the_precision(device, kind, batch, per_second):
    work = Work("evaluate", "vgg16", kind, 1.0, batch)
    assert hours.rate({**H100, "device": device}, work) == per_second


@pytest.mark.happens(
    "Configurations and parameters",
    "hours are asked for by a table in which a kind of work was not timed",
    "it goes at the rate of bare forwards, and is named, with its classifier",
)
def test_a_kind_of_work_that_was_not_timed_is_named():
    timed = [Work("train", "vgg16", "training step", 1.0, 32), Work("r", "vgg16", "RISE", 1.0, 8)]
    assert hours.not_timed(timed, H100) == []
    others = [Work(rule, "vgg16", kind, 1.0, 8) for rule in "ab" for kind in ("ROAD", "Grad-CAM")]
    assert hours.not_timed([*timed, *others], H100) == ["Grad-CAM of vgg16", "ROAD of vgg16"]
    # of a precision alone: nothing of it was timed in the other
    only = {**H100, "rows": [row("explain, float32", 1), row("forward, bfloat16", 1)]}
    explain = [Work("sanity", "vgg16", "explain", 1.0, 8)]
    assert hours.not_timed(explain, only) == ["explain of vgg16"]
    assert hours.not_timed(explain, only, "float32") == []


def test_an_editions_own_precision_counts():
    work = Work("train", "vgg16", "training step", 1.0, 32)
    assert hours.rate(H100, work, "float32") == hours.rate(H100, work, "own") == 3 * 9


def test_hours_are_forwards_over_rates():
    works = [
        Work("train", "vgg16", "training step", 3600.0 * 150, 32),
        Work("evaluate", "vgg16", "RISE", 3600.0 * 600, 50),
        Work("evaluate", "resnet50", "RISE", 3600.0 * 500, 50),
    ]
    assert hours.hours(works, H100).to_dict() == {"train": 1.0, "evaluate": 2.5}


def test_a_classifier_that_was_not_measured_is_named():
    work = Work("train", "vit_b_16", "training step", 1.0, 32)
    with pytest.raises(tt.TTAMEError, match=r"no rates of vit_b_16; run .* --models vit_b_16"):
        hours.rate(H100, work)


def test_the_command_prints_counts_and_hours(tmp_path, capsys):
    of_demo = [
        {**each, "classifier": name} for name in ("demo_vit", "demo_resnet") for each in ROWS
    ]
    file = tmp_path / "table.json"
    file.write_text(json.dumps({"device": "A GPU", "rows": of_demo}))
    hours.main([str(file), "--edition", "smoke"])
    told = capsys.readouterr().out.splitlines()
    assert told[1].split()[:2] == ["demo_resnet", "demo_vit"] and "hours, A GPU" in told[1]
    assert [line.split()[0] for line in told[2:-1]] == [*BY_HAND, "all"]
    kinds = ("AD and IC of three v", "Grad-CAM", "ROAD", "explain")
    named = [f"{kind} of {name}" for kind in kinds for name in ("demo_resnet", "demo_vit")]
    assert told[-1] == f"not timed on A GPU, taken for bare forwards: {', '.join(named)}"


def test_the_projects_own_table_has_rates_of_the_papers_classifiers(capsys):
    hours.main([str(ROOT / "benchmarks" / "results" / "cpu.json")])
    told = capsys.readouterr().out.splitlines()
    assert told[1].split()[:3] == ["vgg16", "resnet50", "vit_b_16"] and "hours, CPU" in told[1]
    (hours_in_all,) = (line.split()[-1] for line in told if line.startswith("all "))
    assert float(hours_in_all.replace(",", "")) > 1000


@pytest.mark.parametrize("text", ["", "{}", '{"device": "CPU", "rows": [{"classifier": "a"}]}'])
def test_what_is_no_table_of_rates_is_refused(text, tmp_path):
    file = tmp_path / "growth-cpu.json"
    file.write_text(text)
    with pytest.raises(SystemExit, match=r"growth-cpu.json is no table of rates; expected one of"):
        hours.main([str(file), "--edition", "smoke"])
