"""Runs of notebooks: parameters are strict, files are whole, progress is readable."""

import json
import shutil
import subprocess
from pathlib import Path

import pandas as pd
import pytest

import ttame_core as tt
from ttame_core.files import atomic_path
from ttame_core.runs import commit


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
        ({"steps": -1}, "-1 is less than"),
    ],
)
def test_bad_parameters_stop_before_anything_is_written(tmp_path, given, message):
    with pytest.raises(tt.TTAMEError, match=message):
        tt.start_run("01_train", parameters(tmp_path, **given))
    assert not list(tmp_path.iterdir())


def test_none_means_the_editions_and_private_names_are_no_parameters(tmp_path):
    run = tt.start_run("01_train", parameters(tmp_path, steps=None, _i="cell", In=[""], fine=print))
    assert "steps" not in run.parameters
    assert run.edition.recipe("demo_vit").steps == 3
    assert run.folder == tmp_path / "smoke" / "demo_vit"


def test_cells_can_be_run_again_in_the_same_kernel(tmp_path):
    namespace = parameters(tmp_path)
    tt.start_run("01_train", namespace)
    namespace |= {"rows": [1, 2], "steps": 5}  # a variable of the notebook, and a changed parameter
    assert tt.start_run("01_train", namespace).edition.recipe("demo_vit").steps == 5
    namespace["steps"] = "five"
    with pytest.raises(tt.TTAMEError, match="five"):
        tt.start_run("01_train", namespace)


def test_the_manifest_can_repeat_the_run(tmp_path, capsys):
    run = tt.start_run("02_evaluate", parameters(tmp_path, methods=["t-tame", "random"], images=3))
    run.save_table(pd.DataFrame({"a": [1]}), "a.csv")
    run.finish()
    manifest = json.loads((run.folder / "02_evaluate.json").read_text())
    assert "-p backbone demo_vit" in manifest["command"]
    assert '-y \'methods: ["t-tame", "random"]\'' in manifest["command"]
    assert manifest["outputs"] == ["a.csv"]
    for key in ("commit", "versions", "seed", "device", "seconds", "peak_memory_gb"):
        assert manifest[key] not in (None, "", {})
    assert "a.csv, 02_evaluate.json" in capsys.readouterr().out


@pytest.mark.skipif(not shutil.which("git"), reason="git is not installed")
def test_a_commit_is_marked_where_code_differs_not_where_results_do(tmp_path):
    def git(*words):
        who = ("-c", "user.name=A", "-c", "user.email=a@b.c")
        subprocess.run(["git", "-C", tmp_path, *who, *words], check=True, capture_output=True)

    code, table = tmp_path / "code.py", tmp_path / "results" / "table.csv"
    table.parent.mkdir()
    for file in (code, table):
        file.write_text("1")
    git("init")
    git("add", ".")
    git("commit", "-m", "both")
    clean = commit(tmp_path)
    table.write_text("2")
    assert commit(tmp_path) == clean != "unknown"
    code.write_text("2")
    assert commit(tmp_path) == f"{clean}+"


def test_what_a_killed_run_goes_on_from_goes_when_it_has_finished(tmp_path):
    runs = [tt.start_run(name, parameters(tmp_path)) for name in ("02_evaluate", "03_road")]
    for run in runs:
        run.kept.mkdir(parents=True)
    runs[0].finish()
    assert [run.kept.exists() for run in runs] == [False, True]


def test_a_file_is_whole_or_not_there(tmp_path):
    target = tmp_path / "folder" / "table.csv"
    with pytest.raises(RuntimeError), atomic_path(target) as path:
        path.write_text("half")
        raise RuntimeError
    assert not list(target.parent.iterdir())
    with atomic_path(target) as path:
        path.write_text("whole")
        assert not target.exists()
    assert target.read_text() == "whole"


def test_progress_says_how_long_it_will_take(capsys):
    progress = tt.Progress("training", every=0)
    progress(1, 4)
    progress(4, 4)
    first, last = capsys.readouterr().err.splitlines()
    assert first.startswith("training: 1/4") and "left" in first
    assert last.startswith("training: 4/4") and "left" not in last


def test_the_project_is_found_from_below_and_the_lack_of_one_is_said(tmp_path, monkeypatch):
    from ttame_core import configuration

    root = Path(__file__).parents[1]
    monkeypatch.chdir(root / "notebooks")
    assert configuration.project_root() == root
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(configuration, "__file__", str(tmp_path / "site" / "core" / "c.py"))
    with pytest.raises(tt.TTAMEError, match="no project found"):
        configuration.project_root()


def test_the_runs_of_an_edition_are_listed_with_what_they_took(tmp_path):
    tt.start_run("07_sanity", parameters(tmp_path)).finish()
    tt.start_run("02_evaluate", parameters(tmp_path, backbone="demo_resnet")).finish()
    overview = tt.start_run("09_compare", {"edition": "smoke", "results": str(tmp_path)})
    listed = overview.save_manifests("summary/manifests.json")
    assert listed["backbone"].tolist() == ["demo_resnet", "demo_vit"]
    assert listed["run"].tolist() == ["02_evaluate", "07_sanity"]
    made = json.loads((overview.folder / "summary" / "manifests.json").read_text())
    assert listed["commit"].tolist() == [one["commit"] for one in made[:2]]
    assert (listed["minutes"].astype(float) < 1).all() and (listed["GB"] > 0).all()
