import json
from pathlib import Path
from typing import Any

import pytest

from rloop.report.sections import checkpoint_rows
from rloop.run_directory import Run, Span, estimates, iteration_seconds, phase_seconds, read_run


def test_time_and_tokens_add_up_by_phase(finished_run) -> None:
    budgets = {budget["phase"]: budget for budget in read_run(finished_run).budgets}
    assert list(budgets) == ["explore", "select", "finetune", "evaluate"]
    explore = budgets["explore"]
    # 2 x (110.5 - 20) s of 2 x (90.5 + 0.4 + 21 + 40) = 303.8 s; 40 steps x 4000 tokens
    assert (explore["seconds"], explore["tokens"]) == (181.0, 160_000)
    assert explore["share"] == pytest.approx(181.0 / 303.8)
    assert explore["tokens_per_s"] == 160_000 / 181.0
    assert budgets["evaluate"]["seconds"] == pytest.approx(80.0)
    # 11 measurements (base, 2 x (4 inside RL + 1)) x 31,000 tokens
    assert budgets["evaluate"]["tokens"] == 341_000
    assert budgets["select"]["tokens"] is None
    assert budgets["select"]["tokens_per_s"] is None


def test_an_untimed_run_still_has_its_tokens(build_run) -> None:
    run_dir = build_run()
    (run_dir / "events.jsonl").unlink()
    explore, evaluate = read_run(run_dir).budgets
    assert (explore["tokens"], explore["seconds"], explore["share"]) == (160_000, None, None)
    assert evaluate["tokens_per_s"] is None


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


def averages(run: Run) -> list[dict[str, Any]]:
    return checkpoint_rows(
        run, lambda line: [(name, e) for _, name, e in estimates(line) if name == "avg@8"]
    )


def test_explorations_lie_end_to_end(finished_run) -> None:
    run = read_run(finished_run)
    assert run.spans == [Span(1, 0, 20), Span(2, 20, 40)]
    rows = run.explored("reward_mean")
    assert [(row["x"], row["iteration"], row["step"]) for row in rows][18:22] == [
        (19, 1, 19),
        (20, 1, 20),
        (21, 2, 1),
        (22, 2, 2),
    ]


def test_each_exploration_is_drawn_from_the_policy_it_began_at(finished_run) -> None:
    rows = averages(read_run(finished_run))
    drawn: dict[str, list[tuple[int, str]]] = {}
    for row in rows:
        drawn.setdefault(row["line"], []).append((row["x"], row["policy"]))
    assert drawn["kept"] == [(0, "base"), (20, "iter-001"), (40, "iter-002")]
    assert drawn["RL 1"] == [(0, "base"), *((x, "explored-001") for x in (5, 10, 15, 20))]
    assert drawn["RL 2"] == [(20, "iter-001"), *((x, "explored-002") for x in (25, 30, 35, 40))]


def test_plain_rl_goes_on_with_the_explored_policy(build_run) -> None:
    run_dir = build_run()
    config = json.loads((run_dir / "config.json").read_text())
    (run_dir / "config.json").write_text(json.dumps(config | {"expert": None, "finetune": None}))
    lines = (run_dir / "metrics.jsonl").read_text().splitlines()
    kept = [line for line in lines if '"iter-' not in line]
    (run_dir / "metrics.jsonl").write_text("\n".join(kept) + "\n")
    rows = averages(read_run(run_dir))
    kept = [(row["x"], row["policy"]) for row in rows if row["line"] == "kept"]
    assert kept == [(0, "base"), (20, "explored-001"), (40, "explored-002")]
    assert next(row["policy"] for row in rows if row["line"] == "RL 2") == "explored-001"


def test_an_empty_run_has_an_empty_axis(build_run) -> None:
    run_dir = build_run()
    (run_dir / "metrics.jsonl").write_text("")
    run = read_run(run_dir)
    assert (run.spans, run.num_steps, run.explored("reward_mean")) == ([], 0, [])


def test_the_kind_of_a_policy_is_what_the_log_says_and_for_old_logs_its_name() -> None:
    run = Run(directory=Path("run"))
    assert run.kind({"policy": "explored-001", "policy_kind": "kept"}) == "kept"
    names = ("base", "coldstart", "explored-001", "iter-001", "averaged-001")
    assert [run.kind({"policy": name}) for name in names] == [
        *("base", "coldstart", "explored", "kept", "kept")
    ]


def test_tokens_are_counted_up_to_a_step() -> None:
    rows = [
        {"iteration": i, "phase": "explore", "step": s, "explore/sampled_tokens_count": 10 * i}
        for i in (1, 2)
        for s in (1, 2)
    ]
    run = Run(directory=Path("run"), metrics=rows)
    # two steps of 10 tokens, then one of 20
    assert [run.rl_tokens_until(*place) for place in ((0, 0), (1, 1), (1, 9), (2, 1))] == [
        *(0, 10, 20, 40)
    ]
    assert run.sampled_tokens("explore") == 60
