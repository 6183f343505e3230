"""Garbage where files should be, full disks, folders that cannot be written to, two runs at once."""

import os
import subprocess
import sys

import pandas as pd
import pytest
import torch
from filelock import FileLock
from safetensors.torch import load

import ttame_book as tb
import ttame_core as tt
from tests.ttame_book.smoke import read
from ttame_book.editions import configuration
from ttame_core.metrics.cache import KeptConfidences, KeptMaps

DAMAGES = {
    "empty": lambda data: b"",
    "garbage": lambda data: bytes(range(256)) * 3,
    "text": lambda data: b"<html>404 Not Found</html>",
    "an archive": lambda data: b"PK\x03\x04" + data,
    "cut off": lambda data: data[: len(data) // 2],
    "its end cut off": lambda data: data[:-1],
}


@pytest.fixture(params=DAMAGES.values(), ids=DAMAGES)
def damage(request):
    def damage(file):
        broken = request.param(file.read_bytes())
        file.write_bytes(broken)
        return broken

    return damage


@pytest.mark.happens(
    "Broken files and full disks",
    "a kept map or answer that is empty, cut or garbage",
    "made anew, said",
)
def test_a_broken_kept_map_or_answer_is_made_anew_and_said(tiny, noise, tmp_path, damage):
    images, classes = noise.images[:2], torch.tensor([1, 2])
    maps = KeptMaps(lambda images, classes: images.mean(1), tmp_path / "maps", "mean")
    answers = KeptConfidences(tiny, tmp_path / "answers")

    def ask():
        found = maps(images, classes)
        return [found, *answers(images, classes, found, [("masked", 50), ("morf", 20)]).values()]

    first = ask()
    files = sorted(tmp_path.rglob("*.npy"))
    whole = {file: file.read_bytes() for file in files}
    assert len(files) == 3
    for file in files:
        damage(file)
    with pytest.warns(UserWarning, match="is broken .*made anew") as told:
        again = ask()
    said = [str(w.message).split()[0] for w in told if w.category is UserWarning]
    assert sorted(said) == list(map(str, files))
    assert all(map(torch.equal, first, again))
    assert {file: file.read_bytes() for file in tmp_path.rglob("*.npy")} == whole


@pytest.mark.happens(
    "Broken files and full disks",
    "a checkpoint that is empty, cut or garbage",
    "set aside as .broken, the training begins anew, said",
)
def test_a_broken_checkpoint_is_set_aside_and_the_training_begins_anew(
    tiny, noise, tmp_path, damage
):
    recipe, file = tt.Recipe(steps=4, batch_size=6, max_lr=0.05), tmp_path / "a.checkpoint"
    fresh, anew = tt.TTAME(tiny), tt.TTAME(tiny)
    history = tt.train(fresh, noise, recipe, checkpoint=file, checkpoint_every=2)
    broken = damage(file)
    with pytest.warns(UserWarning, match=r"a\.checkpoint is no checkpoint .*named \.broken now"):
        assert tt.train(anew, noise, recipe, checkpoint=file) == history
    for name, value in fresh.attention.state_dict().items():
        assert torch.equal(anew.attention.state_dict()[name], value)
    assert (tmp_path / "a.checkpoint.broken").read_bytes() == broken
    assert torch.load(file, weights_only=True)["history"] == history


@pytest.mark.happens(
    "Broken files and full disks",
    "another file named as the checkpoint",
    "set aside as .broken, said",
)
def test_a_file_named_as_a_checkpoint_by_mistake_is_kept(tiny, noise, tmp_path):
    torch.save({"weight": torch.ones(2)}, tmp_path / "mine.pth")
    recipe = tt.Recipe(steps=1, batch_size=6, max_lr=0.05)
    with pytest.warns(UserWarning, match="KeyError.*named .broken now"):
        tt.train(tt.TTAME(tiny), noise, recipe, checkpoint=tmp_path / "mine.pth")
    assert torch.load(tmp_path / "mine.pth.broken", weights_only=True)["weight"].sum() == 2


@pytest.mark.happens(
    "Broken files and full disks",
    "an edition's explainer or record of training that is empty, cut or garbage",
    "trained anew, said",
)
@pytest.mark.parametrize("broken", ["explainer.safetensors", "training.csv"])
@pytest.mark.slow
def test_a_broken_explainer_or_record_of_an_edition_is_trained_anew(tmp_path, damage, broken):
    edition = read(tmp_path, steps=2)
    model = edition.backbone("demo_resnet")
    _, history = edition.training(model).run()
    explainer, record = edition.training_files("demo_resnet")
    trained = load(explainer.read_bytes())
    file = explainer if broken == explainer.name else record
    before = file.read_bytes()
    if damage(file) == before.rstrip():
        pytest.skip("a table without its last end of line is whole")
    with pytest.warns(UserWarning, match=f"{broken} is .*trained anew"):
        _, again = edition.training(model).run()
    pd.testing.assert_frame_equal(again, history)
    assert all(
        torch.equal(value, trained[name]) for name, value in load(explainer.read_bytes()).items()
    )
    pd.testing.assert_frame_equal(edition.training(model).run()[1], history)


@pytest.mark.happens(
    "Broken files and full disks",
    "a table of scores that is empty, cut or garbage",
    "named: remove it, run its notebook again",
)
def test_a_broken_table_is_named_with_what_to_do(tmp_path, damage):
    edition = read(tmp_path)
    table = pd.DataFrame({"value": [1.0, 2.0], "method": ["rise", "random"]})
    for backbone in edition.backbones:
        edition.folder(backbone).mkdir(parents=True)
        table.to_parquet(edition.folder(backbone) / "scores.parquet")
    assert len(edition.tables("scores.parquet")) == 4
    damage(edition.folder("demo_vit") / "scores.parquet")
    words = (
        r"(?s)demo_vit/scores\.parquet is broken .*; remove it, and run the notebook that wrote it"
    )
    with pytest.raises(tt.TTAMEError, match=words):
        edition.tables("scores.parquet")


@pytest.mark.happens(
    "Broken files and full disks",
    "a manifest that is cut",
    "named; one that a killed run left half-written is not read",
)
def test_a_broken_manifest_is_named_with_what_to_do(tmp_path):
    given = {"edition": "smoke", "results": str(tmp_path)}
    tb.start_run("10_sanity", {**given, "backbone": "demo_vit"}).finish()
    file = tmp_path / "smoke" / "demo_vit" / "10_sanity.json"
    file.write_text(file.read_text()[:20])
    overview = tb.start_run("12_compare", given)
    with pytest.raises(tt.TTAMEError, match=r"10_sanity\.json is broken"):
        overview.save_manifests("summary/manifests.json")
    file.unlink()
    half = tmp_path / "smoke" / ".part-machine-1-abc" / "12_compare.json"
    half.parent.mkdir()
    half.write_text("{")  # of a run that was killed
    assert len(overview.save_manifests("summary/manifests.json")) == 0


@pytest.fixture
def mounted(tmp_path):
    """Mount a file system of one's own, with options; root alone can."""
    place = tmp_path / "mounted"
    place.mkdir()

    def mounted(options):
        command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", place]
        if subprocess.run(command, capture_output=True).returncode:
            pytest.skip("nothing can be mounted here")
        return place

    yield mounted
    subprocess.run(["umount", place], capture_output=True)


@pytest.mark.happens(
    "Broken files and full disks",
    "a disk that fills while training or saving",
    "file, cause and remedy are told, what was there stays; it goes on when there is room",
)
def test_a_disk_that_fills_while_training_leaves_what_was_there(tiny, noise, mounted):
    place = mounted("size=400k")
    recipe, file = tt.Recipe(steps=4, batch_size=6, max_lr=0.05), place / "a.checkpoint"
    explainer, results = tt.TTAME(tiny), place / "explainer.safetensors"
    explainer.save(results)
    before = results.read_bytes()

    def fill(done, total):
        if done == 3:
            (place / "filler").write_bytes(bytes(os.statvfs(place).f_bavail * 4096))

    words = r"a\.checkpoint cannot be written \(.*No space left on device.*make room there"
    with pytest.raises(tt.TTAMEError, match=words):
        tt.train(explainer, noise, recipe, checkpoint=file, checkpoint_every=2, progress=fill)
    with pytest.raises(tt.TTAMEError, match=r"explainer\.safetensors cannot be written"):
        explainer.save(results)
    assert results.read_bytes() == before
    assert len(torch.load(file, weights_only=True)["history"]) == 2
    assert {f.name for f in place.iterdir()} == {"filler", file.name, results.name}
    (place / "filler").unlink()
    seen = []
    tt.train(tt.TTAME(tiny), noise, recipe, checkpoint=file, progress=lambda d, t: seen.append(d))
    assert seen == [3, 4]


@pytest.mark.happens(
    "Broken files and full disks",
    "a folder of results that cannot be written to",
    "refused before any work",
)
def test_results_that_cannot_be_written_stop_a_run_before_any_work(mounted, tmp_path):
    given = {"edition": "smoke", "backbone": "demo_vit"}
    (tmp_path / "file").touch()
    for place in (mounted("ro"), tmp_path / "file"):
        words = "smoke' cannot be written to .*name another folder by results"
        with pytest.raises(tt.TTAMEError, match=words):
            tb.start_run("03_train", {**given, "results": str(place)})


HOLD = (
    "import sys, filelock; lock = filelock.FileLock(sys.argv[1]); lock.acquire(); print(); input()"
)


@pytest.mark.happens(
    "Two at once",
    "a notebook that another run is at, in the same folder",
    "refused; not after a run that was killed",
)
def test_a_run_is_told_of_another_that_is_not_over_and_of_none_that_was_killed(
    tmp_path, monkeypatch
):
    given = {"edition": "smoke", "backbone": "demo_vit", "results": str(tmp_path)}
    file = tmp_path / "smoke" / "logs" / "demo_vit" / "04_evaluate.lock"
    file.parent.mkdir(parents=True)
    monkeypatch.setattr(configuration, "PATIENCE", 0.2)
    command = [sys.executable, "-c", HOLD, file]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        other.stdout.readline()
        with pytest.raises(tt.TTAMEError, match=r"demo_vit/04_evaluate runs already into .*smoke"):
            tb.start_run("04_evaluate", dict(given))
        tb.start_run("05_road", dict(given)).finish()
        other.kill()
    run = tb.start_run("04_evaluate", dict(given))
    tb.start_run("04_evaluate", dict(given))  # cells run again in the same kernel
    run.finish()
    with FileLock(file, timeout=0):
        pass


@pytest.mark.happens(
    "Two at once", "a run ends while another trains in its folder", "the other's checkpoint stays"
)
def test_a_run_that_ends_leaves_the_checkpoint_of_another_ones_training(tmp_path):
    given = {"edition": "smoke", "backbone": "demo_vit", "results": str(tmp_path)}
    run = tb.start_run("07_ablations", given)
    done, at_work = (run.folder / f"{name}.safetensors" for name in ("explainer", "studies/grid/a"))
    at_work.parent.mkdir(parents=True)
    for file, age in ((done, -10), (at_work, 10)):
        file.touch()
        checkpoint = file.with_suffix(".checkpoint")
        checkpoint.touch()
        moment = file.stat().st_mtime + age
        os.utime(checkpoint, (moment, moment))
    run.finish()
    assert {file.name for file in run.folder.rglob("*.checkpoint")} == {"a.checkpoint"}
