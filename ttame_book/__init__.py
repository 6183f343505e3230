"""The book's machinery: editions and their runs, the demo's images, studies, reports.

>>> import ttame_book as tb
>>> run = tb.start_run("03_train", globals())  # doctest: +SKIP
"""

import sys
from typing import Any

from ttame_core import lazy

# jsonschema loads it where it is installed, and it works out a grammar of web addresses for a
# second and a half, in every kernel; no schema here has one
loaded: Any = sys.modules
loaded.setdefault("rfc3987_syntax", None)

MODULES = {
    "demo.digits": ("DigitsInPhotographs",),
    "demo.photographs": ("PackagePhotographs",),
    "editions.edition": ("Edition",),
    "editions.runs": ("Run", "start_run"),
}
"""The module of each name that the package offers."""
__getattr__, __dir__, __all__ = lazy(__name__, MODULES, "ttame_core[book]")
