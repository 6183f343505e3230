"""The book's table of what happens when is what the tests say."""

import subprocess
import sys

import pytest

from tests.commands import ROOT


@pytest.mark.slow
def test_the_table_of_situations_is_made_of_the_tests():
    command = [sys.executable, "-m", "tests.situations"]
    made = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert made == (ROOT / "book" / "situations.md").read_text()
    assert made.count("\n| ") >= 100
