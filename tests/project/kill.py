"""Kill what runs at random moments, start it again, and compare with what was never killed.

    python -m tests.project.kill [KILLS] [SEED]   # make kills

Trainings, evaluations and savings run in processes that are forked from one that has imported
torch; the graph runs as its users run it. What is killed is the whole process group.
"""

import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import suppress
from multiprocessing import get_context
from pathlib import Path

import lightning_fabric  # noqa: F401  # forked with the rest
import numpy as np
import pandas as pd
import psutil
import torch
from matplotlib.figure import Figure
from torch.utils.data import DataLoader

import ttame_core as tt
from tests.conftest import Noise, TinyCNN
from tests.project.same import broken, differences, temporaries
from ttame_core.files import atomic_path
from ttame_core.images.reading import Preprocessing
from ttame_core.metrics.cache import KeptConfidences, KeptMaps

ROOT = Path(__file__).parents[2]
PROJECT = ("Snakefile", "config", "notebooks", "book", "profiles", "ttame_core", "ttame_book")
KERNELS = 5.0  # seconds after which no kernel may be left


def backbone():
    torch.set_num_threads(1)
    torch.manual_seed(0)
    small = Preprocessing(image_size=16, resize=16)
    return tt.Backbone(TinyCNN(), ["stem", "middle", "last"], name="tiny", preprocessing=small)


def training(folder, steps=60):
    """Train with a checkpoint every other step, and save."""
    explainer = tt.TTAME(backbone())
    recipe = tt.Recipe(steps=steps, batch_size=6, max_lr=0.05)
    file = folder / "explainer.checkpoint"
    history = tt.train(explainer, Noise(), recipe, checkpoint=file, checkpoint_every=2)
    with atomic_path(folder / "training.csv") as path:
        pd.DataFrame(history).to_csv(path, index=False)
    explainer.save(folder / "explainer.safetensors")
    file.unlink()


def scoring(folder, measures, pixels=16):
    """Score a method whose maps are kept, and its classifier's answers, like an edition's."""
    model = backbone()
    maps = KeptMaps(tt.method("rise", model, masks=20), folder / "maps", "rise")
    answers = KeptConfidences(model, folder / "answers")
    batches = DataLoader(Noise(pixels=pixels), batch_size=2)
    scores = tt.evaluate(model, {"rise": maps}, batches, measures, confidences=answers)
    with atomic_path(folder / "scores.parquet") as path:
        scores.assign(run_id="").to_parquet(path, index=False)


def evaluation(folder):
    """Score AD and IC."""
    scoring(folder, tt.MASKING)


def road(folder):
    """Score ROAD, insertion and deletion."""
    scoring(folder, {**tt.ROAD, **tt.CURVES}, pixels=32)


def saving(folder):
    """Write files of every kind again and again."""
    table = pd.DataFrame({"value": np.arange(20_000.0)})
    figure = Figure()
    figure.subplots().plot([1, 3, 2])
    explainer = tt.TTAME(backbone())
    for _ in range(8):
        explainer.save(folder / "explainer.safetensors")
        with atomic_path(folder / "table.parquet") as path:
            table.assign(run_id="").to_parquet(path, index=False)
        with atomic_path(folder / "table.csv") as path:
            table.to_csv(path, index=False)
        with atomic_path(folder / "maps.npy") as path:
            np.save(path, table.to_numpy())
        for name, when in {"figure.png": None, "figure.pdf": {"CreationDate": None}}.items():
            with atomic_path(folder / name) as path:
                figure.savefig(path, metadata=when)


TARGETS = {each.__name__: each for each in (training, evaluation, road, saving)}


def _grouped(target, folder):
    os.setsid()
    # ignored by what a shell runs in the background, the tests perhaps
    signal.signal(signal.SIGINT, signal.default_int_handler)
    target(folder)


class Forked:
    """A target, each run of it a process forked from one that has imported what it needs."""

    def __init__(self, target):
        self.target = target
        self.context = get_context("forkserver")
        self.context.set_forkserver_preload(["tests.project.kill"])
        warm = self.context.Process(target=backbone)
        warm.start()
        warm.join()

    def start(self, folder):
        process = self.context.Process(target=_grouped, args=(self.target, folder))
        process.start()
        return process

    def results(self, folder):
        return folder


class Graph:
    """The whole smoke edition, in a copy of the project."""

    COMMAND = ("snakemake", "--profile", "profiles/local", "--nolock", "--cores", "2")

    def start(self, folder):
        if not (folder / "Snakefile").exists():
            copy_project(folder)
        with (folder / "graph.log").open("a") as log:
            process = subprocess.Popen(
                [*self.COMMAND, "--config", "edition=smoke"],
                cwd=folder,
                env=environment(folder),
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        return _Command(process)

    def results(self, folder):
        return folder / "results" / "smoke"


class _Command:
    """A command, with the methods of a process of multiprocessing that are used here."""

    def __init__(self, process):
        self.process, self.pid = process, process.pid

    def join(self, timeout=None):
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(timeout)

    @property
    def exitcode(self):
        return self.process.poll()


def environment(folder):
    """The environment of a user's shell, whose packages are those of a copy of the project."""
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    return {**os.environ, "PATH": path, "PYTHONPATH": str(folder), "OMP_WAIT_POLICY": "PASSIVE"}


def copy_project(folder):
    folder.mkdir(parents=True, exist_ok=True)
    hidden = shutil.ignore_patterns(".*", "__pycache__")
    for name in PROJECT:
        part = ROOT / name
        copy = partial_copy if part.is_dir() else shutil.copy
        copy(part, folder / name, *([hidden] if part.is_dir() else []))
    committed = folder / "results" / "imagenette"
    committed.parent.mkdir(exist_ok=True)
    if not committed.exists():
        committed.symlink_to(ROOT / "results" / "imagenette")


def partial_copy(part, copy, hidden):
    shutil.copytree(part, copy, ignore=hidden, dirs_exist_ok=True)


def end(process, sign=signal.SIGKILL):
    """Send a signal to a process and its group, wait for it; the seconds until it has ended."""
    begun = time.monotonic()
    with suppress(ProcessLookupError):
        os.killpg(process.pid, sign)
    process.join(60)
    return time.monotonic() - begun


def seconds_until_gone(folder, limit=30):
    """Seconds until no process works in a folder."""
    begun = time.monotonic()
    while works_in(folder) and time.monotonic() - begun < limit:
        time.sleep(0.05)
    return time.monotonic() - begun


def works_in(folder):
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if Path(process.cwd()).is_relative_to(folder) and process.pid != os.getpid():
                found.append(process)
    return found


def whole(target, folder):
    """Run a target to its end; the seconds that it took."""
    begun = time.monotonic()
    process = target.start(folder)
    process.join()
    assert process.exitcode == 0, f"{folder}: {process.exitcode}"
    return time.monotonic() - begun


def survive(target, place, reference, kills, latest, draw):
    """Kill a target so often, at moments up to the latest, running it again and again.

    Whenever it comes to its end the results are compared with the reference, and it begins from
    nothing. Returns counts of kills, ends and what was found wrong.
    """
    found, number = Counter(), 0
    longest = 0.0
    while found["kills"] < kills:
        folder = place / f"run-{number}"
        folder.mkdir(exist_ok=True)
        process = target.start(folder)
        process.join(draw.uniform(0, latest))
        if process.exitcode is None and found["kills"] < kills:
            end(process)
            longest = max(longest, seconds_until_gone(folder))
            found["kills"] += 1
            found["left a temporary"] += bool(temporaries(folder))
            note(found, "half-written", broken(target.results(folder)))
        else:
            assert process.exitcode == 0, f"{folder}: {process.exitcode}"
            finish(target, folder, reference, found)
            number += 1
    whole(target, folder)
    finish(target, folder, reference, found)
    found["seconds of the longest-lived kernel"] = round(longest, 1)
    return found


def finish(target, folder, reference, found):
    """Compare a run that came to its end with the one that was never killed."""
    found["ends"] += 1
    note(found, "temporaries after the next run", temporaries(target.results(folder)))
    note(found, "half-written", broken(target.results(folder)))
    note(found, "other than never killed", differences(target.results(folder), reference))


def note(found, what, names):
    found[what] += len(names)
    if names:
        print(f"  {what}: {names}", file=sys.stderr)


def harness(target, kills, seed=0, latest=None, place=None):
    """Run a target once to its end, then kill it so often; what was counted."""
    place = Path(place or tempfile.mkdtemp(prefix="kills-"))
    (place / "never-killed").mkdir(parents=True)
    took = whole(target, place / "never-killed")
    reference = target.results(place / "never-killed")
    assert not broken(reference) and not temporaries(reference)
    found = survive(target, place, reference, kills, latest or took, random.Random(seed))
    shutil.rmtree(place)
    return found


if __name__ == "__main__":
    # each forked process would warn that it is made of a module that is there already
    os.environ["PYTHONWARNINGS"] = "ignore::RuntimeWarning:runpy"
    kills, seed = (int(number) for number in [*sys.argv[1:], 50, 0][:2])
    of_graph = max(1, kills // 4)
    rest = kills - of_graph
    plan = {Forked(target): (rest + i) // len(TARGETS) for i, target in enumerate(TARGETS.values())}
    names = dict(zip(plan, TARGETS, strict=True))
    rows = {names[target]: harness(target, count, seed) for target, count in plan.items()}
    rows["graph"] = harness(Graph(), of_graph, seed, latest=60)
    table = pd.DataFrame(rows).T.fillna(0)
    print(table.to_markdown())
    wrong = table[["half-written", "temporaries after the next run", "other than never killed"]]
    late = table["seconds of the longest-lived kernel"].max() > KERNELS
    sys.exit(bool(wrong.to_numpy().sum()) or late)
