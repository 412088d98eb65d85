"""Where a run stands, from its recipe, manifest and logs."""

import fcntl
import time
from pathlib import Path
from typing import Any

import pytest

from rloop.run_directory import Run
from rloop.view.progress import State, is_locked, run_phases, where


def record(phases: dict[str, Any], metrics=(), events=(), **config: Any) -> Run:
    recipe = {
        "iterations": 2,
        "explore": {"steps": 4},
        "finetune": {"epochs": 3, "batch_size": 4},
        "coldstart": None,
        "policy": {"path": "runs/x/policies/iter-001"},
    }
    return Run(
        directory=Path("run"),
        config=recipe | config,
        manifest={"phases": phases},
        metrics=list(metrics),
        events=list(events),
    )


def line(step: int, seconds: float = 2.0) -> dict[str, Any]:
    place = {"iteration": 1, "phase": "explore", "step": step, "policy": "explored-001"}
    return place | {"explore/step_s": seconds, "explore/sampled_tokens_count": 50}


def test_the_phases_of_a_recipe_in_their_order():
    assert record({}, iterations=1).expected_phases == [
        *("0/evaluate/base", "1/explore", "1/select", "1/finetune", "1/evaluate/iter-001"),
    ]
    assert record({}, iterations=1, finetune=None, coldstart={"epochs": 1}).expected_phases == [
        *("0/evaluate/base", "0/coldstart", "0/evaluate/coldstart", "1/explore"),
    ]
    alone = record({"0/evaluation": {}})
    assert alone.expected_phases == ["0/evaluate/iter-001"]


def test_a_run_is_complete_with_its_last_phase():
    assert not record({"2/finetune": {}}).is_complete
    assert record({"2/evaluate/iter-002": {}}).is_complete
    assert record({"1/explore": {}}, finetune=None, iterations=1).is_complete
    assert not record({}, explore=None).is_complete


def test_the_first_phase_that_is_not_done_is_the_one_now():
    found = run_phases(record({"0/evaluate/base": {}}, [line(1)]), is_running=True)
    assert [phase.status for phase in found[:3]] == ["done", "now", "to come"]
    stopped = run_phases(record({"0/evaluate/base": {}}, [line(1)]), is_running=False)
    assert {phase.status for phase in stopped[1:]} == {"to come"}


def test_the_time_left_is_the_median_step_times_the_steps_to_come():
    steps = [line(1, 90.0), line(2, 2.0), line(3, 4.0)]
    (_, now, *_) = run_phases(record({"0/evaluate/base": {}}, steps), is_running=True)
    # The median of 90, 2 and 4 is 4; one step of four is to come.
    assert (now.step, now.num_steps, now.left_s, now.tokens) == (3, 4, 4.0, 150)
    assert now.seconds == 96.0
    few = run_phases(record({"0/evaluate/base": {}}, steps[:2]), is_running=True)
    assert few[1].left_s is None


def test_fine_tuning_has_as_many_updates_as_its_examples_make():
    done = {"1/select": {"kept_count": 9}, "1/explore": {"steps": 2}}
    found = {p.name: p for p in run_phases(record(done), is_running=False) if p.iteration == 1}
    # 9 examples in batches of 4 are 3 updates an epoch, 3 epochs; RL ended early after 2 steps.
    assert found["finetune"].num_steps == 9
    assert found["explore"].num_steps == 2


def test_an_evaluation_inside_rl_is_not_the_one_of_the_policy_kept():
    events = [
        {"name": "evaluate", "iteration": 1, "phase": "evaluate", "step": 2, "start": 10.0,
         "seconds": 5.0},
        {"name": "explore", "iteration": 1, "phase": "explore", "step": 0, "start": 0.0,
         "seconds": 30.0},
        {"name": "evaluate", "iteration": 1, "phase": "evaluate", "step": 0, "start": 40.0,
         "seconds": 7.0},
    ]  # fmt: skip
    done = {"1/explore": {"steps": 4}, "1/evaluate/iter-001": {}}
    found = {p.name: p.seconds for p in run_phases(record(done, (), events), is_running=False)
             if p.iteration == 1}  # fmt: skip
    # Of the exploration's 30 s, 5 went into the evaluation inside it.
    assert (found["explore"], found["evaluate/iter-001"]) == (25.0, 7.0)


def test_the_summary_says_where_and_how_far():
    assert where(run_phases(record({"0/evaluate/base": {}}, [line(3)]), is_running=True)) == (
        *("iteration 1, explore, step 3 of 4", 3, 8),
    )
    assert where(run_phases(record({}, explore=None), is_running=True)) == ("", 0, 0)


@pytest.mark.parametrize(
    ("age_s", "said"),
    [(0.2, "just now"), (59, "59 s ago"), (3599, "59 min ago"), (2e5, "2 days ago")],
)
def test_an_age_is_told_in_its_largest_unit(age_s, said):
    assert State("running", time.time() - age_s).ago == said


@pytest.mark.skipif(not Path("/proc/locks").exists(), reason="the kernel does not list its locks")
def test_a_lock_that_is_held_is_seen_without_being_touched(tmp_path):
    path = tmp_path / ".lock"
    with path.open("w") as file:
        assert not is_locked(path)
        fcntl.flock(file, fcntl.LOCK_EX)
        assert is_locked(path)
    assert not is_locked(path)
    assert not is_locked(tmp_path / "none")
