"""The graph where notebooks fail, take long, or are given names that a shell would read; papermill is a stub."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.commands import ROOT
from tests.project import stub
from tests.project.kill import seconds_until_gone
from ttame_book.editions.graph import STEPS

pytestmark = pytest.mark.slow
FILES = {step.notebook: step.outputs for step in STEPS} | {"12_compare": ["summary/means.csv"]}


class Project:
    """A project whose notebooks are run by the stub."""

    def __init__(self, place):
        self.place = place
        shutil.copytree(ROOT / "config", place / "config")
        for name in ("Snakefile", "notebooks", "book"):
            (place / name).symlink_to(ROOT / name)
        (place / "bin").mkdir()
        papermill = place / "bin" / "papermill"
        papermill.write_text(f'#!/bin/sh\nexec {sys.executable} {stub.__file__} "$@"\n')
        papermill.chmod(0o755)
        self.behave(0)

    def behave(self, number, **how):
        """Say which round this is, and how notebooks behave."""
        told = {"round": number, "files": FILES, "how": {k.strip("n"): v for k, v in how.items()}}
        (self.place / "stub.json").write_text(json.dumps(told))

    def start(self, *options, target="demo_vit/05_road.ipynb", results="results"):
        path = f"{self.place / 'bin'}:{Path(sys.executable).parent}:{os.environ['PATH']}"
        given = ["--config", "edition=smoke", f"results={results}"]
        words = ["snakemake", "--nolock", "--rerun-incomplete", "--cores", "2"]
        return subprocess.Popen(
            [*words, *options, f"{results}/smoke/{target}", *given],
            cwd=self.place,
            env={**os.environ, "PATH": path, "PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def run(self, *options, **given):
        process = self.start(*options, **given)
        told, _ = process.communicate(timeout=120)
        return process.returncode, told

    def ran(self):
        """Notebooks that have run since this was asked last."""
        file = self.place / "ran.txt"
        lines = file.read_text().splitlines() if file.exists() else []
        file.unlink(missing_ok=True)
        return [line.split()[0] for line in lines]

    def contents(self):
        """What the files of results hold; logs apart."""
        files = [f for f in (self.place / "results").rglob("*") if f.is_file()]
        return {
            f.relative_to(self.place / "results" / "smoke").as_posix(): f.read_text()
            for f in files
            if "logs" not in f.parts
        }


@pytest.fixture
def project(tmp_path):
    return Project(tmp_path)


@pytest.mark.happens(
    "Killed or stopped",
    "a notebook that is run again and fails",
    "the earlier scores stay; the next run makes the new ones",
)
def test_an_evaluation_that_is_run_again_and_fails_loses_no_earlier_scores(project):
    target = "demo_vit/04_evaluate.ipynb"
    assert project.run(target=target)[0] == 0
    before = project.contents()
    assert before["demo_vit/scores.parquet"] == "04_evaluate 0"
    file = project.place / "config" / "smoke.yaml"
    file.write_text(file.read_text().replace("[100, 50, 15]", "[100, 50]"))
    project.behave(1, n04_evaluate="fails")
    code, told = project.run(target=target)
    assert code == 1 and "Restored previous version" in told
    del before[target]  # by which Snakemake knows that the scores are not the new ones
    assert project.contents() == before
    project.behave(2)
    assert project.run(target=target)[0] == 0
    after = project.contents()
    assert after["demo_vit/scores.parquet"] == after[target] == "04_evaluate 2"
    assert after["demo_vit/training.csv"] == "03_train 0"


@pytest.mark.happens(
    "Names that a shell or a page would read",
    "a folder of results whose name holds $(...), backticks, quotes or ;",
    "a name",
)
def test_no_text_of_a_name_is_read_by_the_shell(project):
    name = "a $(touch owned1) `touch owned2` ; touch owned3 & 'b\"c"
    code, told = project.run(results=name, target="demo_vit/03_train.ipynb")
    assert code == 0, told
    folder = project.place / name / "smoke"
    assert {f.name for f in (folder / "demo_vit").iterdir()} == {
        *("03_train.ipynb", "explainer.safetensors", "training.csv")
    }
    assert (folder / "logs" / "demo_vit" / "03_train.log").is_file()
    assert not list(project.place.rglob("owned?"))
    assert f"-r results {name}" in (project.place / "ran.txt").read_text()


@pytest.mark.happens(
    "Killed or stopped",
    "the whole graph, by SIGTERM, Ctrl-C or SIGKILL",
    "ends with all its kernels within five seconds, and goes on when run again; no lock to be removed",
)
@pytest.mark.parametrize("sign", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_a_graph_that_is_stopped_goes_at_once_with_all_it_runs_and_goes_on_later(project, sign):
    project.behave(0, n04_evaluate="slow")
    process = project.start()
    wait_for(project, "04_evaluate")
    if sign == signal.SIGTERM:  # another run of the graph is told meanwhile, and ends nothing
        code, told = project.run()
        assert code == 1 and "graph runs already into" in told and "wait for it, or stop it" in told
    begun = time.monotonic()
    whom = os.killpg if sign == signal.SIGKILL else os.kill
    whom(process.pid, sign)
    process.wait(20)
    assert time.monotonic() - begun + seconds_until_gone(project.place) < 5
    if sign == signal.SIGINT:
        return  # to go on is the same for all
    project.ran()
    project.behave(1)
    code, told = project.run()
    assert code == 0, told
    ran = project.ran()
    assert "04_evaluate" in ran and ran.count("03_train") <= 1
    assert set(project.contents().values()) >= {"04_evaluate 1", "03_train 0"}


def wait_for(project, notebook):
    file, begun = project.place / "ran.txt", time.monotonic()
    while not (file.exists() and notebook in file.read_text()):
        assert time.monotonic() - begun < 60
        time.sleep(0.05)


@pytest.mark.happens(
    "Two at once",
    "two threads of a job on a machine whose cores are busy",
    "one that waits sleeps and does not spin, by `OMP_WAIT_POLICY`; another value that is set stays",
)
def test_every_job_has_the_waiting_policy(project, monkeypatch):
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    code, told = project.run(target="demo_vit/03_train.ipynb")
    assert code == 0, told
    seen = json.loads((project.place / "environment.json").read_text())
    assert seen["OMP_WAIT_POLICY"] == "PASSIVE"
    for given, expected in ((None, "PASSIVE"), ("ACTIVE", "ACTIVE")):
        if given:
            monkeypatch.setenv("OMP_WAIT_POLICY", given)
        show = ["make", "--no-print-directory", "--eval", "show: ; @echo $$OMP_WAIT_POLICY", "show"]
        done = subprocess.run(show, cwd=ROOT, capture_output=True, text=True, check=True)
        assert done.stdout.strip() == expected


@pytest.mark.happens(
    "Names that a shell or a page would read",
    "make with $(shell ...), backticks, quotes or ; in EDITION, RESULTS, DATA or CORES",
    "text",
)
def test_make_reads_no_command_in_what_it_is_given(tmp_path):
    shutil.copy(ROOT / "Makefile", tmp_path)
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    for name in ("requirements.lock", "pyproject.toml"):
        (tmp_path / name).touch()
    for name in ("snakemake", "rm"):
        file = tmp_path / ".venv" / "bin" / name
        file.write_text('#!/bin/sh\nprintf "[%s]\\n" "$@"\n')
        file.chmod(0o755)
    (tmp_path / ".venv" / ".ready").touch()
    name = "a $(shell touch owned1) $(touch owned2) `touch owned3`; touch owned4 # 'b\" $$x"
    words = [f"{variable}={name}" for variable in ("EDITION", "RESULTS", "DATA", "CORES")]
    given = {f"{each}={name}" for each in ("edition", "results", "data_root")}
    for target, expected in {
        "book": {*given, name},
        "retrain": {*given, "retrain=true"},
        "clean": {f"{name}/demo", f"{name}/smoke"},
    }.items():
        for line, environment in ((words, {}), ([], dict(w.split("=", 1) for w in words))):
            done = subprocess.run(
                ["make", "--no-print-directory", target, *line],
                cwd=tmp_path,
                env={**os.environ, **environment},
                capture_output=True,
                text=True,
            )
            assert done.returncode == 0, done.stderr
            told = {each.strip("[]") for each in done.stdout.splitlines() if each[0] == "["}
            assert expected <= told, (target, told)
    assert not list(tmp_path.glob("owned?"))
