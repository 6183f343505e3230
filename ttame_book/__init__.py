"""The book's machinery: editions and their runs, the demo's images, studies, reports.

>>> import ttame_book as tb
>>> run = tb.start_run("03_train", globals())  # doctest: +SKIP
"""

import warnings

from ttame_core import lazy

# timm's downloads look for widgets, which nothing here needs: each notebook would begin with it
warnings.filterwarnings("ignore", message="IProgress not found")
MODULES = {
    "demo.digits": ("DigitsInPhotographs",),
    "demo.photographs": ("PackagePhotographs",),
    "editions.edition": ("Edition",),
    "editions.runs": ("Run", "start_run"),
}
"""The module of each name that the package offers."""
__getattr__, __dir__, __all__ = lazy(__name__, MODULES, "ttame_core[book]")
