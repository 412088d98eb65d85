"""Progress of one phase as numbers: done, tokens, their rates and the time left. Draws nothing."""

import time
from collections.abc import Callable


class Bar:
    """Counts of a phase, all absolute; whoever draws it is told of each change."""

    def __init__(
        self,
        total: int,
        on_change: Callable[["Bar"], None],
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Begin a phase of `total` units; `clock` gives seconds."""
        self.total = total
        self.done = 0
        self.tokens = 0
        self._on_change = on_change
        self._clock = clock
        self._started = clock()
        self._origin: tuple[float, int, int] = (self._started, 0, 0)

    def advance(self, done: int, *, tokens: int = 0) -> None:
        """Say how far the phase is: units and sampled tokens since its very start."""
        if self.done == 0 and done > 1:
            # The first news of a resumed phase counts what was done before; rates begin here.
            self._origin = (self._clock(), done, tokens)
        self.done, self.tokens = done, tokens
        self._on_change(self)

    @property
    def seconds(self) -> float:
        """Since the phase began in this process."""
        return self._clock() - self._started

    @property
    def tokens_per_s(self) -> float | None:
        """Sampled tokens per second, None before there is a rate."""
        start, _, tokens = self._origin
        passed = self._clock() - start
        return (self.tokens - tokens) / passed if self.tokens > tokens and passed > 0 else None

    @property
    def seconds_left(self) -> float | None:
        """Until the phase ends at the rate so far, None before there is a rate."""
        start, done, _ = self._origin
        if self.done <= done:
            return None
        return (self._clock() - start) / (self.done - done) * (self.total - self.done)
