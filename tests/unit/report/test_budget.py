from typing import Any

import pytest

from rloop.report.budget import iteration_seconds, phase_budgets, phase_seconds
from rloop.report.run_record import read_run


def test_time_and_tokens_add_up_by_phase(finished_run) -> None:
    budgets = {budget.phase: budget for budget in phase_budgets(read_run(finished_run))}
    assert list(budgets) == ["explore", "select", "finetune", "evaluate"]
    explore = budgets["explore"]
    # 2 x (110.5 - 20) s of 2 x (90.5 + 0.4 + 21 + 40) = 303.8 s; 40 steps x 4000 tokens
    assert (explore.seconds, explore.tokens) == (181.0, 160_000)
    assert explore.share == pytest.approx(181.0 / 303.8)
    assert explore.tokens_per_s == 160_000 / 181.0
    assert budgets["evaluate"].seconds == pytest.approx(80.0)
    # 11 measurements (base, 2 x (4 inside RL + 1)) x 31,000 tokens
    assert budgets["evaluate"].tokens == 341_000
    assert budgets["select"].tokens is None
    assert budgets["select"].tokens_per_s is None


def test_an_untimed_run_still_has_its_tokens(build_run) -> None:
    run_dir = build_run()
    (run_dir / "events.jsonl").unlink()
    explore, evaluate = phase_budgets(read_run(run_dir))
    assert (explore.tokens, explore.seconds, explore.share) == (160_000, None, None)
    assert evaluate.tokens_per_s is None


def test_events_inside_others_of_their_own_phase_are_not_counted_twice() -> None:
    events: list[dict[str, Any]] = [
        {"phase": "explore", "start": 0.0, "seconds": 10.0},
        {"phase": "explore", "start": 0.0, "seconds": 4.0},
        {"phase": "explore", "start": 4.0, "seconds": 6.0},
        {"phase": "select", "start": 10.0, "seconds": 1.0},
        {"name": "started"},
    ]
    assert phase_seconds(events) == {"explore": 10.0, "select": 1.0}


def test_time_is_told_apart_by_iteration(finished_run) -> None:
    rows = iteration_seconds(read_run(finished_run).events)
    found = {(row["iteration"], row["phase"]): row["seconds"] for row in rows}
    # 110.5 s of exploration with an evaluation of 20 s inside
    assert found[2, "explore"] == pytest.approx(90.5)
    assert found[2, "evaluate"] == pytest.approx(40.0)
    assert len(found) == 2 * 4
