"""Several processes: they train as one does, and score each image once.

torchrun --nproc-per-node 2 -m tests.ttame_core.test_distributed FOLDER   # as the tests do
"""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from torch.utils.data import DataLoader, Subset

import ttame_core as tt
from tests.commands import ROOT
from tests.conftest import Noise, TinyCNN

STEPS, KILLED = 7, 5
CASES = {
    "uniform": ("proposed", {}),
    "in-batch": ("proposed", {"other_classes": "in-batch"}),
    "no batch norm": ("no_skip_no_batch_norm", {}),
    "warm": ("squashed", {"start": "warm", "mask": "min-max"}),
    "released": ("l_cam_img", {"loss": tt.LossWeights(released_variation=True)}),
}
RECIPE = tt.Recipe(steps=STEPS, batch_size=6, max_lr=0.05)
CLOSE = 1e-5


class Shifted(Noise):
    """Noise that each epoch shifts in another way, as a random crop does."""

    epoch = 0

    def set_epoch(self, epoch):
        self.epoch = epoch

    def __getitem__(self, index):
        item = super().__getitem__(index)
        shift = int(np.random.default_rng([self.epoch, index]).integers(16))
        return {**item, "image": item["image"].roll(shift, 2)}


def backbone():
    """A classifier that finds several classes in the noise, not one alone."""
    torch.manual_seed(0)
    model, small = TinyCNN().eval(), tt.Preprocessing(image_size=16, resize=16)
    with torch.no_grad():
        model.head.bias -= model(Noise().images).mean(0)
    return tt.Backbone(model, ["stem", "middle", "last"], preprocessing=small)


def trained(fabric, case, **options):
    """The history and the weights of a training by six images a step, over two epochs."""
    variant, settings = CASES[case]
    explainer = tt.TTAME(backbone(), variant)
    history = tt.train(explainer, Shifted(), replace(RECIPE, **settings), fabric=fabric, **options)
    return history, explainer.attention.state_dict()


def scored(rank, ranks):
    """The scores of every so many image, by methods whose maps come of the classifier or of chance."""
    model, images = backbone(), Noise(pixels=32)
    methods = {"t-tame": tt.TTAME(model), "rise": tt.method("rise", model, masks=20)}
    methods["random"] = tt.method("random", model)
    share = Subset(images, range(rank, len(images), ranks))
    measures = {**tt.MASKING, "morf": [30], "insertion": [30]}
    return tt.evaluate(model, methods, DataLoader(share, batch_size=4), measures)


def main(folder):
    """Train every case and score a share, as one of the processes that torchrun starts."""
    from lightning_fabric import Fabric

    fabric = Fabric(accelerator="cpu", devices=2, strategy="ddp")
    fabric.launch()
    rank, told = fabric.global_rank, []
    found = {case: trained(fabric, case) for case in CASES}
    own = folder / str(rank) / "checkpoint"  # the second process sees none
    found["resumed"] = trained(
        fabric, "uniform", checkpoint=own, progress=lambda done, total: told.append(done)
    )
    torch.save({"trained": found, "told": told}, folder / f"{rank}.pt")
    scored(rank, fabric.world_size).to_parquet(folder / f"{rank}.parquet")


def saved(fabric, file):
    """Train, and write what came of it where the notebook that started this finds it."""
    found = trained(fabric, "uniform")
    if fabric.is_global_zero:
        torch.save(found, file)


IN_A_NOTEBOOK = """
from lightning_fabric import Fabric
from tests.ttame_core.test_distributed import saved

Fabric(accelerator="cpu", devices=2, strategy="ddp_notebook").launch(saved, {file!r})
"""


def largest_difference(found, expected):
    """How far histories and weights are apart, in the numbers that are farthest."""
    (rows, weights), (expected_rows, expected_weights) = found, expected
    assert [row["step"] for row in rows] == list(range(STEPS)) and len(rows) == len(expected_rows)
    losses = [abs(a[k] - b[k]) for a, b in zip(rows, expected_rows, strict=True) for k in b]
    apart = [(weights[k] - value).abs().max().item() for k, value in expected_weights.items()]
    return max(losses), max(apart)


@pytest.fixture(scope="module")
def alone():
    """What one process makes of every case."""
    from lightning_fabric import Fabric

    return {case: trained(Fabric(accelerator="cpu", devices=1), case) for case in CASES}


@pytest.fixture(scope="module")
def folder(request, tmp_path_factory):
    """What two processes have written, beside the checkpoint of a single one that was killed."""
    folder = tmp_path_factory.mktemp("processes")
    (folder / "0").mkdir()

    def kill(done, total):
        if done == KILLED:
            raise KeyboardInterrupt

    options = {"checkpoint": folder / "0" / "checkpoint", "checkpoint_every": KILLED - 1}
    with pytest.raises(KeyboardInterrupt):
        trained(None, "uniform", progress=kill, **options)
    words = ("-m", "torch.distributed.run", "--nproc-per-node", "2", "-m", __name__, str(folder))
    process = subprocess.Popen(
        [sys.executable, *words],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    request.getfixturevalue("alone")  # meanwhile
    told = process.communicate(timeout=300)[1]
    assert process.returncode == 0 and "Warning" not in told, told[-4000:]
    return folder


@pytest.fixture(scope="module")
def ranks(folder):
    return [torch.load(folder / f"{rank}.pt") for rank in (0, 1)]


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
@pytest.mark.happens(
    "Training and explaining",
    "a training in two processes that torchrun or a notebook starts",
    "the losses and weights of one process with the same batch, to 1e-5",
)
def test_two_processes_train_as_one_does(case, alone, ranks):
    found = ranks[0]["trained"][case]
    assert max(largest_difference(found, alone[case])) < CLOSE
    assert largest_difference(ranks[1]["trained"][case], found) == (0, 0)
    assert not any(torch.isnan(value).any() for value in found[1].values())


@pytest.mark.slow
def test_two_processes_go_on_where_one_was_killed(alone, folder, ranks):
    """The first reads and writes the checkpoint, and tells how far things are."""
    for rank in ranks:
        assert max(largest_difference(rank["trained"]["resumed"], alone["uniform"])) < CLOSE
    assert [rank["told"] for rank in ranks] == [[*range(KILLED, STEPS + 1)], []]
    history = torch.load(folder / "0" / "checkpoint")["history"]
    assert history == ranks[0]["trained"]["resumed"][0]
    assert not (folder / "1").exists()


@pytest.mark.slow
def test_processes_that_a_notebook_starts_train_as_one_does(alone, tmp_path):
    import nbformat
    from nbclient import NotebookClient

    cell = nbformat.v4.new_code_cell(IN_A_NOTEBOOK.format(file=str(tmp_path / "found.pt")))
    notebook = nbformat.v4.new_notebook(cells=[cell])
    NotebookClient(notebook, resources={"metadata": {"path": str(ROOT)}}, timeout=300).execute()
    found = torch.load(tmp_path / "found.pt")
    assert max(largest_difference(found, alone["uniform"])) < CLOSE


@pytest.mark.slow
@pytest.mark.happens(
    "Training and explaining",
    "an evaluation, RISE in it, whose images two processes share",
    "the rows of one process, none lost or doubled",
)
def test_processes_that_share_the_images_score_as_one_does(folder):
    """The share of the book's page beyond one machine, whose rows are put together there."""
    rows = pd.concat([pd.read_parquet(file) for file in sorted(folder.glob("*.parquet"))])
    keys = ["method", "measure", "v", "image_id"]
    expected = scored(0, 1).sort_values(keys, ignore_index=True)
    pd.testing.assert_frame_equal(rows.sort_values(keys, ignore_index=True), expected, rtol=1e-6)
    assert not rows.duplicated(keys).any() and {*rows["method"]} == {"t-tame", "rise", "random"}


def test_a_batch_that_processes_cannot_share_evenly_is_told(tiny, noise):
    with pytest.raises(tt.TTAMEError, match="4 processes cannot share a batch of 6 images evenly"):
        tt.train(tt.TTAME(tiny), noise, RECIPE, fabric=SimpleNamespace(world_size=4))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
