"""A run directory turned into `report.html`: one file, no network, safe with a model's text."""

from pathlib import Path

from rloop.report import charts
from rloop.report.budget import phase_budgets
from rloop.report.charts import Figure
from rloop.report.html import render_page
from rloop.report.method import describe_method, describe_state, early_stops, facts, flatten
from rloop.report.results import TaskTable, headline, reference_policy, task_tables
from rloop.report.run_record import RunRecord, read_run
from rloop.report.selection import funnel_rows, problem_sentences
from rloop.report.timeline import Timeline
from rloop.report.trajectories import sample_trajectories

CURVES = (
    ("reward_mean", "Training reward", "Mean reward of a step's completions.", "~g"),
    ("entropy_mean", "Entropy", "Of the policy, nats per sampled token.", "~g"),
    ("grad_norm", "Gradient norm", "Before clipping.", "~g"),
    ("completion_tokens_mean", "Completion length", "Mean tokens of a completion.", "~g"),
    ("truncated_frac", "Truncated completions", "Cut at the length limit.", ".0%"),
)


def write_report(run_dir: Path) -> Path:
    """Write `report.html` into a run directory and return its path.

    What the run has not produced yet is said to be missing. Raises StoreError for a folder that is
    no run directory, or one with a damaged file.
    """
    path = run_dir / "report.html"
    path.write_text(render(read_run(run_dir)), encoding="utf-8", errors="replace")
    return path


def render(record: RunRecord) -> str:
    """Return the page of a run as HTML."""
    tables = task_tables(record)
    figures = run_figures(record, tables)
    shown, num_trajectories = sample_trajectories(record.directory)
    confidence = record.config.get("evaluate", {}).get("confidence", 0.95)
    return render_page(
        "page.html.j2",
        specs={figure.figure_id: figure.spec for figure in figures},
        title=f"{record.name}: rloop report",
        record=record,
        method=describe_method(record.config),
        state=describe_state(record),
        early_stops=early_stops(record),
        facts=facts(record),
        environment=flatten(record.environment),
        tables=[(table, headline(table, confidence)) for table in tables],
        confidence=confidence,
        reference=reference_policy(record),
        figures=figures,
        problem_sentences=problem_sentences(record),
        budgets=phase_budgets(record),
        trajectories=shown,
        num_trajectories=num_trajectories,
    )


def run_figures(record: RunRecord, tables: list[TaskTable]) -> list[Figure]:
    """Return the charts that the run has data for, in the order of the page."""
    timeline = Timeline(record)
    found: list[Figure | None] = [
        charts.held_out_figure(timeline, table.task, table.headline_metrics, index)
        for index, table in enumerate(tables)
    ]
    curves = [charts.step_figure(timeline, *curve[:3], unit=curve[3]) for curve in CURVES]
    found += [curves[0], charts.health_figure(timeline), *curves[1:]]
    found += [charts.tuning_figure(record), charts.funnel_figure(funnel_rows(record))]
    return [figure for figure in found if figure is not None]
