"""Progress, told by whatever takes long."""

import os
import sys
import time
from collections.abc import Callable
from typing import Any

from IPython import get_ipython
from IPython.display import display

Tell = Callable[[int, int], None]
"""Called with how much is done and how much there is in all."""


class Progress:
    """Progress with an estimate of the time left: a line that updates in a notebook, and in the log.

    Call it with (done, total). In a notebook one line is kept up to date, marked so that the book can leave
    it out; the terminal or log gets a line now and then.

    Parameters
    ----------
    label : str
        What is being done.
    every : float
        Seconds between lines.
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
        if get_ipython() is None:
            print(text, file=self.stderr, flush=True)
            return
        bundle, mark = {"text/plain": text}, {"progress": True}
        if self.handle is None:
            self.handle = display(bundle, raw=True, metadata=mark, display_id=True)
        else:
            self.handle.update(bundle, raw=True, metadata=mark)
        terminal = getattr(
            self.stderr, "_original_stdstream_copy", None
        )  # ipykernel's way past the page
        if terminal is not None:
            os.write(terminal, f"{text}\n".encode())
