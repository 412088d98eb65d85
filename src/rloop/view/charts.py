"""The report's charts of a run that may be growing: drawn when something changed, not too often."""

import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rloop.errors import StoreError
from rloop.report.charts import Figure
from rloop.report.held_out import read_held_out
from rloop.report.sections import run_figures
from rloop.report.tables import task_tables
from rloop.run_directory import Run
from rloop.store.trajectories import TrajectoryStore
from rloop.view.folder import ViewedRun

REST_FACTOR = 5
"""Charts of a growing run rest for so many times as long as drawing them took."""

HEADINGS = {
    "learning": "Learning",
    "exploration": "Exploration",
    "pass_curves": "pass@k",
    "forgetting": "Forgetting",
    "selection": "Expert set and fine-tuning",
    "cost": "Cost",
}

Sections = Sequence[tuple[str, list[Figure]]]
"""Figures under their headings."""


@dataclass(frozen=True, slots=True)
class Drawn:
    """Charts as they were drawn; `problem` says why some are missing."""

    signature: str
    """Of the run's small files then."""
    sections: Sections
    problem: str
    at: float
    took_s: float


class ChartCache:
    """The charts of each run as they were last drawn."""

    def __init__(self) -> None:
        """Begin without any."""
        self._drawn: dict[str, Drawn] = {}
        self._locks: dict[str, threading.Lock] = {}

    def of(self, run: ViewedRun) -> Drawn:
        """Return a run's charts: those drawn last if nothing changed, or if that was just now."""
        with self._locks.setdefault(run.name, threading.Lock()):
            known, now = self._drawn.get(run.name), time.monotonic()
            signature = run.signature
            if known is not None:
                is_fresh = now - known.at < REST_FACTOR * known.took_s
                if is_fresh or known.signature == signature:
                    return known
            reading = run.read()
            sections: Sections = ()
            problem = reading.problem
            link = run.find_link()
            try:
                if link is not None:
                    raise StoreError(f"{link.name} is a link, and links are not followed.")
                sections = list(run_sections(reading.record))
            except StoreError as error:
                problem = str(error)
            done = time.monotonic()
            self._drawn[run.name] = Drawn(signature, sections, problem, done, done - now)
            return self._drawn[run.name]


def run_sections(record: Run) -> Iterator[tuple[str, list[Figure]]]:
    """Yield the charts that a run has data for, as the report has them, what changes most first."""
    store = TrajectoryStore(record.directory)
    tasks = read_held_out(record)
    found = run_figures(record, store, task_tables(record), tasks, {})
    for name in (*HEADINGS, *(name for name in found if name not in HEADINGS)):
        if found.get(name):
            yield HEADINGS.get(name, name.capitalize()), found[name]
