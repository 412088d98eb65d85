"""A run's heartbeat: where it is, for other programs to read, and a warning when it stands still.

    RUN/heartbeat.json       {"pid": 812, "iteration": 2, "phase": "explore", "step": 7,
                              "time": 1767225600.0}     of the last progress, in seconds since 1970
    RUN/stalls/stall-1.txt   what every thread was doing when there had been none for too long

The file exists while a process works on the run; a killed process leaves it behind. Progress is a
step, an update, a problem measured, or a completion passed to the verifiers. Nothing is ever
stopped here, because slow work may be right.
"""

import faulthandler
import json
import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from pathlib import Path
from typing import Self

from rloop.tasks.rewards import Verify
from rloop.types import Place, Problem, Verdict

LEAST_S = 300.0
"""No run counts as standing still before this (seconds)."""
TIMES_LONGEST = 10
"""Nor before this many times its longest time without progress so far."""
TICK_S = 1.0
"""Between two checks, and between two writes of the file (seconds)."""


class Heartbeat:
    """Watches from a thread of its own; one per run and process."""

    def __init__(self, run_dir: Path, warn: Callable[[str], None]) -> None:
        """Start the watching thread; `warn` shows a sentence to the user."""
        self._run_dir = run_dir
        self._path = run_dir / "heartbeat.json"
        self._warn = warn
        self._where = {"iteration": 0, "phase": "prepare", "step": 0}
        self._last = time.monotonic()
        self._longest_s = 0.0
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="heartbeat", daemon=True)
        self._thread.start()

    def beat(self, place: Place | None = None) -> None:
        """Record progress: a new place, or more work at the same one."""
        if place is not None:
            self._where = {"iteration": place.iteration, "phase": place.phase, "step": place.step}
        now = time.monotonic()
        self._longest_s = max(self._longest_s, now - self._last)
        self._last = now

    def watching(self, verify: Verify) -> Verify:
        """Return the verifier wrapped so that each completion it gets counts as progress."""
        return _Watching(self, verify)

    def close(self) -> None:
        """Stop watching and remove the file."""
        self._closing.set()
        self._thread.join()
        self._path.unlink(missing_ok=True)

    def __enter__(self) -> Self:
        """Return the heartbeat, which is already watching."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close it."""
        self.close()

    def _watch(self) -> None:
        written, spoken_s = -1.0, 0.0
        while not self._closing.wait(TICK_S):
            last = self._last
            if last != written:
                self._write()
                written, spoken_s = last, 0.0
            quiet_s = time.monotonic() - last
            if quiet_s > max(LEAST_S, TIMES_LONGEST * self._longest_s, 2 * spoken_s):
                self._speak(quiet_s)
                spoken_s = quiet_s

    def _write(self) -> None:
        """Replace the file; a full disk does not end the run here."""
        line = {"pid": os.getpid(), **self._where, "time": round(time.time(), 3)}
        temporary = self._path.with_suffix(".json.tmp")
        with suppress(OSError):
            temporary.write_text(json.dumps(line) + "\n")
            temporary.replace(self._path)

    def _speak(self, quiet_s: float) -> None:
        """Warn where the run stands still, and write the stacks of all threads."""
        where = "{phase} of iteration {iteration}, step {step}".format_map(self._where)
        said = f"No progress for {quiet_s:.0f} s in {where}."
        try:
            stacks = self._dump(said)
        except OSError as error:
            self._warn(f"{said} Its stacks could not be written ({error.strerror}).")
        else:
            self._warn(f"{said} The run continues; the stacks of all threads are in {stacks}.")

    def _dump(self, said: str) -> Path:
        folder = self._run_dir / "stalls"
        folder.mkdir(exist_ok=True)
        path = folder / f"stall-{len(list(folder.iterdir())) + 1}.txt"
        with path.open("w") as file:
            file.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {said}\n\n")
            file.flush()
            faulthandler.dump_traceback(file)
        return path


class _Watching:
    """A verifier that reports its work to a heartbeat."""

    def __init__(self, heartbeat: Heartbeat, verify: Verify) -> None:
        self._heartbeat = heartbeat
        self._verify = verify

    def submit(self, problem: Problem, completion_text: str) -> "Future[Verdict]":
        """Start judging."""
        self._heartbeat.beat()
        return self._verify.submit(problem, completion_text)
