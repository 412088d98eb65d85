"""A line in a notebook's cell that can be written again, for progress."""

import sys
import time
from collections.abc import Callable
from html import escape

INTERVAL_S = 0.25
"""Least time between two writings (seconds)."""


def in_notebook() -> bool:
    """Whether a notebook's kernel runs this process."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    return shell is not None and hasattr(shell, "kernel")


class CellLine:
    """A bar and a text in the cell that runs; each writing replaces the one before."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """Show an empty line; `clock` gives seconds."""
        from IPython.display import HTML, display

        self._html = HTML
        self._handle = display(HTML(""), display_id=True)
        self._clock = clock
        self._written = -INTERVAL_S

    def write(self, done: int, total: int, text: str) -> None:
        """Show how far something is, unless that was shown a moment ago."""
        if self._clock() - self._written < INTERVAL_S:
            return
        self._written = self._clock()
        bar = f'<progress value="{done}" max="{max(1, total)}"></progress>'
        self._handle.update(self._html(f"{bar} <code>{escape(text)}</code>"))

    def clear(self) -> None:
        """Show nothing."""
        self._handle.update(self._html(""))
