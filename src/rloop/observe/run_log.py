"""The run's two logs, JSON lines: how it learns (metrics) and what it was doing (events).

    metrics.jsonl  {"iteration":1,"phase":"explore","step":40,"policy":"explored-001",
                    "policy_kind":"explored","explore/reward_mean":0.41,...}
    events.jsonl   {"name":"fine_tune","iteration":1,"phase":"finetune","step":0,
                    "start":1767225600.0,"seconds":12.5,...}

Metrics contain no time of day, so a resumed run can write the same bytes as an uninterrupted one.
Each line reaches the file at once; a last line torn by a crash is removed when the log is opened
again.
"""

import json
import math
import os
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

from rloop.disk import raise_if_full
from rloop.errors import StoreError
from rloop.observe.sinks import open_sinks
from rloop.types import Group, Place, policy_kind

MAX_SHOWN = 8
"""Completions of a step that trackers show."""


_LEARNING = ("coldstart", "explore", "finetune")
"""Phases that take steps."""


class GlobalStep:
    """Counts the steps of learning phases end to end; other phases get the current count.

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
        """Return the count after the lines of metrics.jsonl."""
        found = cls()
        for line in lines:
            found.at(line["iteration"], line["phase"], line["step"])
        return found

    def at(self, iteration: int, phase: str, step: int) -> int:
        """Return the global step of a place; places must come in the order of the run."""
        if phase in _LEARNING:
            if self._phase != (iteration, phase):
                self._phase, self._base = (iteration, phase), self._last
            self._last = self._base + step
        return self._last


class RunLog:
    """Appends to a run directory's logs, and sends metrics to other trackers."""

    def __init__(self, run_dir: Path, sinks: Sequence[str] = ()) -> None:
        """Open the logs of a run; `sinks` are the recipe's names of trackers."""
        run_dir.mkdir(parents=True, exist_ok=True)
        self._run_dir = run_dir
        lines = read_metrics(run_dir)
        self._global_step = GlobalStep.after(lines)
        self._num_lines = self._num_sent = len(lines)
        self._sinks = open_sinks(sinks, run_dir)
        self._metrics = _LineFile(run_dir / "metrics.jsonl")
        self._events = _LineFile(run_dir / "events.jsonl")

    def metrics(
        self, place: Place, values: Mapping[str, float], groups: Sequence[Group] = ()
    ) -> None:
        """Append a line; keys get the phase as a prefix: `reward_mean` -> `explore/reward_mean`.

        A value that is not finite is written as null and counted in `nonfinite_count`. Trackers
        also get the first completions of `groups`.
        """
        line = _place(place) | {"policy": place.policy}
        if place.policy:
            line["policy_kind"] = policy_kind(place.policy)
        prefixed = {f"{place.phase}/{key}": value for key, value in values.items()}
        finite = {key: value for key, value in prefixed.items() if math.isfinite(value)}
        num_odd = len(prefixed) - len(finite)
        if num_odd:
            finite["nonfinite_count"] = num_odd
        self._metrics.append(line | dict.fromkeys(prefixed) | finite)
        step = self._global_step.at(place.iteration, place.phase, place.step)
        self._num_lines += 1
        if self._num_lines > self._num_sent:
            self._num_sent = self._num_lines
            shown = [row for group in groups[:MAX_SHOWN] for row in group.trajectories][:MAX_SHOWN]
            for sink in self._sinks:
                sink.write(step, finite, shown)

    def event(self, name: str, place: Place, start: float, seconds: float, **facts: Any) -> None:  # noqa: ANN401 (JSON values)
        """Append an event: `start` in seconds since 1970, and its duration."""
        times = {"start": round(start, 3), "seconds": round(seconds, 6)}
        self._events.append({"name": name, **_place(place), **times, **facts})

    @contextmanager
    def span(self, name: str, place: Place, **facts: Any) -> Iterator[None]:  # noqa: ANN401 (JSON values)
        """Log the block as an event; if it raises, log it with `error` and re-raise."""
        start, began = time.time(), time.perf_counter()
        try:
            yield
        except BaseException as error:
            facts["error"] = type(error).__name__
            raise
        finally:
            self.event(name, place, start, time.perf_counter() - began, **facts)

    def position(self) -> int:
        """Return the length of metrics.jsonl (bytes), after making sure that it is on the disk."""
        return self._metrics.sync()

    def truncate(self, position: int) -> None:
        """Truncate metrics.jsonl to a saved position; what followed is written again.

        Other trackers already have those lines and cannot take them back, so they get only newer
        ones.
        """
        self._metrics.truncate(position)
        lines = read_metrics(self._run_dir)
        self._global_step, self._num_lines = GlobalStep.after(lines), len(lines)

    def close(self) -> None:
        """Close the files and the trackers."""
        self._metrics.close()
        self._events.close()
        for sink in self._sinks:
            sink.close()


def read_metrics(run_dir: Path) -> list[dict[str, Any]]:
    """Return the lines of metrics.jsonl, as `read_lines` does."""
    return read_lines(run_dir / "metrics.jsonl")


def final_rows(run_dir: Path) -> list[dict[str, Any]]:
    """Return the evaluations of whole policies, in order.

    Evaluations inside an exploration belong to curves, not tables; of an explored policy only the
    last counts.
    """
    latest: dict[str, dict[str, Any]] = {}
    for line in read_metrics(run_dir):
        if line["phase"] == "evaluate":
            latest[str(line["policy"])] = line
    return list(latest.values())


def read_lines(path: Path) -> list[dict[str, Any]]:
    """Return the lines of a log without a torn last one; any other damage raises StoreError."""
    if not path.exists():
        return []
    lines = path.read_bytes().split(b"\n")
    found = []
    for number, line in enumerate(lines[:-1], start=1):
        try:
            found.append(json.loads(line))
        except (ValueError, RecursionError) as error:
            raise StoreError(
                f"{path}, line {number}, is not valid JSON ({error}); remove that line to continue."
            ) from error
        if not isinstance(found[-1], dict):
            raise StoreError(f"{path}, line {number}, is not a JSON object; remove it to continue.")
    return found


class _LineFile:
    """An unbuffered file of JSON lines: what was appended is in the file."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = path.open("ab", buffering=0)
        size = os.fstat(self._file.fileno()).st_size
        with path.open("rb") as file:
            end = file.read(size).rfind(b"\n") + 1
        if end < size:
            self._file.truncate(end)

    def append(self, line: Mapping[str, Any]) -> None:
        text = json.dumps(line, separators=(",", ":"), allow_nan=False, default=_plain)
        data = memoryview(text.encode() + b"\n")
        try:
            while data:
                data = data[self._file.write(data) :]
        except OSError as error:
            raise_if_full(error, self._path, self._path.parent)
            raise

    def sync(self) -> int:
        os.fsync(self._file.fileno())
        return os.fstat(self._file.fileno()).st_size

    def truncate(self, position: int) -> None:
        size = os.fstat(self._file.fileno()).st_size
        if position > size:
            raise StoreError(
                f"{self._path} has {size} bytes, fewer than the {position} at the saved point; "
                "restore it from a backup."
            )
        self._file.truncate(position)

    def close(self) -> None:
        self._file.close()


def _place(place: Place) -> dict[str, Any]:
    return {"iteration": place.iteration, "phase": place.phase, "step": place.step}


def _plain(value: Any) -> Any:  # noqa: ANN401 (a number of another library)
    """Return a NumPy scalar as a Python number."""
    return value.item()
