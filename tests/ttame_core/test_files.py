"""Files that are never half-written."""

import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import ttame_core as tt
from ttame_core import files
from ttame_core.files import atomic_path


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


def test_what_was_there_stays_until_the_new_file_is_whole(tmp_path):
    target = tmp_path / "table.csv"
    target.write_text("old")
    with pytest.raises(KeyboardInterrupt), atomic_path(target) as path:
        path.write_text("half")
        assert path.suffix == ".csv" and path != target
        raise KeyboardInterrupt
    assert target.read_text() == "old" and list(tmp_path.iterdir()) == [target]
    with atomic_path(str(target)) as path:
        path.write_text("new")
    assert target.read_text() == "new" and list(tmp_path.iterdir()) == [target]


@pytest.mark.happens("Killed or stopped", "a half-written file", "no search beside it finds it")
def test_what_is_half_written_is_found_by_no_search_beside_the_file(tmp_path):
    with atomic_path(tmp_path / "table.csv") as path:
        path.write_text("half")
        found = [*tmp_path.glob("*.csv"), *tmp_path.glob("**/[!.]*/*"), *tmp_path.glob("*.*csv")]
        assert not found and path.is_file()


@pytest.mark.happens("Two at once", "several threads write one file", "one of their files, whole")
def test_threads_that_write_one_file_leave_one_whole(tmp_path):
    target = tmp_path / "table.csv"

    def write(i):
        with atomic_path(target) as path:
            for _ in range(20):
                with path.open("a") as file:
                    file.write(f"{i} " * 100)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(write, range(40)))
    words = target.read_text().split()
    assert len(words) == 2000 and len(set(words)) == 1
    assert list(tmp_path.iterdir()) == [target]


@pytest.fixture
def left(tmp_path):
    """Leave a temporary as a process of a number on a machine would; its age in seconds."""

    def left(pid, machine=files.MACHINE, age=0.0):
        folder = tmp_path / f"{machine}-{pid}-a1b2_c3"
        folder.mkdir()
        (folder / "table.csv").write_text("half")
        os.utime(folder, 2 * (time.time() - age,))
        return folder

    files._sweep.cache_clear()
    return left


@pytest.mark.happens(
    "Killed or stopped",
    "temporaries of a process that is gone",
    "removed by the next that writes there; those of a live one, or of another machine within the hour, stay",
)
def test_what_a_killed_process_left_goes_when_the_next_writes_there(tmp_path, left):
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    gone = [left(dead.pid), left(1, ".part-other-machine", age=4000)]
    stays = [left(os.getppid()), left(dead.pid, ".part-other-machine", age=3000)]
    with atomic_path(tmp_path / "other.csv") as path:
        path.write_text("whole")
    assert not any(folder.exists() for folder in gone)
    assert all((folder / "table.csv").read_text() == "half" for folder in stays)


@pytest.mark.happens(
    "Broken files and full disks",
    "a full disk",
    "file, cause and remedy are told; the earlier file stays",
)
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")
def test_a_full_disk_is_told_with_the_file_and_what_to_do(tmp_path):
    target = tmp_path / "table.csv"
    target.write_text("old")
    words = r"table\.csv cannot be written \(.*No space left on device.*make room"
    with pytest.raises(tt.TTAMEError, match=words), atomic_path(target) as path:
        path.symlink_to("/dev/full")
        path.write_text("new")
    assert target.read_text() == "old" and list(tmp_path.iterdir()) == [target]


def test_a_folder_that_cannot_be_is_told(tmp_path):
    (tmp_path / "file").touch()
    words = "table.csv cannot be written .*choose another folder"
    with pytest.raises(tt.TTAMEError, match=words), atomic_path(tmp_path / "file" / "table.csv"):
        pass
