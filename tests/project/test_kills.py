"""Killed at random moments and run again, everything ends as if it had never been killed; `make kills` tries more."""

import signal
import time

import numpy as np
import pandas as pd
import pytest
import torch

from tests.project import kill, same, twice

pytestmark = pytest.mark.slow
WRONG = ("half-written", "temporaries after the next run", "other than never killed")


@pytest.mark.happens(
    "Killed or stopped",
    "{name}, killed at any moment",
    "run again, it goes on and ends with the same bytes; nothing half-written, no temporary left",
)
@pytest.mark.parametrize("name", kill.TARGETS)
def test_what_is_killed_goes_on_to_the_same_files(name, tmp_path):
    found = kill.harness(kill.Forked(kill.TARGETS[name]), kills=3, seed=1, place=tmp_path / "kills")
    assert found["kills"] == 3 and found["ends"] >= 1
    assert [found[what] for what in WRONG] == [0, 0, 0]


@pytest.mark.happens(
    "Killed or stopped",
    "SIGTERM or Ctrl-C while training",
    "ends within seconds; run again, it goes on from its checkpoint to the same bytes",
)
@pytest.mark.parametrize("sign", [signal.SIGTERM, signal.SIGINT])
def test_a_training_that_is_asked_to_end_does_so_at_once_and_goes_on_later(sign, tmp_path):
    target, (stopped, whole) = kill.Forked(kill.training), (tmp_path / n for n in "ab")
    for folder in (stopped, whole):
        folder.mkdir()
    process = target.start(stopped)
    checkpoint = stopped / "explainer.checkpoint"
    while not checkpoint.exists():
        time.sleep(0.01)
    assert kill.end(process, sign) < 3
    assert process.exitcode != 0
    done = len(torch.load(checkpoint, weights_only=True)["history"])
    assert 0 < done < 60
    kill.whole(target, stopped)
    kill.whole(target, whole)
    assert not same.differences(stopped, whole) and not same.temporaries(stopped)


def test_the_comparison_sees_what_differs_and_what_is_half_written(tmp_path):
    table = pd.DataFrame({"value": [1.0, 2.0], "run_id": "a"})
    for folder in (tmp_path / "a", tmp_path / "b"):
        (folder / "logs").mkdir(parents=True)
        (folder / "logs" / "log.log").write_text(folder.name)
        table.assign(run_id=folder.name).to_parquet(folder / "scores.parquet")
        np.save(folder / "map.npy", np.ones(3))
        (folder / "costs.csv").write_text(f"method,ms\nrise,{len(folder.name)}\n")
    assert not same.differences(tmp_path / "a", tmp_path / "b") and not same.broken(tmp_path)
    table.assign(value=[1.0, 2.0001]).to_parquet(tmp_path / "a" / "scores.parquet")
    table.to_parquet(tmp_path / "b" / "other.parquet")
    data = (tmp_path / "b" / "map.npy").read_bytes()
    (tmp_path / "b" / "map.npy").write_bytes(data[:-1])
    (tmp_path / "b" / ".part-machine-1-a").mkdir()
    assert same.differences(tmp_path / "a", tmp_path / "b") == [
        *("map.npy", "other.parquet", "scores.parquet")
    ]
    assert list(same.broken(tmp_path)) == ["b/map.npy"] and len(same.temporaries(tmp_path)) == 1


def test_how_far_two_runs_lie_apart_is_told_by_measure(tmp_path):
    table = pd.DataFrame({"measure": ["ad", "ad", "ic"], "value": [1.0, 2.0, 3.0]})
    for name, values in {"a": [1.0, 2.0, 3.0], "b": [1.0, 2.5, 3.0]}.items():
        (tmp_path / name / "demo_vit").mkdir(parents=True)
        table.assign(value=values).to_parquet(tmp_path / name / "demo_vit" / "scores.parquet")
    found = twice.apart(tmp_path / "a", tmp_path / "b")
    assert found.to_dict("list") == {
        "table": ["scores.parquet"] * 2,
        "backbone": ["demo_vit"] * 2,
        "measure": ["ad", "ic"],
        "mean": [0.25, 0.0],
        "max": [0.5, 0.0],
    }
    assert twice.apart(tmp_path / "a", tmp_path / "a").empty
