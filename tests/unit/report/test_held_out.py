from pathlib import Path
from typing import Any

import pytest
from doubles_records import group_at, place_at

from rloop.errors import StoreError
from rloop.evaluation.checkpoints import Checkpoint
from rloop.evaluation.overfitting import Overfitting
from rloop.report.conclusions import WIDER, forgotten, in_short, overfitting
from rloop.report.held_out import HeldOut, held_out_tasks, last_policies, lost_problems
from rloop.report.sections import matrix_rows, pass_rows
from rloop.run_directory import Run
from rloop.store.trajectories import TrajectoryStore

METRICS = {"evaluate/sums/avg@4": 0.5}


def record_of(policies: list[str], directory: Path = Path("demo"), **config: Any) -> Run:
    lines = [
        {"iteration": 0, "phase": "evaluate", "step": 0, "policy": name} | METRICS
        for name in policies
    ]
    recipe = {"name": "demo", "seed": 0, "finetune": {}} | config
    return Run(directory=directory, config=recipe, metrics=lines)


def checkpoint(policy: str, iteration: int, step: int, *counts: int, n: int = 4) -> Checkpoint:
    return Checkpoint(
        task="sums",
        policy=policy,
        iteration=iteration,
        step=step,
        num_samples=n,
        counts=dict(zip("abcdefghijkl", counts, strict=False)),
        # the first c members are right
        halves={
            name: ((c + 1) // 2, c // 2) for name, c in zip("abcdefghijkl", counts, strict=False)
        },
    )


BASE = checkpoint("base", 0, 0, 3, 1, 0, 0)
INSIDE = checkpoint("explored-001", 1, 2, 4, 0, 2, 0)
LAST = checkpoint("iter-001", 1, 0, 4, 0, 0, 1)


@pytest.fixture
def held() -> HeldOut:
    (found,) = held_out_tasks(record_of(["base"]), [BASE, INSIDE, LAST])
    return found


def test_the_line_is_what_the_loop_goes_on_with(held) -> None:
    assert held.line == (BASE, LAST)
    assert held.outcome is LAST


def test_plain_rl_goes_on_with_the_last_weights_of_each_exploration() -> None:
    later = checkpoint("explored-001", 1, 4, 4, 4, 4, 4)
    (held,) = held_out_tasks(record_of(["base"], finetune=None), [BASE, INSIDE, later])
    assert held.line == (BASE, later)


def test_after_a_cold_start_the_base_is_not_on_the_line() -> None:
    cold = checkpoint("coldstart", 0, 0, 1, 1, 1, 1)
    (held,) = held_out_tasks(record_of(["base", "coldstart"]), [BASE, cold, LAST])
    assert held.line == (cold, LAST)


def test_an_evaluation_by_itself_has_a_curve_and_no_outcome() -> None:
    alone = checkpoint("my-model", 0, 0, 4, 0, 0, 1)
    (held,) = held_out_tasks(record_of(["my-model"]), [alone])
    assert (held.line, held.outcome, forgotten(held)) == ((alone,), None, None)
    assert matrix_rows(held, is_forgetting=True) == []


def test_what_was_forgotten_is_counted_by_hand(held) -> None:
    found = forgotten(held)
    assert found is not None
    # base solved a and b; iter-001 solves a and d, so b is lost and d of {c, d} is new.
    # Halves of two samples, of the base: a in both, b in the first: 3. Of these iter-001 misses b,
    # and so does the base's own second half.
    # Some checkpoint solved each of the four; iter-001 does not solve b and c.
    assert found.answer == "1 of 2 problems"
    assert list(found.sentences) == [
        "Of the 2 problems that base solved, iter-001 leaves 1 unsolved (50.0 %). Part of "
        "this is chance: of what base solves in one half of the samples, iter-001 misses 33.3 % in "
        "the other half, and base itself 33.3 %.",
        "Of the 2 that base did not solve, it solves 1 (50.0 %).",
        "Of all 4 problems, 2 (50.0 %) were solved by some checkpoint of the run, but not by "
        "iter-001.",
    ]


def test_matrices_say_of_how_many(held) -> None:
    known = {(r["a"], r["b"]): r["said"] for r in matrix_rows(held, is_forgetting=True)}
    # explored solved a and c; the base solves a of them
    assert known["explored-001@2", "base"] == "1 of 2"
    assert known["base", "base"] == "0 of 2"
    new = {(r["a"], r["b"]): r["value"] for r in matrix_rows(held, is_forgetting=False)}
    assert new["base", "explored-001@2"] == 0.5  # c of {c, d}


def test_a_checkpoint_that_solved_nothing_has_nothing_to_forget() -> None:
    nothing = checkpoint("base", 0, 0, 0, 0, 0, 0)
    (held,) = held_out_tasks(record_of(["base"]), [nothing, LAST])
    assert [r["value"] for r in matrix_rows(held, is_forgetting=True)][:2] == [None, None]
    found = forgotten(held)
    assert found is not None
    assert found.answer == "Nothing to forget"


def test_pass_curves_go_up_to_n() -> None:
    rows = pass_rows([("ours", BASE)], confidence=0.95)
    # pass@1 = (3 + 1) / 16; pass@2 = (1 + 1 - C(3,2)/C(4,2)) / 4 = 1.5 / 4; pass@4 = 2 / 4
    assert [(row["x"], row["value"]) for row in rows] == [(1, 0.25), (2, 0.375), (4, 0.5)]


def test_lost_problems_come_with_their_counts_and_prompt(tmp_path) -> None:
    store = TrajectoryStore(tmp_path)
    for policy, iteration, right in (("base", 0, True), ("iter-001", 1, False)):
        place = place_at(0, iteration=iteration, phase="evaluate", policy=policy)
        store.append(place, [group_at(place, "it's", (("2", right), ("3", False)))], part=policy)
    checkpoints = [
        Checkpoint(
            task="sums", policy=policy, iteration=i, step=0, num_samples=2, counts={"it's": c}
        )
        for policy, i, c in (("base", 0, 1), ("iter-001", 1, 0))
    ]
    (held,) = held_out_tasks(record_of(["base"]), checkpoints)
    (lost,) = lost_problems(held, store)
    assert lost == {"problem_id": "it's", "prompt": "1+1", "counts": ["1/2", "0/2"]}


def test_overfitting_inside_rl_is_said_though_the_policies_kept_are_whole(tmp_path) -> None:
    full, collapsed = (4,) * 12, (8, 8) + (0,) * 10
    found = [
        checkpoint("base", 0, 0, *full, n=8),
        checkpoint("explored-001", 1, 10, *full, n=8),
        checkpoint("explored-001", 1, 30, *collapsed, n=8),
        checkpoint("iter-001", 1, 0, *full, n=8),
        checkpoint("iter-002", 2, 0, *full, n=8),
    ]
    record = record_of(["base"], tmp_path)
    record.metrics.extend(
        {"iteration": 1, "phase": "explore", "step": step, "explore/reward_mean": step / 40}
        for step in range(1, 31)
    )
    (held,) = held_out_tasks(record, found)
    said = overfitting(record, held, 8)
    assert said is not None
    kept, inside, wider = said.sentences
    assert wider == WIDER
    assert (said.answer, said.kind) == ("Only inside RL", "unclear")
    assert kept.startswith("Policies kept: held-out pass@8 went from 100.0 %")
    # 2 of 12 problems are left: 16.7 %
    assert inside.startswith("RL of iteration 1: held-out pass@8 fell from 100.0 % at step 10")
    assert inside.endswith("the policy overfits from step 10 on.")


def stored_run(folder: Path, problem_id: str = "sums/0") -> Run:
    place = place_at(0, iteration=0, phase="evaluate", policy="base")
    TrajectoryStore(folder).append(place, [group_at(place, problem_id)], part="base")
    return record_of(["base"], folder)


def test_other_runs_are_named_by_their_folder_where_the_names_are_equal(tmp_path) -> None:
    other = stored_run(tmp_path / "other")
    ours = Checkpoint(
        task="sums", policy="x", iteration=0, step=0, num_samples=2, counts={"sums/0": 1}
    )
    tasks = [HeldOut(task="sums", checkpoints=(ours,), line=(ours,), has_reference=False)]
    found = last_policies(record_of(["base"]), tasks, [other])
    assert [(name, c.counts) for name, c in found["sums"]] == [("other", {"sums/0": 1})]
    alone = last_policies(record_of([], name="mine"), tasks, [other])
    assert [name for name, _ in alone["sums"]] == ["demo"]


def test_runs_measured_on_other_problems_are_refused(tmp_path, held) -> None:
    other = stored_run(tmp_path / "other")
    with pytest.raises(StoreError, match=r"sums has 1 problems there and 4 here, 0 of them the"):
        last_policies(record_of(["base"]), [held], [other])
    with pytest.raises(StoreError, match=r"measured on sums, not on nothing"):
        last_policies(record_of(["base"]), [], [other])


def test_no_exploration_is_left_out_in_silence() -> None:
    verdict = Overfitting(kind="holds", k=8, num_problems=9, path=(BASE, LAST), num_steps=9)
    assert in_short([("RL of iteration 2", verdict), ("RL of iteration 1", verdict)]) == [
        "RL of iteration 1, RL of iteration 2: no clear fall."
    ]
