import vl_convert

from rloop.report.page import run_figures
from rloop.report.results import task_tables
from rloop.report.run_record import RunRecord, read_run


def figures(record: RunRecord) -> dict[str, dict]:
    return {figure.figure_id: figure.spec for figure in run_figures(record, task_tables(record))}


def test_every_chart_compiles_and_draws(build_run) -> None:
    specs = figures(read_run(build_run(steps=40)))
    assert list(specs) == [
        "held-out-0",
        "reward_mean",
        "health",
        "entropy_mean",
        "grad_norm",
        "completion_tokens_mean",
        "truncated_frac",
        "tuning",
        "funnel",
    ]
    for spec in specs.values():
        assert "<svg" in vl_convert.vegalite_to_svg(spec | {"width": 400})


def test_a_curve_holds_the_logged_values(finished_run) -> None:
    record = read_run(finished_run)
    spec = figures(record)["reward_mean"]
    logged = [row["explore/reward_mean"] for row in record.rows("explore")]
    drawn = [[row.get("value") for row in rows] for rows in spec["datasets"].values()]
    assert logged in drawn


def test_a_long_curve_is_smoothed_and_says_so(build_run) -> None:
    record = read_run(build_run(steps=200))
    found = {figure.figure_id: figure for figure in run_figures(record, [])}
    assert found["grad_norm"].caption.endswith(
        "Strong line: mean of the last 10 steps."
    )  # 200 / 20


def test_the_funnel_shows_counts_and_shares(finished_run) -> None:
    (rows,) = figures(read_run(finished_run))["funnel"]["datasets"].values()
    labels = [row["label"] for row in rows[:5]]
    # 20 steps x 128 completions = 2560; 0.47, 0.3, 0.14 and 0.09 of it, rounded down
    assert labels == ["2560", "1203 (47%)", "768 (30%)", "358 (14%)", "230 (9%)"]
