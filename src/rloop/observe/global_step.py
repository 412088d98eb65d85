"""One step axis for trackers: learner steps of the whole run, rising over iterations and phases."""

from collections.abc import Iterable, Mapping
from typing import Any, Self

_LEARNING = ("coldstart", "explore", "finetune")


class GlobalStep:
    """Counts the steps of learning phases end to end; other phases stand where learning stands.

    Example: explore 1 to 40 of iteration 1, its evaluation, 10 fine-tuning updates, then step 3 of
    iteration 2's exploration: 1 .. 40, 40, 41 .. 50, 53.
    """

    def __init__(self) -> None:
        """Begin at 0."""
        self._phase: tuple[int, str] | None = None
        self._base = 0
        self._last = 0

    @classmethod
    def after(cls, lines: Iterable[Mapping[str, Any]]) -> Self:
        """Return the count that stands after the lines of metrics.jsonl."""
        found = cls()
        for line in lines:
            found.at(line["iteration"], line["phase"], line["step"])
        return found

    def at(self, iteration: int, phase: str, step: int) -> int:
        """Return the global step of a place; places are asked for in the order of the run."""
        if phase in _LEARNING:
            if self._phase != (iteration, phase):
                self._phase, self._base = (iteration, phase), self._last
            self._last = self._base + step
        return self._last
