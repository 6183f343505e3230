"""The book's machinery: editions and their runs, the demo's images, studies, reports.

>>> import ttame_book as tb
>>> run = tb.start_run("03_train", globals())  # doctest: +SKIP
"""

import atexit
import ctypes
import gc
import os
import sys
import warnings
from contextlib import suppress

from ttame_core import lazy

# Before PyTorch is loaded, and so for notebooks by make, papermill and JupyterLab alike. An OpenMP
# thread that waits sleeps: on a busy machine two that spin are 40 times slower.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
if sys.platform == "linux":
    # glibc keeps freed memory, and asks the system for large pieces no more each time: up to twice
    # as fast on a CPU. Other C libraries have no such call, or heed it not.
    with suppress(AttributeError, OSError):
        for option, value in ((-4, 0), (-1, 2**31 - 1)):  # M_MMAP_MAX, M_TRIM_THRESHOLD
            ctypes.CDLL(None).mallopt(option, value)
# a process that ends would first search all that PyTorch loaded for garbage: two seconds a notebook
atexit.register(gc.freeze)
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
