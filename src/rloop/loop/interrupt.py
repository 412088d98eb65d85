"""Ctrl-C: the first asks the run to stop at the next safe point, the second stops it at once."""

import signal
from collections.abc import Callable
from types import FrameType


class Interrupted(Exception):
    """The user asked to stop and everything is saved."""


class Interrupt:
    """Remembers that the user asked to stop."""

    def __init__(self, announce: Callable[[str], None]) -> None:
        """Take over SIGINT and SIGTERM until `restore`."""
        self._announce = announce
        self.is_requested = False
        self._previous = {
            number: signal.signal(number, self._on_signal)
            for number in (signal.SIGINT, signal.SIGTERM)
        }

    def check(self) -> None:
        """Raise Interrupted if the user asked to stop."""
        if self.is_requested:
            raise Interrupted

    def restore(self) -> None:
        """Give the signals back."""
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        del number, frame
        if self.is_requested:
            self.restore()
            raise KeyboardInterrupt
        self.is_requested = True
        self._announce("Stopping after this step; press Ctrl-C again to stop at once.")
