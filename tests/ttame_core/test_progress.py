"""Progress, told by whatever takes long."""

import ttame_core as tt


def test_progress_says_how_long_it_will_take(capsys):
    progress = tt.Progress("training", every=0)
    progress(1, 4)
    progress(4, 4)
    first, last = capsys.readouterr().err.splitlines()
    assert first.startswith("training: 1/4") and "left" in first
    assert last.startswith("training: 4/4") and "left" not in last
