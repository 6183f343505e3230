"""Files that are never half-written."""

import pytest

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
        assert (path.parent, path.suffix) == (tmp_path, ".csv") and path != target
        raise KeyboardInterrupt
    assert target.read_text() == "old" and list(tmp_path.iterdir()) == [target]
    with atomic_path(str(target)) as path:
        path.write_text("new")
    assert target.read_text() == "new" and list(tmp_path.iterdir()) == [target]
