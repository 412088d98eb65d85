from rloop.report.phase_figures import (
    problem_sentences,
    selected_iterations,
    success_rate_figure,
    success_rate_rows,
    tuning_rows,
)
from rloop.run_directory import read_run
from rloop.store.expert import EXAMPLE_COLUMNS, write_expert_set
from rloop.store.schema import SCHEMA


def test_success_rates_fall_into_tenths_by_outcome(build_run) -> None:
    run_dir = build_run()
    rates = [
        (0.0, "not_solved"),
        (0.05, "kept"),
        (3 / 10, "kept"),
        (0.7, "kept"),
        (0.7, "too_easy"),
        (0.9, "too_easy"),
        (1.0, "too_easy"),
    ]
    problems = [
        {"problem_id": str(number), "outcome": outcome, "success_rate": rate}
        for number, (rate, outcome) in enumerate(rates)
    ]
    nothing = SCHEMA.empty_table().select(EXAMPLE_COLUMNS)
    write_expert_set(run_dir, 2, trajectories=nothing, weights=[], problems=problems)
    rows = success_rate_rows(run_dir, 2)
    found = [(row["low"], row["high"], row["series"], row["count"]) for row in rows]
    assert found == [
        (0.0, 0.1, "kept", 1),
        (0.0, 0.1, "not solved", 1),
        (0.3, 0.4, "kept", 1),
        (0.7, 0.8, "kept", 1),
        (0.7, 0.8, "too easy", 1),
        (0.9, 1.0, "too easy", 2),
    ]
    assert selected_iterations(read_run(run_dir)) == [2]


def test_the_few_rates_of_small_groups_have_a_bin_each(build_run) -> None:
    run_dir = build_run()
    problems = [
        {"problem_id": str(k), "outcome": outcome, "success_rate": k / 8, "num_trajectories": 8}
        for k, outcome in ((0, "not_solved"), (2, "not_solved"), (4, "kept"), (8, "too_easy"))
    ]
    nothing = SCHEMA.empty_table().select(EXAMPLE_COLUMNS)
    write_expert_set(run_dir, 2, trajectories=nothing, weights=[], problems=problems)
    rows = success_rate_rows(run_dir, 2)
    # k/8 +- 1/16, cut at 0 and 1: no bin without a possible rate, so no hole that means nothing
    assert [(row["low"], row["high"], row["rate"]) for row in rows] == [
        (0.0, 0.0625, "0/8"),
        (0.1875, 0.3125, "2/8"),
        (0.4375, 0.5625, "4/8"),
        (0.9375, 1.0, "8/8"),
    ]
    figure = success_rate_figure(2, rows, 0.75)
    assert figure is not None
    assert "Grey above 0 %: answered right, but only by completions cut" in figure.heading.caption
    above = success_rate_figure(2, [row for row in rows if row["rate"] != "2/8"], 0.75)
    assert above is not None
    assert "Grey" not in above.heading.caption


def test_why_problems_are_not_in_the_expert_set_is_said(finished_run) -> None:
    assert problem_sentences(read_run(finished_run))[0] == (
        "Problems of iteration 1: 128 seen, 21 not solved, 71 kept, 36 too easy."
    )


def test_each_update_has_its_loss(finished_run) -> None:
    rows = tuning_rows(read_run(finished_run))
    assert [(row["series"], row["x"]) for row in rows[29:31]] == [
        ("iter-001", 30),
        ("iter-002", 1),
    ]
