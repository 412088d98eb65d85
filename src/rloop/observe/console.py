"""What a run shows: progress on standard error, the final table on standard output.

A terminal gets bars and colour. Anything else gets plain lines, and about every half a minute one
with the progress of a long phase. Besides the command line's tables, this is the only place that
prints. Text from a model or a user is shown as text: no markup, no control characters.
"""

import logging
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TextIO

from rich.box import SIMPLE_HEAD
from rich.console import Console as Screen
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn
from rich.table import Table
from rich.text import Text

from rloop.observe.columns import (
    HEADINGS,
    columns_of,
    evaluation_lines,
    final_table,
    reference,
    step_line,
    title_line,
)
from rloop.observe.notebook import CellLine, in_notebook
from rloop.types import PhaseName, Place

LINES_PER_TITLE = 30
"""Step lines after which the column titles are repeated."""
SILENCE_S = 30.0
"""Seconds without output after which a progress line is printed, if no bar is drawn."""
PIPE_WIDTH = 10_000
"""Width without a terminal, so that nothing is wrapped."""


class Bar:
    """Progress of one phase: done, tokens, their rates and the time left. Draws nothing."""

    def __init__(
        self,
        total: int,
        *,
        together: int = 1,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Begin a phase of `total` units; `clock` gives seconds.

        So many are worked on `together`: the first of them to end say nothing of the rate.
        """
        self.total = total
        self._together = together
        self.done = 0
        self.tokens = 0
        self.on_change: Callable[[], object] = lambda: None
        self._clock = clock
        self._started = clock()
        self._origin: tuple[float, int, int] = (self._started, 0, 0)

    def advance(self, done: int, *, tokens: int = 0) -> None:
        """Set the progress of the phase: units and sampled tokens since its start."""
        if self.done == 0 and done > 1:
            # The first report of a resumed phase includes earlier work; rates start here.
            self._origin = (self._clock(), done, tokens)
        self.done, self.tokens = done, tokens
        self.on_change()

    def count(self, tokens: int) -> None:
        """Say that one more unit is done, of so many tokens."""
        self.advance(self.done + 1, tokens=self.tokens + tokens)

    @property
    def seconds(self) -> float:
        """Seconds since the phase began in this process."""
        return self._clock() - self._started

    @property
    def tokens_per_s(self) -> float | None:
        """Sampled tokens per second, None before there is a rate."""
        start, _, tokens = self._origin
        passed = self._clock() - start
        return (self.tokens - tokens) / passed if self.tokens > tokens and passed > 0 else None

    @property
    def seconds_left(self) -> float | None:
        """Seconds until the phase ends at the rate so far; None before there is a rate."""
        start, done, _ = self._origin
        if self.done - done < self._together:
            return None
        return (self._clock() - start) / (self.done - done) * (self.total - self.done)


class Console:
    """Progress for people; nothing that a program should read."""

    def __init__(
        self,
        file: TextIO | None = None,
        *,
        results: TextIO | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Draw on `file` (standard error), print results on `results` (standard output).

        `clock` gives seconds.
        """
        self._in_notebook = file is None and in_notebook()
        default = sys.stdout if self._in_notebook else sys.stderr
        self._screen = _screen(file or default, is_plain=self._in_notebook)
        self._results = _screen(results or sys.stdout, is_plain=self._in_notebook)
        self._progress: Progress | None = None
        self._num_open = 0
        self._num_steps: dict[str, int] = {}
        self._titled: str | None = None
        self._num_lines = 0
        self._clock = clock
        self._written = clock()

    def header(self, facts: Mapping[str, str]) -> None:
        """Show what the run is: one fact per line, names aligned."""
        width = max(map(len, facts), default=0)
        for name, value in facts.items():
            text = Text(f"{name:<{width}}  ", style="dim", end="")
            self._print(text.append(plain(value), style="not dim"))

    @contextmanager
    def phase(
        self, iteration: int, phase: PhaseName, total: int, unit: str, *, together: int = 1
    ) -> Iterator[Bar]:
        """Show a phase of `total` units (`step`); the caller advances the bar it yields.

        No time left is shown before as many units are done as are worked on `together`.
        """
        self._num_steps[phase] = total
        what = f"Iteration {iteration}, {phase}"
        self._print(Text(f"{what}: {_count(total, unit)}", style="bold"))
        bar = Bar(total, together=together, clock=self._clock)
        with self._drawn(f"{iteration} {phase}", what, unit, bar) as bar:
            yield bar
        done = "done" if bar.done == total else f"{bar.done:,} of {_count(total, unit)}"
        tokens = f", {bar.tokens:,} tokens" if bar.tokens else ""
        self._print(Text(f"{what}: {done} in {clock_time(bar.seconds)}{tokens}"))

    def step(self, place: Place, metrics: Mapping[str, float]) -> None:
        """Show a step of a learning phase as a line, or an evaluation as a line for each task."""
        if not columns_of(place.phase, metrics):
            for line in evaluation_lines(place, metrics):
                self._print(Text(plain(line)))
            return
        if self._titled != place.phase or self._num_lines >= LINES_PER_TITLE:
            self._print(Text(title_line(place.phase, metrics), style="dim"))
            self._titled, self._num_lines = place.phase, 0
        self._num_lines += 1
        num_steps = self._num_steps.get(place.phase)
        self._write(Text(step_line(place, metrics, num_steps=num_steps)))

    def say(self, text: str) -> None:
        """Show a sentence."""
        self._print(Text(plain(text)))

    def warn(self, text: str) -> None:
        """Show a sentence that must not be missed."""
        self._print(Text("Warning: ", style="bold yellow").append(plain(text), style="not bold"))

    def stop(self, text: str) -> None:
        """Show why the run ends."""
        self._print(Text("Stopped: ", style="bold red").append(plain(text), style="not bold"))

    def final_table(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Print how each policy did, from evaluate lines of metrics.jsonl, to standard output."""
        table = Table(box=SIMPLE_HEAD, pad_edge=False, show_edge=False)
        for heading in HEADINGS:
            table.add_column(heading, overflow="fold")
        cells = final_table(rows)
        for row in cells:
            table.add_row(*(Text(plain(cell)) for cell in row))
        with self._results.capture() as capture:
            self._results.print(table)
        lines = [line.rstrip() for line in capture.get().splitlines()]
        if any(row[-1] for row in cells):
            lines.append(f"Differences are paired, problem by problem, with {reference(rows)}.")
            if reference(rows) == "coldstart":
                lines[-1] = f"{lines[-1][:-1]}; those of the cold start itself with the base."
        self._results.file.writelines(f"{line}\n" for line in lines)

    @contextmanager
    def _drawn(self, name: str, what: str, unit: str, bar: Bar) -> Iterator[Bar]:
        """Yield the bar, drawn only on a terminal; bars of nested phases are below it."""
        if self._in_notebook:
            line = CellLine(self._clock)
            bar.on_change = lambda: line.write(bar.done, bar.total, numbers(bar, unit, what))
            try:
                yield bar
            finally:
                line.clear()
            return
        if not self._screen.is_terminal:
            bar.on_change = lambda: self._tell(bar, what, unit)
            yield bar
            return
        progress = self._open_progress()
        task = progress.add_task(name, total=bar.total, unit=unit, bar=bar)
        bar.on_change = lambda: progress.update(task, completed=bar.done)
        try:
            yield bar
        finally:
            progress.remove_task(task)
            self._num_open -= 1
            if not self._num_open:
                progress.stop()
                self._progress = None

    def _tell(self, bar: Bar, what: str, unit: str) -> None:
        """Print the progress of a phase, unless something was printed recently."""
        if bar.done >= bar.total or self._clock() - self._written < SILENCE_S:
            return
        left = "" if bar.seconds_left is None else f", {clock_time(bar.seconds_left)} left"
        done = f"{bar.done:,} of {_count(bar.total, unit)}"
        self._print(Text(f"{what}: {done} in {clock_time(bar.seconds)}{left}"))

    def _open_progress(self) -> Progress:
        if self._progress is None:
            self._progress = Progress(
                TextColumn("{task.description}", markup=False),
                BarColumn(bar_width=20),
                _Numbers(),
                console=self._screen,
                refresh_per_second=4,
                transient=True,
                redirect_stdout=False,
                redirect_stderr=False,
            )
            self._progress.start()
        self._num_open += 1
        return self._progress

    def _print(self, text: Text) -> None:
        """Print something other than a step line; the next step line repeats the column titles."""
        self._titled = None
        self._write(text)

    def _write(self, text: Text) -> None:
        self._screen.print(text)
        self._written = self._clock()


class _Numbers(ProgressColumn):
    """`12/40 steps  1,234 tok/s  5:12 left`; redrawn at every refresh, so that the time moves."""

    def render(self, task: Task) -> Text:
        """Return the numbers of a progress task."""
        return Text(
            numbers(task.fields["bar"], task.fields["unit"]), no_wrap=True, overflow="ellipsis"
        )


def numbers(bar: Bar, unit: str, what: str = "") -> str:
    """Return how far a phase is. Example: `12/40 steps  1,234 tok/s  5:12 left`."""
    parts = [what] * bool(what) + [f"{bar.done}/{_count(bar.total, unit)}"]
    if bar.tokens_per_s is not None:
        parts.append(f"{bar.tokens_per_s:,.0f} tok/s")
    left = bar.seconds_left
    parts.append(
        f"{clock_time(bar.seconds)} so far" if left is None else f"{clock_time(left)} left"
    )
    return "  ".join(parts)


def plain(text: str) -> str:
    """Return text without anything that could move the cursor, change colours or reorder: only
    printable characters."""
    return "".join(c for c in text.replace("\t", " ") if c.isprintable() or c == "\n")


def _screen(file: TextIO, *, is_plain: bool) -> Screen:
    screen = Screen(
        file=file,
        markup=False,
        highlight=False,
        emoji=False,
        force_jupyter=False,
        force_terminal=False if is_plain else None,
    )
    if not screen.is_terminal:
        screen.width = PIPE_WIDTH
    return screen


def _count(number: int, unit: str) -> str:
    return f"{number:,} {unit}{'' if number == 1 else 's'}"


def clock_time(seconds: float) -> str:
    """Return 3723 as `1:02:03`, 83 as `1:23`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


class _Warnings(logging.Handler):
    """Passes warnings to a console."""

    def __init__(self, console: Console) -> None:
        super().__init__(logging.WARNING)
        self._console = console

    def emit(self, record: logging.LogRecord) -> None:
        self._console.warn(record.getMessage())


@contextmanager
def warnings_shown(console: Console) -> Iterator[None]:
    """Show the warnings of the logger `rloop` inside the block; nothing else changes."""
    logger, handler = logging.getLogger("rloop"), _Warnings(console)
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
