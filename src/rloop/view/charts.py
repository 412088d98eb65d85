"""The report's charts of a run that may be growing: drawn when something changed, not too often."""

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass

from rloop.errors import StoreError
from rloop.evaluation.checkpoints import read_checkpoints
from rloop.report import figures, held_out
from rloop.report.charts.figure import Figure
from rloop.report.results import task_tables
from rloop.report.run_record import RunRecord
from rloop.report.timeline import Timeline
from rloop.store.trajectories import TrajectoryStore
from rloop.view.folder import ViewedRun

REST_FACTOR = 5
"""Charts of a growing run rest for so many times as long as drawing them took."""

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
            sections, problem = [], reading.problem
            try:
                sections = list(run_sections(reading.record))
            except StoreError as error:
                problem = str(error)
            done = time.monotonic()
            self._drawn[run.name] = Drawn(signature, sections, problem, done, done - now)
            return self._drawn[run.name]


def run_sections(record: RunRecord) -> Sections:
    """Return the charts that a run has data for, as the report has them."""
    timeline = Timeline(record)
    tasks = held_out.held_out_tasks(record, read_checkpoints(TrajectoryStore(record.directory)))
    return (
        ("Learning", figures.learning_figures(timeline, task_tables(record))),
        ("Exploration", figures.exploration_figures(timeline)),
        ("pass@k", figures.pass_figures(record, tasks, {})),
        ("Forgetting", figures.forgetting_figures(tasks)),
        ("Expert set and fine-tuning", figures.selection_figures(record)),
        ("Cost", figures.cost_figures(record)),
    )
