"""Ctrl-C: the first asks the run to stop at the next safe point, the second stops it at once.

Signals within `ONE_S` of the first count as the same Ctrl-C, because a launcher forwards a signal
that the terminal has already sent to all its processes.
"""

import signal
import threading
import time
from collections.abc import Callable
from types import FrameType

ONE_S = 1.0


class Interrupted(Exception):
    """The user asked to stop and everything is saved."""


class Interrupt:
    """Remembers that the user asked to stop."""

    def __init__(self, announce: Callable[[str], None]) -> None:
        """Handle SIGINT and SIGTERM until `restore`; in another thread than the main one, where
        Python lets nobody handle signals, nothing asks to stop.
        """
        self._announce = announce
        self.is_requested = False
        self._when = 0.0
        is_main = threading.current_thread() is threading.main_thread()
        self._previous = {
            number: signal.signal(number, self._on_signal)
            for number in (signal.SIGINT, signal.SIGTERM)
            if is_main
        }

    def check(self) -> None:
        """Raise Interrupted if the user asked to stop."""
        if self.is_requested:
            raise Interrupted

    def restore(self) -> None:
        """Restore the previous signal handlers."""
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        del number, frame
        now = time.monotonic()
        if self.is_requested and now - self._when < ONE_S:
            return
        if self.is_requested:
            self.restore()
            raise KeyboardInterrupt
        self.is_requested, self._when = True, now
        self._announce("Stopping after this step; press Ctrl-C again to stop at once.")
