"""One notebook alone, by papermill."""

import nbformat
import pandas as pd
import pytest

from tests.commands import call

pytestmark = pytest.mark.slow


def test_one_notebook_alone_by_papermill(tmp_path):
    out = tmp_path / "out.ipynb"
    done = call(
        *("papermill", "--no-progress-bar", "notebooks/04_evaluate.ipynb", str(out)),
        *("-p", "edition", "smoke", "-p", "results", str(tmp_path)),
        *("-p", "backbone", "demo_resnet", "-p", "images", "6"),
    )
    assert done.returncode == 0, done.stderr[-3000:]
    scores = pd.read_parquet(tmp_path / "smoke/variations/images=6/demo_resnet/scores.parquet")
    assert scores["image_id"].nunique() == 6
    assert nbformat.read(out, 4).metadata.papermill.exception is None
