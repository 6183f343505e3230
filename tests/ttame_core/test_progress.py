"""Progress, told by whatever takes long."""

import sys
from types import SimpleNamespace

import pytest

import ttame_core as tt
from ttame_core import progress as progress_module


@pytest.fixture
def clock(monkeypatch):
    """A clock that is set by hand."""
    clock = SimpleNamespace(now=100.0)
    monkeypatch.setattr(progress_module.time, "monotonic", lambda: clock.now)
    return clock


def test_progress_says_how_long_it_will_take(capsys):
    progress = tt.Progress("training", every=0)
    progress(1, 4)
    progress(4, 4)
    first, last = capsys.readouterr().err.splitlines()
    assert first.startswith("training: 1/4") and "left" in first
    assert last.startswith("training: 4/4") and "left" not in last


def test_lines_come_every_so_many_seconds_and_at_the_end(clock, capsys):
    progress = tt.Progress("training")
    for done, now in ((1, 105), (2, 110), (3, 115), (4, 120), (5, 121)):
        clock.now = now
        progress(done, 5)
    assert capsys.readouterr().err.splitlines() == [
        "training: 2/5, 10 s, about 15 s left",
        "training: 4/5, 20 s, about 5 s left",
        "training: 5/5, 21 s",
    ]


def test_a_notebook_has_one_line_that_is_marked_for_the_page(clock, monkeypatch):
    shown = []

    def display(data, **options):
        shown.append((data, options))
        return SimpleNamespace(update=lambda data, **options: shown.append((data, options)))

    notebook = SimpleNamespace(
        get_ipython=lambda: "a kernel", display=SimpleNamespace(display=display)
    )
    monkeypatch.setitem(sys.modules, "IPython", notebook)
    progress = tt.Progress("training", every=0)
    progress(1, 2)
    progress(2, 2)
    texts = [data["text/plain"] for data, _ in shown]
    assert texts == ["training: 1/2, 0 s, about 0 s left", "training: 2/2, 0 s"]
    assert all(options["metadata"] == {"progress": True} for _, options in shown)
    assert [options.get("display_id") for _, options in shown] == [True, None]  # put in its place
