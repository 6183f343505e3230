"""The smoke edition, its results in a folder of the test's own."""

import ttame_book as tb
from tests.commands import ROOT


def read(results, **settings):
    return tb.Edition.read("smoke", settings, results=str(results), root=ROOT)
