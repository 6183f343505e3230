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
