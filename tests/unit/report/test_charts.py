import json
import shutil

import vl_convert
from doubles_records import group_at, place_at

from rloop.report.charts import MAX_NUMBERS, Figure, Heading, lines_with_bands, numbers, token_axis
from rloop.report.held_out import read_held_out
from rloop.report.sections import run_figures, task_rewards
from rloop.report.tables import task_tables
from rloop.run_directory import Run, read_run
from rloop.store.trajectories import TrajectoryStore


def all_figures(run: Run) -> dict[str, Figure]:
    store = TrajectoryStore(run.directory)
    sections = run_figures(run, store, task_tables(run), read_held_out(run), {})
    return {figure.heading.figure_id: figure for found in sections.values() for figure in found}


def figures(run: Run) -> dict[str, dict]:
    return {name: figure.spec for name, figure in all_figures(run).items()}


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
    run = read_run(finished_run)
    spec = figures(run)["entropy_mean"]
    logged = [row["explore/entropy_mean"] for row in run.rows("explore")]
    drawn = [[row.get("value") for row in rows] for rows in spec["datasets"].values()]
    assert logged in drawn


def test_a_long_curve_is_smoothed_and_says_so(build_run) -> None:
    run = read_run(build_run(steps=200))
    assert all_figures(run)["grad_norm"].heading.caption.endswith(
        "Strong line: mean of the last 10 steps."
    )  # 200 / 20


def test_the_funnel_shows_counts_and_shares(finished_run) -> None:
    (rows,) = figures(read_run(finished_run))["funnel"]["datasets"].values()
    labels = [row["label"] for row in rows[:5]]
    # 20 steps x 128 completions = 2560; 0.47, 0.3, 0.14 and 0.09 of it, rounded down
    assert labels == ["2560", "1203 (47%)", "768 (30%)", "358 (14%)", "230 (9%)"]


def test_training_reward_and_held_out_metrics_share_a_picture(finished_run) -> None:
    run = read_run(finished_run)
    datasets = figures(run)["held-out-0"]["datasets"].values()
    measures = {
        row["series"]
        for rows in datasets
        for row in rows
        if "policy" in row or row.get("series") == "training reward"
    }
    assert measures == {"training reward", "held-out avg@8", "held-out pass@8"}


def test_a_long_table_of_numbers_is_thinned_evenly_and_keeps_its_end() -> None:
    table = numbers([{"x": x} for x in range(101)], {"x": "step"})
    # 101 rows in at most 40: every third, counted from the last, 100, 97, ... 1
    assert [row[0] for row in table.rows] == [str(x) for x in range(1, 101, 3)]
    assert len(table.rows) <= MAX_NUMBERS
    assert table.note == "34 of 101 rows, spread evenly."


def test_several_training_tasks_have_their_rewards_apart(build_run) -> None:
    run_dir = build_run()
    config = json.loads((run_dir / "config.json").read_text())
    assert task_rewards(read_run(run_dir), TrajectoryStore(run_dir)) is None
    config["tasks"]["train"] = [{"name": "a"}, {"name": "b"}]
    (run_dir / "config.json").write_text(json.dumps(config))
    shutil.rmtree(run_dir / "trajectories")
    store = TrajectoryStore(run_dir)
    for step, right in ((1, {"a": 1, "b": 2}), (2, {"a": 3, "b": 4})):
        place = place_at(step)
        groups = [
            group_at(place, f"{task}/1", [("2", m < number) for m in range(4)], task)
            for task, number in right.items()
        ]
        store.append(place, groups)
    figure = task_rewards(read_run(run_dir), store)
    assert figure is not None
    assert figure.heading.description == (
        "Training reward by task: a from 0.25 to 0.75, b from 0.5 to 1."
    )
    vl_convert.vegalite_to_svg(figure.spec)


def drawn_bands(rows: list[dict[str, object]]) -> set[object]:
    """Return the series whose bands a chart draws."""
    columns = {"series": "method", "x": "tokens"}
    figure = lines_with_bands(Heading("a", "b", "c", "d"), rows, token_axis(rows), columns)
    band = figure.spec["layer"][0]
    assert band["mark"]["type"] == "area"
    return {row["series"] for row in figure.spec["datasets"][band["data"]["name"]]}


def test_bands_that_fill_the_chart_are_left_out():
    rows: list[dict[str, object]] = [
        {"series": "two seeds", "x": 1, "value": v, "low": 0.0, "high": 1.0} for v in (0.2, 0.3)
    ]
    rows += [
        {"series": "five", "x": 1, "value": v, "low": v - 0.02, "high": v + 0.02}
        for v in (0.3, 0.35)
    ]
    assert drawn_bands(rows) == {"five"}
    # a narrow band around a level line says something
    assert drawn_bands(
        [{"series": "flat", "x": 1, "value": 0.5, "low": 0.49, "high": 0.51}] * 3
    ) == {"flat"}
