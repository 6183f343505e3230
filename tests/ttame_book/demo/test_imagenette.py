"""Imagenette, downloaded where its folder is missing: here from a host on this machine."""

import hashlib
import shutil
import tarfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
from PIL import Image
from torchvision.datasets import Imagenette

import ttame_book as tb
import ttame_core as tt
from tests.commands import ROOT
from ttame_book.demo.imagenette import obtain_imagenette
from ttame_core.classifiers.loading import LITE0


@pytest.fixture
def archive(tmp_path):
    """An archive as torchvision expects it, of two photographs in train/ and in val/."""
    for split in ("train", "val"):
        folder = tmp_path / "imagenette2" / split / "n01440764"
        folder.mkdir(parents=True)
        for name in "ab":
            Image.fromarray(np.zeros((20, 20, 3), np.uint8)).save(folder / f"{name}.JPEG")
    file = tmp_path / "host" / "imagenette2.tgz"
    file.parent.mkdir()
    with tarfile.open(file, "w:gz") as tar:
        tar.add(tmp_path / "imagenette2", "imagenette2")
    return file


@pytest.fixture
def fetched(archive, monkeypatch):
    """Serve the archive in place of torchvision's host; lists what is fetched."""
    fetched = []

    class Handler(SimpleHTTPRequestHandler):
        def do_GET(self):
            if self.headers["Method"] != "HEAD":  # torchvision's look for a redirection
                fetched.append(self.path)
            time.sleep(0.2)  # so that two at once would meet
            super().do_GET()

        def log_message(self, *about):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=archive.parent))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    url = f"http://127.0.0.1:{server.server_port}/{archive.name}"
    md5 = hashlib.md5(archive.read_bytes()).hexdigest()
    monkeypatch.setitem(Imagenette._ARCHIVES, "full", (url, md5))
    yield fetched
    server.shutdown()
    server.server_close()


@pytest.fixture
def project(tmp_path):
    """A project's folder in which nothing has been downloaded."""
    shutil.copytree(ROOT / "config", tmp_path / "project" / "config")
    return tmp_path / "project"


def ids(project, backbone, split, **settings):
    """Open a split of the imagenette edition as a notebook does, for one validation and one test image."""
    edition = tb.Edition.read("imagenette", settings, root=project)
    edition.config["data"]["imagenette"] |= {"val": 1, "test": 1}
    backbone.name = LITE0
    return [item["id"] for item in edition.images(backbone, split)]


def left(folder):
    """What lies in a folder, locks aside."""
    return sorted(file.name for file in folder.iterdir() if file.suffix != ".lock")


def test_the_edition_downloads_imagenette_once(project, tiny, fetched, capsys):
    assert ids(project, tiny, "train") == ["n01440764/a.JPEG", "n01440764/b.JPEG"]
    assert len({*ids(project, tiny, "val"), *ids(project, tiny, "test")}) == 2
    assert fetched == ["/imagenette2.tgz"]
    assert left(project / "data") == ["imagenette2"]
    assert "per cent downloaded: 100/100" in capsys.readouterr().err


def test_two_at_once_download_one(tmp_path, fetched):
    folder, told = tmp_path / "data" / "photographs", []
    with ThreadPoolExecutor() as pool:
        tasks = [pool.submit(obtain_imagenette, folder, lambda *p: told.append(p)) for _ in "ab"]
    assert [task.result() for task in tasks] == [None, None]
    assert len(fetched) == 1
    assert told[-1] == (100, 100)
    assert left(folder) == ["train", "val"]


@pytest.mark.parametrize("whole", [True, False])
def test_a_killed_download_is_not_taken_for_a_whole_one(whole, tmp_path, archive, fetched):
    folder = tmp_path / "data" / "imagenette2"
    part = folder.with_name(".imagenette2.part")
    (part / "imagenette2" / "train").mkdir(parents=True)
    (part / archive.name).write_bytes(archive.read_bytes()[: None if whole else 100])
    obtain_imagenette(folder, print)
    assert len(list(folder.rglob("*.JPEG"))) == 4
    assert left(folder.parent) == ["imagenette2"]
    assert len(fetched) == (0 if whole else 1)


@pytest.mark.parametrize("damage", ["missing", "other", "no train"])
def test_a_failed_download_says_what_to_do_and_leaves_nothing(
    damage, project, tiny, archive, fetched, monkeypatch
):
    if damage == "missing":
        archive.unlink()
    else:
        with tarfile.open(archive, "w:gz") as tar:
            tar.add(archive.parents[1] / "imagenette2" / "val", "imagenette2/val")
    if damage == "no train":
        url, _ = Imagenette._ARCHIVES["full"]
        md5 = hashlib.md5(archive.read_bytes()).hexdigest()
        monkeypatch.setitem(Imagenette._ARCHIVES, "full", (url, md5))
    wanted = r"no image folder .*data/imagenette2, and .* cannot download .* by data_root .*DATA="
    with pytest.raises(tt.TTAMEError, match=wanted):
        ids(project, tiny, "train")
    assert left(project / "data") == []


def test_nothing_is_downloaded_into_a_folder_that_the_user_named(project, tiny, fetched, tmp_path):
    with pytest.raises(tt.TTAMEError, match=r"no image folder .*mine/train; correct the path"):
        ids(project, tiny, "train", data_root=str(tmp_path / "mine"))
    assert fetched == []
    assert not (tmp_path / "mine").exists()
