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

These are {count} situations that people stumble over, each tried and held by a test, what is met
first on top. Where something is refused, the error names the value, what was expected and what to
do. What stands in quotes is a part of its message, and “…” what it says between.
"""
ORDER = (
    *("Classifiers", "Layers", "Images and classes", "Files", "Weights"),
    *("Preprocessing and labels", "Training and explaining", "Measures and methods"),
    *("Killed or stopped", "Two at once", "Broken files and full disks"),
    *("Names that a shell or a page would read", "Same in, same out"),
    "Configurations and parameters",
)
"""Kinds in the order of the page; what is not here comes before the last."""


class Marked:
    """A plugin that collects the marks of all tests."""

    def __init__(self):
        self.rows = {}

    def pytest_collection_modifyitems(self, items):
        for item in items:
            given = item.callspec.params if hasattr(item, "callspec") else {}
            for mark in item.iter_markers("happens"):
                kind, situation, outcome = mark.args
                words = {name: in_words(value) for name, value in given.items()}
                told = plain(situation.format(**given)), plain(outcome.format(**words))
                if re.fullmatch(r"\{\w+\}", outcome):  # a message alone is what an error says
                    told = told[0], f"refused: “{told[1]}”"
                # with spaces, a name can be read and breaks into lines
                test = item.originalname.removeprefix("test_").replace("_", " ")
                self.rows.setdefault(kind, {})[told] = f"{item.path.name}: {test}"


def in_words(pattern):
    """Turn a regular expression that a message is held against into words; other values stay."""
    if not isinstance(pattern, str):
        return pattern
    text = re.sub(r"(?<!\\)\.[*+]\??|\\[sdw][*+]?", " … ", pattern)  # anything between
    text = re.sub(r"(?<![\w\\])\.(?=['\d])|(?<=['\d])\.$", "…", text)  # one sign, as a bracket
    text = re.sub(r"(?<!\\)\|", "” or “", text)
    return re.sub(r"\\(\W)", r"\1", text).removeprefix("^").removesuffix("$")


def plain(text):
    """Make a table's cell of a text."""
    return re.sub(r"\s+", " ", text).strip().replace("|", "\\|")


def page(items=None):
    """Write the page, of the tests given or of all."""
    marked = Marked()
    if items:
        marked.pytest_collection_modifyitems(items)
    else:
        options = ("--collect-only", "-q", "-n", "0", "-p", "no:cacheprovider")
        with contextlib.redirect_stdout(io.StringIO()):
            pytest.main([*options, "tests"], [marked])
    count = sum(map(len, marked.rows.values()))
    parts = [PAGE.format(count=count)]
    place = {kind: i for i, kind in enumerate(ORDER)}
    for kind in sorted(marked.rows, key=lambda kind: place.get(kind, len(ORDER) - 1.5)):
        parts.append(f"\n## {kind}\n\n| situation | what happens | test |\n|---|---|---|\n")
        rows = marked.rows[kind].items()
        parts += [f"| {what} | {outcome} | {test} |\n" for (what, outcome), test in rows]
    return "".join(parts)


if __name__ == "__main__":
    print(page(), end="")
