"""What made a result."""

import shutil
import subprocess

import pytest

from ttame_book.editions.manifest import commit


@pytest.mark.skipif(not shutil.which("git"), reason="git is not installed")
def test_a_commit_is_marked_where_code_differs_not_where_results_do(tmp_path):
    def git(*words):
        who = ("-c", "user.name=A", "-c", "user.email=a@b.c")
        subprocess.run(["git", "-C", tmp_path, *who, *words], check=True, capture_output=True)

    code = tmp_path / "code.py"
    tables = [tmp_path / place / "results/table.csv" for place in (".", "benchmarks")]
    for file in (code, *tables):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("1")
    git("init")
    git("add", ".")
    git("commit", "-m", "both")
    clean = commit(tmp_path)
    for table in tables:
        table.write_text("2")
    assert commit(tmp_path) == clean != "unknown"
    (tmp_path / "untracked.py").touch()
    assert commit(tmp_path) == clean
    code.write_text("2")
    assert commit(tmp_path) == f"{clean}+"
    assert commit(tmp_path / "nowhere") == "unknown"
