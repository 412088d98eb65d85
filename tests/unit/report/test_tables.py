import json

import pytest

from rloop.evaluation.intervals import Estimate
from rloop.report.conclusions import headline
from rloop.report.tables import task_tables, verdict
from rloop.run_directory import read_run


@pytest.mark.parametrize(
    ("low", "high", "said"),
    [(0.01, 0.2, "gain"), (-0.2, -0.01, "loss"), (-0.1, 0.1, "unclear"), (0.0, 0.1, "unclear")],
)
def test_a_difference_counts_when_its_interval_excludes_zero(low, high, said: str) -> None:
    assert verdict(Estimate(value=(low + high) / 2, low=low, high=high)) == said
    assert verdict(None) == "unclear"


def test_the_table_has_each_policy_once_with_its_last_measurement(finished_run) -> None:
    (table,) = task_tables(read_run(finished_run))
    policies = [row.policy for row in table.rows]
    assert policies == ["base", "explored-001", "iter-001", "explored-002", "iter-002"]
    assert table.rows[1].note == "after 20 RL steps, discarded"
    assert table.metrics == ("avg@8", "pass@8")  # pass@1 equals avg@8
    assert (table.num_problems, table.num_samples) == (128, 8)
    assert table.outcome is table.rows[-1]


def test_iterations_after_a_cold_start_are_compared_with_it(build_run) -> None:
    run_dir = build_run()
    lines = (run_dir / "metrics.jsonl").read_text().splitlines()
    coldstart = json.loads(lines[0]) | {"policy": "coldstart", "evaluate/sums/avg@8": 0.25}
    lines.insert(1, json.dumps(coldstart))
    (run_dir / "metrics.jsonl").write_text("\n".join(lines) + "\n")
    (table,) = task_tables(read_run(run_dir))
    assert table.reference == "coldstart"
    assert headline(table, 0.95)[0].startswith("avg@8 rose from 25.0 % ")


def test_a_task_name_may_hold_slashes(build_run) -> None:
    run_dir = build_run()
    metrics = run_dir / "metrics.jsonl"
    metrics.write_text(metrics.read_text().replace("/sums/", "/org/sums/"))
    assert [table.task for table in task_tables(read_run(run_dir))] == ["org/sums"]


def test_without_intervals_there_is_a_value_and_no_claim(build_run) -> None:
    run_dir = build_run()
    rows = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    bare = [
        {key: value for key, value in row.items() if not key.endswith(("_low", "_high", "_diff"))}
        for row in rows
    ]
    (run_dir / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in bare))
    (table,) = task_tables(read_run(run_dir))
    assert headline(table, 0.95)[0].endswith("no paired difference was recorded.")
