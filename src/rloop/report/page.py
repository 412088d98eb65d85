"""A run directory turned into `report.html`: one file, no network, safe with a model's text."""

import sys
from collections.abc import Sequence
from pathlib import Path

from rloop.disk import written_whole
from rloop.evaluation.checkpoints import read_checkpoints
from rloop.report import figures, held_out
from rloop.report.against import last_policies
from rloop.report.alarms import alarm_sentences
from rloop.report.budget import phase_budgets
from rloop.report.html import render_page
from rloop.report.method import (
    describe_run,
    describe_state,
    early_stops,
    facts,
    flatten,
    is_finished,
)
from rloop.report.results import reference_policy, task_tables
from rloop.report.run_record import RunRecord, read_run
from rloop.report.selection import problem_sentences
from rloop.report.trajectories import sample_trajectories
from rloop.report.verdict import task_verdicts
from rloop.store.trajectories import TrajectoryStore


def write_report(run_dir: Path, against: Sequence[Path] = ()) -> Path:
    """Write `report.html` into a run directory and return its path.

    `against` are other runs whose last policies join the pass@k curves. What the run has not
    produced yet is said to be missing. Raises StoreError for a folder that is no run directory, or
    one with a damaged file, and for other runs that were measured on other problems.
    """
    others = [read_run(other) for other in against]
    for other in others:
        if not is_finished(other):
            sys.stderr.write(
                f"{other.directory} is not finished: its last policy so far is drawn.\n"
            )
    page = render(read_run(run_dir), others)
    path = run_dir / "report.html"
    with written_whole(path, run_dir) as file:
        file.write(page.encode(errors="replace"))
    return path


def render(record: RunRecord, against: Sequence[RunRecord] = ()) -> str:
    """Return the page of a run as HTML."""
    store = TrajectoryStore(record.directory)
    tasks = held_out.held_out_tasks(record, read_checkpoints(store))
    others = last_policies(record, tasks, against)
    tables = task_tables(record)
    sections = figures.run_figures(record, store, tables, tasks, others)
    shown, num_trajectories = sample_trajectories(record.directory)
    return render_page(
        "page.html.j2",
        specs={figure.figure_id: figure.spec for found in sections.values() for figure in found},
        title=f"{record.name}: rloop report",
        record=record,
        folder=record.directory.resolve().name,
        method=describe_run(record),
        state=describe_state(record),
        early_stops=early_stops(record),
        alarms=alarm_sentences(record),
        facts=facts(record),
        environment=flatten(record.environment),
        verdicts=task_verdicts(record, tables, tasks),
        tables=tables,
        reference=reference_policy(record),
        sections=sections,
        lost=[(held, found) for held in tasks if (found := held_out.lost_problems(held, store))],
        problem_sentences=problem_sentences(record),
        budgets=phase_budgets(record),
        trajectories=shown,
        num_trajectories=num_trajectories,
    )
