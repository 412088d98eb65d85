from pathlib import Path

import vl_convert

from rloop.evaluation.checkpoints import read_checkpoints
from rloop.report.charts.figure import MAX_NUMBERS, Figure, numbers
from rloop.report.charts.steps import task_reward_figure
from rloop.report.figures import run_figures
from rloop.report.held_out import held_out_tasks
from rloop.report.results import task_tables
from rloop.report.run_record import RunRecord, read_run
from rloop.report.timeline import Timeline
from rloop.store.trajectories import TrajectoryStore


def all_figures(record: RunRecord) -> dict[str, Figure]:
    store = TrajectoryStore(record.directory)
    tasks = held_out_tasks(record, read_checkpoints(store))
    sections = run_figures(record, store, task_tables(record), tasks, {})
    return {figure.figure_id: figure for found in sections.values() for figure in found}


def figures(record: RunRecord) -> dict[str, dict]:
    return {name: figure.spec for name, figure in all_figures(record).items()}


def test_every_chart_compiles_and_draws(build_run) -> None:
    specs = figures(read_run(build_run(steps=40)))
    assert list(specs) == [
        "held-out-0",
        "pass-0",
        "forgotten-0",
        "newly-solved-0",
        "diversity",
        "distinct_answers",
        "similarity",
        "health",
        "entropy_mean",
        "grad_norm",
        "completion_tokens_mean",
        "truncated_frac",
        "funnel",
        "tuning",
        "time",
    ]
    for spec in specs.values():
        assert "<svg" in vl_convert.vegalite_to_svg(spec | {"width": 400})


def test_a_curve_holds_the_logged_values(finished_run) -> None:
    record = read_run(finished_run)
    spec = figures(record)["entropy_mean"]
    logged = [row["explore/entropy_mean"] for row in record.rows("explore")]
    drawn = [[row.get("value") for row in rows] for rows in spec["datasets"].values()]
    assert logged in drawn


def test_a_long_curve_is_smoothed_and_says_so(build_run) -> None:
    record = read_run(build_run(steps=200))
    assert all_figures(record)["grad_norm"].caption.endswith(
        "Strong line: mean of the last 10 steps."
    )  # 200 / 20


def test_the_funnel_shows_counts_and_shares(finished_run) -> None:
    (rows,) = figures(read_run(finished_run))["funnel"]["datasets"].values()
    labels = [row["label"] for row in rows[:5]]
    # 20 steps x 128 completions = 2560; 0.47, 0.3, 0.14 and 0.09 of it, rounded down
    assert labels == ["2560", "1203 (47%)", "768 (30%)", "358 (14%)", "230 (9%)"]


def test_training_reward_and_held_out_metrics_share_a_picture(finished_run) -> None:
    record = read_run(finished_run)
    datasets = figures(record)["held-out-0"]["datasets"].values()
    measures = {row["metric"] for rows in datasets for row in rows if "metric" in row}
    assert measures == {"training reward", "held-out avg@8", "held-out pass@8"}


def test_a_long_table_of_numbers_is_thinned_evenly_and_keeps_its_end() -> None:
    table = numbers([{"x": x} for x in range(101)], {"x": "step"})
    # 101 rows in at most 40: every third, counted from the last, 100, 97, ... 1
    assert [row[0] for row in table.rows] == [str(x) for x in range(1, 101, 3)]
    assert len(table.rows) <= MAX_NUMBERS
    assert table.note == "34 of 101 rows, spread evenly."


def test_several_training_tasks_have_their_rewards_apart() -> None:
    line = {"iteration": 1, "phase": "explore", "policy": "explored-001"}
    metrics = [line | {"step": step} for step in (1, 2)]
    record = RunRecord(
        directory=Path("run"),
        recipe_text="",
        config={},
        environment={},
        manifest={},
        metrics=metrics,
        events=[],
    )
    timeline = Timeline(record)
    rows = [
        timeline.place(1, step) | {"task": task, "value": value}
        for step, task, value in ((1, "a", 0.25), (1, "b", 0.5), (2, "a", 0.75), (2, "b", 1.0))
    ]
    figure = task_reward_figure(timeline, rows)
    assert figure is not None
    assert figure.description == "Training reward by task: a from 0.25 to 0.75, b from 0.5 to 1."
    vl_convert.vegalite_to_svg(figure.spec)
    assert task_reward_figure(timeline, [row for row in rows if row["task"] == "a"]) is None
