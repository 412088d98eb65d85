"""Where the time of a run goes: spans of sampling and learning, of weights read and written, and of
new optimizers.
"""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

WEIGHTS = "weights"
SET_UP = "set-up"
"""A new optimizer: no work on tokens, but the engine's all the same."""
Call = Callable[..., Any]


@dataclass(frozen=True, slots=True)
class Span:
    """A stretch of time, seconds of the performance counter. Example: Span("explore", 3.1, 9.2)."""

    kind: str
    begin: float
    end: float

    @property
    def seconds(self) -> float:
        """How long it was."""
        return self.end - self.begin


class Spans:
    """Records spans; what lies within another one is a part of it."""

    def __init__(self) -> None:
        """Nothing has been done."""
        self._open: list[str] = []
        self.done: list[Span] = []

    @contextmanager
    def span(self, kind: str) -> Iterator[None]:
        """Record the block unless it lies within another one."""
        self._open.append(kind)
        begin = time.perf_counter()
        try:
            yield
        finally:
            self._open.pop()
            if not self._open:
                self.done.append(Span(kind, begin, time.perf_counter()))

    def around(self, kind: str, call: Call) -> Call:
        """Return a function that records each call of another."""

        def recorded(*args: object, **named: object) -> object:
            with self.span(kind):
                return call(*args, **named)

        return recorded

    def around_each(self, kind: str, call: Call) -> Call:
        """Return a generator function that records each value that another makes."""

        def recorded(*args: object, **named: object) -> Iterator[object]:
            made = iter(call(*args, **named))
            while True:
                with self.span(kind):
                    try:
                        value = next(made)
                    except StopIteration:
                        return
                yield value

        return recorded

    def total(self, *kinds: str) -> float:
        """Return the seconds of spans of these kinds."""
        return sum(span.seconds for span in self.done if span.kind in kinds)

    def phase_changes(self) -> list[tuple[str, str, float]]:
        """Return (phase, next phase, seconds between their work, without those for weights)."""
        changes, weights_s, last = [], 0.0, None
        for span in self.done:
            if span.kind == WEIGHTS:
                weights_s += span.seconds
                continue
            if span.kind == SET_UP:
                continue
            if last is not None and last.kind != span.kind:
                changes.append((last.kind, span.kind, span.begin - last.end - weights_s))
            last, weights_s = span, 0.0
        return changes


def gaps(spans: "list[Span]") -> Mapping[str, float]:
    """Return the seconds between spans by what lies on both sides."""
    found: dict[str, float] = {}
    for one, two in pairwise(spans):
        name = f"{one.kind} > {two.kind}"
        found[name] = found.get(name, 0.0) + two.begin - one.end
    return found
