"""The book's table of what happens when is what the tests say."""

import subprocess
import sys

import pytest

from tests.commands import ROOT
from tests.situations import in_words, page


@pytest.mark.slow
def test_the_table_of_situations_is_made_of_the_tests(request):
    items = request.session.items
    if {item.path for item in items} >= {*(ROOT / "tests").rglob("test_*.py")}:
        made = page(items)  # all are collected already
    else:
        command = [sys.executable, "-m", "tests.situations"]
        made = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert made == (ROOT / "book" / "situations.md").read_text()
    assert made.count("\n| ") >= 100


@pytest.mark.parametrize(
    ("pattern", "words"),
    [
        ("no gradient.*reaches", "no gradient … reaches"),
        (r"returns \(2,\)", "returns (2,)"),
        ("cannot|returns", "cannot” or “returns"),
        ("images .2, 3, 64, 64.", "images …2, 3, 64, 64…"),
        ("a dict with .'out'.", "a dict with …'out'…"),
        ("std.2 is 0.5; expected more than 1", "std.2 is 0.5; expected more than 1"),
    ],
)
def test_patterns_are_put_in_words(pattern, words):
    assert in_words(pattern) == words
