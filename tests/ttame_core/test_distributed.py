"""Several processes: they train as one does, and score each image once; the code is that of the book's page.

torchrun --nproc-per-node 2 -m tests.ttame_core.test_distributed FOLDER   # as the tests do
"""

import os
import re
import runpy
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from torchvision.utils import save_image

import ttame_core as tt
from tests.commands import ROOT
from tests.conftest import Noise, TinyCNN

PAGE = re.findall(r"```python\n(.*?)```", (ROOT / "book" / "beyond.md").read_text(), re.DOTALL)
TRAIN, NOTEBOOK, EVALUATE, TOGETHER = PAGE
SHORT = {
    "steps=3000, batch_size=64": "steps=5, batch_size=6",
    '"workers": 4': '"workers": 0',
    'f"cuda:{gpu}"': '"cpu"',
    "masks=4000": "masks=20",
    "batch_size=50": "batch_size=4",
    "devices=4": "devices=2",
    "-of-4": "-of-2",
    "range(4)": "range(2)",
}
"""What the page says, and what is quick."""
FOR_TINY = """
import ttame_core as tt
from tests.ttame_core.test_distributed import backbone
tt.load_backbone = lambda name: backbone()
tt.load_explainer = lambda file: tt.TTAME.load(file, backbone())
"""
STEPS, KILLED = 7, 5
CASES = {
    "uniform": ("proposed", {}),
    "in-batch": ("proposed", {"other_classes": "in-batch"}),
    "no batch norm": ("no_skip_no_batch_norm", {}),
    "warm": ("squashed", {"start": "warm", "mask": "min-max"}),
    "top": ("squashed", {"mask": "top"}),
    "amortised RISE": ("scaled", {"objective": "rise", "start": "zero"}),
    "both": ("squashed", {"objective": "both", "mask": "top"}),
    # a bias before a batch norm has a gradient that is rounding alone, which AdamW makes steps of
    "AdamW": (
        "no_skip_no_batch_norm",
        {"objective": "rise", "optimizer": "adamw", "max_lr": 1e-3},
    ),
    "released": ("l_cam_img", {"loss": tt.LossWeights(released_variation=True)}),
}
RECIPE = tt.Recipe(steps=STEPS, batch_size=6, max_lr=0.05)
CLOSE = 1e-5
KEYS = ["method", "measure", "v", "image_id"]


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
    explainer, recipe = tt.TTAME(backbone(), variant), replace(RECIPE, **settings)
    history = tt.train(explainer, Shifted(), recipe, fabric=fabric, **options)
    return history, explainer.attention.state_dict()


def page_in(folder):
    """Write the page's files into a folder, for a small classifier and photographs of noise."""
    for name, code in {"train.py": TRAIN, "evaluate.py": EVALUATE}.items():
        (folder / name).write_text(FOR_TINY + shortened(code))
    for part in ("photos", "test"):
        (folder / part).mkdir()
        for number, image in enumerate(Noise(13).images):
            save_image(image, folder / part / f"{number}.png")


def shortened(code):
    for said, quick in SHORT.items():
        code = code.replace(said, quick)
    return code


def left_by_the_page(folder):
    """The history and the weights of the page's training, out of its checkpoint."""
    checkpoint = torch.load(folder / "mine.checkpoint")
    return checkpoint["history"], checkpoint["attention"]


def main(folder):
    """Run the page's files, and train every case, as one of the processes that torchrun starts."""
    os.chdir(folder)
    fabric = runpy.run_path("train.py", run_name="__main__")["fabric"]
    fabric.barrier()  # the first process has saved the explainer
    runpy.run_path("evaluate.py")
    found, told = {case: trained(fabric, case) for case in CASES}, []
    own = folder / str(fabric.global_rank) / "checkpoint"  # the second process sees none
    found["resumed"] = trained(
        fabric, "uniform", checkpoint=own, progress=lambda done, total: told.append(done)
    )
    torch.save({"trained": found, "told": told}, folder / f"{fabric.global_rank}.pt")


def largest_difference(found, expected):
    """How far histories and weights are apart, in the numbers that are farthest."""
    (rows, weights), (expected_rows, expected_weights) = found, expected
    assert [row["step"] for row in rows] == [*range(len(expected_rows))]
    losses = [abs(a[k] - b[k]) for a, b in zip(rows, expected_rows, strict=True) for k in b]
    apart = [(weights[k] - value).abs().max().item() for k, value in expected_weights.items()]
    assert np.isfinite([*losses, *apart]).all()
    return max(losses), max(apart)


def ran(patch, file):
    """Run a file of the page in this process, as the only one; what it changes is put back."""
    for name, value in {"RANK": 0, "WORLD_SIZE": 1, "LOCAL_RANK": 0}.items():
        patch.setenv(name, str(value))
    for name in ("load_backbone", "load_explainer"):
        patch.setattr(tt, name, getattr(tt, name))
    return runpy.run_path(file)


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """What one process makes of every case, and of the page."""
    from lightning_fabric import Fabric

    fabric, folder = Fabric(accelerator="cpu", devices=1), tmp_path_factory.mktemp("alone")
    found = {case: trained(fabric, case) for case in CASES}
    page_in(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        ran(patch, "train.py")["train"](fabric)
    return found | {"page": left_by_the_page(folder)}


@pytest.fixture(scope="module")
def folder(request, tmp_path_factory):
    """What two processes have written, beside the checkpoint of a single one that was killed."""
    folder = tmp_path_factory.mktemp("processes")
    (folder / "0").mkdir()
    page_in(folder)

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
        env={**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
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
def test_two_processes_train_as_one_does(case, ranks, alone):
    found = ranks[0]["trained"][case]
    assert max(largest_difference(found, alone[case])) < CLOSE
    assert largest_difference(ranks[1]["trained"][case], found) == (0, 0)


@pytest.mark.slow
def test_two_processes_go_on_where_one_was_killed(folder, ranks, alone):
    """The first reads and writes the checkpoint, and tells how far things are."""
    for rank in ranks:
        assert max(largest_difference(rank["trained"]["resumed"], alone["uniform"])) < CLOSE
    assert [rank["told"] for rank in ranks] == [[*range(KILLED, STEPS + 1)], []]
    history = torch.load(folder / "0" / "checkpoint")["history"]
    assert history == ranks[0]["trained"]["resumed"][0]
    assert not (folder / "1").exists()


@pytest.mark.slow
def test_the_pages_training_is_one_processs_when_torchrun_starts_it(folder, alone):
    assert max(largest_difference(left_by_the_page(folder), alone["page"])) < CLOSE


@pytest.mark.slow
def test_the_pages_training_is_one_processs_when_a_notebook_starts_it(alone, tmp_path, monkeypatch):
    import nbformat
    from nbclient import NotebookClient

    page_in(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    cell = nbformat.v4.new_code_cell(shortened(NOTEBOOK))
    where = {"metadata": {"path": str(tmp_path)}}
    NotebookClient(nbformat.v4.new_notebook(cells=[cell]), resources=where, timeout=300).execute()
    assert max(largest_difference(left_by_the_page(tmp_path), alone["page"])) < CLOSE


@pytest.mark.slow
@pytest.mark.happens(
    "Training and explaining",
    "an evaluation, RISE in it, whose images two processes share",
    "the rows of one process, none lost or doubled",
)
def test_processes_that_share_the_images_score_as_one_does(folder, monkeypatch):
    monkeypatch.chdir(folder)
    shares, expected = {}, ran(monkeypatch, "evaluate.py")["scores"]
    exec(shortened(TOGETHER), shares)
    found = shares["scores"].sort_values(KEYS, ignore_index=True)
    expected = expected.sort_values(KEYS, ignore_index=True)
    assert not found.duplicated(KEYS).any() and {*found["method"]} == {"t-tame", "rise"}
    assert expected["image_id"].nunique() == 13
    pd.testing.assert_frame_equal(found, expected, check_dtype=False, rtol=1e-6)


def test_a_batch_that_processes_cannot_share_evenly_is_told(tiny, noise):
    with pytest.raises(tt.TTAMEError, match="4 processes cannot share a batch of 6 images evenly"):
        tt.train(tt.TTAME(tiny), noise, RECIPE, fabric=SimpleNamespace(world_size=4))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
