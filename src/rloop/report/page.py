"""A run directory turned into `report.html`: one file, no network, safe with a model's text."""

import sys
from collections.abc import Sequence
from pathlib import Path

from rloop.disk import written_whole
from rloop.report.conclusions import conclusions
from rloop.report.held_out import last_policies, lost_problems, read_held_out
from rloop.report.html import render_page
from rloop.report.phase_figures import problem_sentences
from rloop.report.sections import run_figures
from rloop.report.summary import (
    alarm_sentences,
    describe_run,
    describe_state,
    early_stops,
    environment_facts,
    facts,
)
from rloop.report.tables import task_tables
from rloop.report.trajectories import sample_trajectories
from rloop.run_directory import Run, read_run
from rloop.store.trajectories import TrajectoryStore


def write_report(run_dir: Path, against: Sequence[Path] = ()) -> Path:
    """Write `report.html` into a run directory and return its path.

    `against` are other runs whose last policies join the pass@k curves. What the run has not
    produced yet is said to be missing. Raises StoreError for a folder that is no run directory, or
    one with a damaged file, and for other runs that were measured on other problems.
    """
    others = [read_run(other) for other in against]
    for other in others:
        if not other.is_complete:
            sys.stderr.write(f"{other.directory} is not finished: using its latest checkpoint.\n")
    page = render(read_run(run_dir), others)
    path = run_dir / "report.html"
    with written_whole(path, run_dir) as file:
        file.write(page.encode(errors="replace"))
    return path


def render(run: Run, against: Sequence[Run] = ()) -> str:
    """Return the page of a run as HTML."""
    store = TrajectoryStore(run.directory)
    tasks, tables = read_held_out(run), task_tables(run)
    others = last_policies(run, tasks, against)
    sections = run_figures(run, store, tables, tasks, others)
    shown, num_trajectories = sample_trajectories(run.directory)
    return render_page(
        "page.html.j2",
        figures=[figure for found in sections.values() for figure in found],
        title=f"{run.name}: rloop report",
        run=run,
        folder=run.directory.resolve().name,
        method=describe_run(run),
        state=describe_state(run),
        early_stops=early_stops(run),
        alarms=alarm_sentences(run),
        facts=facts(run),
        environment=environment_facts(run),
        conclusions=conclusions(run, tables, tasks),
        tables=tables,
        sections=sections,
        lost=[(held, found) for held in tasks if (found := lost_problems(held, store))],
        problem_sentences=problem_sentences(run),
        trajectories=shown,
        num_trajectories=num_trajectories,
    )
