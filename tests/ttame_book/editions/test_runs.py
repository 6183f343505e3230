"""Runs of notebooks: parameters are strict, files are whole, progress is readable."""

import itertools
import json
import platform
import re
import shlex
from datetime import datetime

import pandas as pd
import pytest
import torch
import yaml
from matplotlib import pyplot as plt
from papermill.cli import _resolve_type

import ttame_book as tb
import ttame_core as tt
from tests.commands import ROOT
from ttame_book.editions import runs
from ttame_book.editions.manifest import commit


def parameters(tmp_path, **given):
    return {"edition": "smoke", "backbone": "demo_vit", "results": str(tmp_path), **given}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"max_lrr": 0.1}, "has no parameter 'max_lrr'; did you mean 'max_lr'"),
        ({"steps": "ten"}, "steps.*'ten'; expected int"),
        ({"steps": True}, "steps.*True; expected int"),
        ({"edition": "smokes"}, "did you mean 'smoke'"),
        ({"backbone": "demo_vitt"}, "did you mean 'demo_vit'"),
        ({"steps": -1}, "steps is -1; expected at least 1"),
    ],
)
def test_bad_parameters_stop_before_anything_is_written(tmp_path, given, message):
    with pytest.raises(tt.TTAMEError, match=message):
        tb.start_run("03_train", parameters(tmp_path, **given))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("given", [{"edition": None}, {"backbone": None}])
def test_an_edition_and_a_backbone_must_be_named(tmp_path, given):
    with pytest.raises(tt.TTAMEError, match=f"03_train has no {next(iter(given))}; give a name"):
        tb.start_run("03_train", parameters(tmp_path, **given))


def test_a_folder_that_no_system_takes_is_told(tmp_path):
    with pytest.raises(tt.TTAMEError, match=r"x00.*cannot be written to .*another folder"):
        tb.start_run("03_train", parameters(tmp_path, results=f"{tmp_path}/a\0b"))


def test_none_means_the_editions_and_private_names_are_no_parameters(tmp_path):
    run = tb.start_run("03_train", parameters(tmp_path, steps=None, _i="cell", In=[""], fine=print))
    assert "steps" not in run.parameters
    assert run.edition.recipe("demo_vit").steps == 3
    assert run.folder == tmp_path / "smoke" / "demo_vit"


def test_cells_can_be_run_again_in_the_same_kernel(tmp_path):
    namespace = parameters(tmp_path)
    tb.start_run("03_train", namespace)
    namespace |= {"rows": [1, 2], "steps": 5}  # a variable of the notebook, and a changed parameter
    assert tb.start_run("03_train", namespace).edition.recipe("demo_vit").steps == 5
    namespace["steps"] = "five"
    with pytest.raises(tt.TTAMEError, match="five"):
        tb.start_run("03_train", namespace)


def test_the_manifest_can_repeat_the_run(tmp_path, capsys):
    run = tb.start_run("04_evaluate", parameters(tmp_path, methods=["t-tame", "random"], images=3))
    run.save_table(pd.DataFrame({"a": [1]}), "a.csv")
    run.finish()
    manifest = json.loads((run.folder / "04_evaluate.json").read_text())
    assert "-p backbone demo_vit" in manifest["command"]
    assert '-y \'methods: ["t-tame", "random"]\'' in manifest["command"]
    assert manifest["outputs"] == ["a.csv"]
    assert (manifest["seed"], manifest["edition"]) == (0, "smoke")
    assert manifest["commit"] == commit(ROOT)
    assert torch.__version__.startswith(manifest["versions"]["torch"])
    assert manifest["versions"]["python"] == platform.python_version()
    assert manifest["threads"] == torch.get_num_threads()
    assert manifest["device"] == (
        "cpu" if not torch.cuda.is_available() else torch.cuda.get_device_name()
    )
    assert manifest["load"] is None or 0 <= manifest["load"] < 1000
    assert 0 <= manifest["seconds"] < 60 and 0.1 < manifest["peak_memory_gb"] < 100
    assert manifest["run_id"] == run.run_id
    assert manifest["precision"] == {}  # no classifier was loaded
    model = run.edition.backbone("demo_vit")
    assert run.manifest()["precision"] == {"demo_vit": model.precision}
    assert "bfloat16" in manifest["reproduces"]["devices"] and "not measured" in str(manifest)
    assert "same bytes" in manifest["reproduces"]["here"] and "make twice" in str(manifest)
    given = parameters(tmp_path, methods=["t-tame", "random"], images=3)
    assert manifest["parameters"] == given
    words = shlex.split(manifest["command"])
    assert words[:3] == ["papermill", "notebooks/04_evaluate.ipynb", "04_evaluate-out.ipynb"]
    told = {}
    for option, *values in itertools.zip_longest(words[3::1], words[4::1], words[5::1]):
        if option == "-p":
            told[values[0]] = _resolve_type(values[1])  # as papermill reads it
        elif option == "-y":
            told |= yaml.safe_load(values[0])
    assert told == given
    assert "a.csv, 04_evaluate.json" in capsys.readouterr().out


def test_what_a_killed_run_goes_on_from_goes_when_it_has_finished(tmp_path):
    run = tb.start_run("07_ablations", parameters(tmp_path))
    other = tb.start_run("07_ablations", parameters(tmp_path, backbone="demo_resnet"))
    done, killed = (
        ("explainer", "studies/ablations/VI-no_skip"),
        ("studies/ablations/seeds-seed_1",),
    )
    for each in (run, other):
        for name in (*done, *killed):
            file = each.folder / f"{name}.checkpoint"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.touch()
        for name in done:
            (each.folder / f"{name}.safetensors").touch()
    run.finish()
    assert {f.stem for f in run.folder.rglob("*.checkpoint")} == {"seeds-seed_1"}
    assert len(list(other.folder.rglob("*.checkpoint"))) == 3
    assert len(list(run.folder.rglob("*.safetensors"))) == 2


def test_the_runs_of_an_edition_are_listed_with_what_they_took(tmp_path):
    tb.start_run("10_sanity", parameters(tmp_path)).finish()
    run = tb.start_run("04_evaluate", parameters(tmp_path, backbone="demo_resnet"))
    run.edition.backbone("demo_resnet")
    run.finish()
    overview = tb.start_run("12_compare", {"edition": "smoke", "results": str(tmp_path)})
    listed = overview.save_manifests("summary/manifests.json")
    assert listed["backbone"].tolist() == ["demo_resnet", "demo_vit"]
    assert listed["run"].tolist() == ["04_evaluate", "10_sanity"]
    made = json.loads((overview.folder / "summary" / "manifests.json").read_text())
    assert listed["commit"].tolist() == [one["commit"] for one in made[:2]]
    assert (listed["minutes"].astype(float) < 1).all() and (listed["GB"] > 0).all()
    assert listed["precision"].tolist() == ["float32", ""]  # the other asked no classifier


class Stopped(datetime):
    """A clock that stands still."""

    @classmethod
    def now(cls, zone=None):
        return cls(2026, 3, 4, 5, 6, 7, tzinfo=zone)


@pytest.mark.happens(
    "Two at once", "two runs that start in the same second", "each has a name of its own"
)
def test_runs_that_start_in_the_same_second_have_names_of_their_own(tmp_path, monkeypatch):
    monkeypatch.setattr(runs, "datetime", Stopped)
    found = [
        tb.start_run("04_evaluate", parameters(tmp_path, backbone=name))
        for name in ("demo_vit", "demo_resnet", "demo_vit")
    ]
    overview = tb.start_run("12_compare", {"edition": "smoke", "results": str(tmp_path)})
    ids = [run.run_id for run in (*found, overview)]
    assert len(set(ids)) == 4
    stems = [f"04_evaluate-{name}" for name in ("demo_vit", "demo_resnet", "demo_vit")]
    for name, stem in zip(ids, [*stems, "12_compare-smoke"], strict=True):
        assert re.fullmatch(rf"{stem}-20260304T050607Z-[0-9a-f]{{8}}", name)
    for run in found[:2]:
        run.finish()
    overview.save_manifests("summary/manifests.json")
    made = json.loads((overview.folder / "summary" / "manifests.json").read_text())
    assert [one["run_id"] for one in made] == [ids[1], ids[0], ids[3]]
    assert [one["started"] for one in made] == ["2026-03-04T05:06:07+00:00"] * 3


def test_scores_say_what_they_are_of_and_which_run_made_them(tmp_path):
    run = tb.start_run("04_evaluate", parameters(tmp_path, seed=3))
    scores = pd.DataFrame({"method": ["rise"], "value": [1.5]})
    written = run.save_scores(scores, "scores.parquet")
    read = pd.read_parquet(run.folder / "scores.parquet")
    pd.testing.assert_frame_equal(read, written)
    assert read.iloc[0].to_dict() == {
        **{"method": "rise", "value": 1.5, "edition": "smoke", "backbone": "demo_vit"},
        **{"variant": "proposed", "seed": 3, "run_id": run.run_id},
    }
    assert list(scores.columns) == ["method", "value"] and run.outputs == ["scores.parquet"]
    assert run.folder == tmp_path / "smoke" / "variations" / "seed=3" / "demo_vit"
    run.finish()
    assert json.loads((run.folder / "04_evaluate.json").read_text())["run_id"] == run.run_id


def test_figures_are_the_same_files_each_time_and_vector_ones_have_a_pdf_and_their_data(tmp_path):
    run = tb.start_run("04_evaluate", parameters(tmp_path))
    contents = []
    for _ in range(2):
        with plt.rc_context({"svg.hashsalt": "fixed"}):
            figure, axes = plt.subplots()
            axes.plot([1, 2])
            for name in ("a.png", "b.svg"):
                run.save_figure(figure, name)
            run.save_figure(figure, "c.svg", pd.DataFrame({"x": [1, 2]}))
            plt.close(figure)
        contents.append({f.name: f.read_bytes() for f in run.folder.iterdir()})
    files = ["a.png", "b.svg", "b.pdf", "c.svg", "c.pdf", "c.csv"]
    assert run.outputs == files * 2
    assert contents[0].keys() == set(files) and contents[0] == contents[1]
    assert contents[0]["c.csv"] == b"x\n1\n2\n"


def test_parameters_are_read_from_the_notebook_with_types_and_meanings(tmp_path):
    cells = [
        {"cell_type": "code", "metadata": {}, "source": ["other: int = 1  # no parameter"]},
        {
            "cell_type": "code",
            "metadata": {"tags": ["parameters"]},
            "source": ["steps: int = None  # optimiser steps\n", 'name: str = "a"  # what it is\n'],
        },
    ]
    (tmp_path / "x.ipynb").write_text(json.dumps({"cells": cells}))
    found = runs.parameters_of(tmp_path / "x.ipynb")
    told = {name: (p.inferred_type_name, p.default, p.help) for name, p in found.items()}
    assert told == {
        "steps": ("int", "None", "optimiser steps"),
        "name": ("str", '"a"', "what it is"),
    }
