"""What happens when: the tests that are marked so, as a page of the book.

python -m tests.situations > book/situations.md

A test says what it holds by ``@pytest.mark.happens(kind, situation, outcome)``; names in braces are
filled from its parameters.
"""

import contextlib
import io
import re

import pytest

PAGE = """# What happens when

What people stumble over, tried on this project: {count} situations, each held by a test. Where
something is refused, the error names the value, what was expected and what to do.
"""


class Marked:
    """A plugin that collects the marks of all tests."""

    def __init__(self):
        self.rows = {}

    def pytest_collection_modifyitems(self, items):
        for item in items:
            given = item.callspec.params if hasattr(item, "callspec") else {}
            for mark in item.iter_markers("happens"):
                kind, *texts = mark.args
                told = tuple(plain(text.format(**given)) for text in texts)
                self.rows.setdefault(kind, {})[told] = f"{item.path.name}::{item.originalname}"


def plain(text):
    """Make a table's cell of a text, some of it perhaps a pattern."""
    text = text.replace(".*", " … ").replace("\\", "").replace("|", "\\|")
    return re.sub(r"\s+", " ", text).strip()


def page():
    """Write the page."""
    marked = Marked()
    with contextlib.redirect_stdout(io.StringIO()):
        pytest.main(
            ["--collect-only", "-q", "-n", "0", "-p", "no:cacheprovider", "tests"], [marked]
        )
    count = sum(map(len, marked.rows.values()))
    parts = [PAGE.format(count=count)]
    for kind, rows in marked.rows.items():
        parts.append(f"\n## {kind}\n\n| situation | what happens | test |\n|---|---|---|\n")
        parts += [f"| {what} | {outcome} | `{test}` |\n" for (what, outcome), test in rows.items()]
    return "".join(parts)


if __name__ == "__main__":
    print(page(), end="")
