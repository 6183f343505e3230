"""Progress, told by whatever takes long."""

import os
import sys
import time
from collections.abc import Callable
from typing import Any

Tell = Callable[[int, int], None]
"""Called with how much is done and how much there is in all."""


class Progress:
    """Progress with an estimate of the time left; call it with (done, total).

    In Jupyter one line is kept up to date, marked by its metadata ``progress``, which a page made
    of it can leave out; the terminal or log gets a line every so many seconds.
    """

    def __init__(self, label: str, every: float = 10.0):
        self.label, self.every = label, every
        self.begun = self.last = time.monotonic()
        self.handle: Any = None
        self.stderr = sys.stderr  # kept: redirect_stderr may put another in its place

    def __call__(self, done: int, total: int) -> None:
        """Tell how far things are."""
        now = time.monotonic()
        if done < total and now - self.last < self.every:
            return
        self.last = now
        spent = now - self.begun
        text = f"{self.label}: {done}/{total}, {spent:.0f} s"
        if done < total:
            text += f", about {spent / done * (total - done):.0f} s left"
        # not imported where it does not run already: it takes half a second
        ipython = sys.modules.get("IPython")
        if ipython is None or ipython.get_ipython() is None:
            print(text, file=self.stderr, flush=True)
            return
        shown = {"raw": True, "metadata": {"progress": True}}
        if self.handle is None:
            self.handle = ipython.display.display({"text/plain": text}, display_id=True, **shown)
        else:
            self.handle.update({"text/plain": text}, **shown)
        # ipykernel's way past the page
        terminal = getattr(self.stderr, "_original_stdstream_copy", None)
        if terminal is not None:
            os.write(terminal, f"{text}\n".encode())
