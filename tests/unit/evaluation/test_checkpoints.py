from pathlib import Path

import pytest
from doubles_records import group_at, place_at
from doubles_runs import begin, scripted, toy_recipe

from rloop.errors import StoreError
from rloop.evaluation.checkpoints import (
    Checkpoint,
    count_matrix,
    default_ks,
    evenly_spaced,
    pass_curve,
    read_checkpoints,
    solved_matrix,
    spread_checkpoints,
    training_paths,
)
from rloop.observe.run_log import read_metrics
from rloop.store.trajectories import TrajectoryStore
from rloop.types import Problem


def checkpoint(policy: str, step: int = 0, counts=(), *, task: str = "sums", n: int = 4):
    """A policy's counts on problems 0, 1, ...; its iteration is in its name."""
    number = int(policy[-3:]) if policy[-3:].isdigit() else 0
    named = {f"{task}/test/{i}": c for i, c in enumerate(counts)}
    return Checkpoint(
        task=task, policy=policy, iteration=number, step=step, num_samples=n, counts=named
    )


def evaluate(store: TrajectoryStore, policy: str, step: int, groups: dict[str, str]) -> None:
    """Store an evaluation: for each problem a letter a sample, r for right and w for wrong."""
    iteration = int(policy[-3:]) if policy[-3:].isdigit() else 0
    place = place_at(step, iteration=iteration, phase="evaluate", policy=policy)
    made = [
        group_at(place, name, [(f"{i}", letter == "r") for i, letter in enumerate(letters)])
        for name, letters in groups.items()
    ]
    store.append(place, made, part=f"{policy}-sums")


def test_counts_are_those_of_the_stored_samples_in_the_order_of_training(tmp_path: Path):
    store = TrajectoryStore(tmp_path)
    for policy, step in (
        ("iter-001", 0),
        ("explored-001", 10),
        ("explored-001", 9),
        ("coldstart", 0),
        ("iter-002", 0),
        ("explored-002", 5),
        ("base", 0),
    ):
        evaluate(store, policy, step, {"b": "wwww", "a": "rwrw"})
    found = read_checkpoints(store)
    assert [c.label for c in found] == [
        "base",
        "coldstart",
        "explored-001@9",
        "explored-001@10",
        "iter-001",
        "explored-002@5",
        "iter-002",
    ]
    assert found[2] == Checkpoint(
        task="sums",
        policy="explored-001",
        iteration=1,
        step=9,
        num_samples=4,
        counts={"a": 2, "b": 0},
        majority={"a": 0.5, "b": 0.0},  # two right and two wrong answers: a tie
        halves={"a": (2, 0), "b": (0, 0)},  # the members 0 and 2 are right
    )


def test_exploration_is_no_checkpoint(tmp_path: Path):
    store = TrajectoryStore(tmp_path)
    store.append(place_at(1), [group_at(place_at(1))])
    assert read_checkpoints(store) == []


def test_unequal_numbers_of_samples_are_an_error_that_names_the_problems(tmp_path: Path):
    store = TrajectoryStore(tmp_path)
    evaluate(store, "iter-001", 0, {"a": "rw", "b": "rwr", "c": "ww"})
    with pytest.raises(StoreError, match=r"iter-001 .* on sums .*: b has 3 \(1 such\), .* have 2"):
        read_checkpoints(store)


def test_an_evaluation_under_way_is_left_out_until_it_has_its_problems(tmp_path: Path):
    store = TrajectoryStore(tmp_path)
    evaluate(store, "base", 0, {"a": "rw", "b": "rw"})
    evaluate(store, "iter-001", 0, {"a": "rw"})
    assert [c.label for c in read_checkpoints(store)] == ["base"]
    evaluate(store, "iter-001", 0, {"a": "rw", "b": "ww"})
    assert [c.label for c in read_checkpoints(store)] == ["base", "iter-001"]


def test_an_earlier_evaluation_that_lacks_problems_stays_and_narrows_what_is_compared(
    tmp_path: Path,
):
    store = TrajectoryStore(tmp_path)
    evaluate(store, "base", 0, {"a": "rw"})
    evaluate(store, "iter-001", 0, {"a": "ww", "b": "rw"})
    found = read_checkpoints(store)
    problems, counts = count_matrix(found)
    assert (problems, counts.tolist()) == (["a"], [[1], [0]])


def test_the_curve_equals_what_the_run_logged(tmp_path: Path):
    def sometimes(problem: Problem, member: int, updates: int) -> str:
        is_right = (int(problem.answer) + member * (updates + 1)) % 3 == 0
        return problem.answer if is_right else "no idea"

    recipe = toy_recipe(tmp_path, evaluate__every=2, evaluate__k=[1, 2, 4])
    _, run_dir = begin(recipe, tmp_path, scripted(sometimes))
    checkpoints = read_checkpoints(TrajectoryStore(run_dir))
    lines = [line for line in read_metrics(run_dir) if line["phase"] == "evaluate"]
    assert [(c.policy, c.step) for c in checkpoints] == [(x["policy"], x["step"]) for x in lines]
    for found, line in zip(checkpoints, lines, strict=True):
        curve = pass_curve(found, [1, 2, 3, 4], confidence=0.95)
        for k in (1, 2, 4):
            key = f"evaluate/held/pass@{k}"
            logged = [line[key], line[f"{key}_low"], line[f"{key}_high"]]
            assert [curve[k].value, curve[k].low, curve[k].high] == logged
    assert len({tuple(c.counts.values()) for c in checkpoints}) > 1, "all policies answered alike"


def test_a_curve_goes_by_powers_of_two_to_the_number_of_samples():
    assert default_ks(1) == [1]
    assert default_ks(8) == [1, 2, 4, 8]
    assert default_ks(12) == [1, 2, 4, 8, 12]


def test_a_long_run_shows_all_kept_policies_and_evenly_spaced_explored_ones():
    run = [checkpoint("base"), *(checkpoint("explored-001", s) for s in range(10, 510, 10))]
    run += [checkpoint("iter-001"), *(checkpoint("explored-002", s) for s in range(10, 510, 10))]
    run += [checkpoint("iter-002")]
    shown = [run[i].label for i in spread_checkpoints(run, 8)]
    # 3 kept, and 5 of the 100 explored: number 0, 25, 50, 74 and 99
    assert shown == [
        "base",
        "explored-001@10",
        "explored-001@260",
        "iter-001",
        "explored-002@10",
        "explored-002@250",
        "explored-002@500",
        "iter-002",
    ]
    assert spread_checkpoints(run, 2) == [0, len(run) - 1]


def test_evenly_spaced_keeps_the_ends():
    assert evenly_spaced(range(10), 4) == [0, 3, 6, 9]
    assert evenly_spaced([5, 7], 4) == [5, 7]
    assert evenly_spaced([5, 7], 0) == []


def test_paths_begin_at_the_policy_that_was_trained():
    run = [checkpoint("base"), checkpoint("coldstart"), checkpoint("explored-001", 4)]
    run += [checkpoint("iter-001"), checkpoint("explored-002", 4), checkpoint("iter-002")]
    assert {name: [c.label for c in path] for name, path in training_paths(run).items()} == {
        "RL of iteration 1": ["coldstart", "explored-001@4"],
        "RL of iteration 2": ["iter-001", "explored-002@4"],
        "policies kept": ["coldstart", "iter-001", "iter-002"],
    }


def test_rl_that_goes_on_begins_where_it_was():
    run = [checkpoint("base"), checkpoint("explored-001", 2), checkpoint("explored-001", 4)]
    run += [checkpoint("explored-002", 2)]
    assert {name: [c.label for c in path] for name, path in training_paths(run).items()} == {
        "RL of iteration 1": ["base", "explored-001@2", "explored-001@4"],
        "RL of iteration 2": ["explored-001@4", "explored-002@2"],
    }
    restarted = training_paths(run, restarts=True)["RL of iteration 2"]
    assert [c.label for c in restarted] == ["base", "explored-002@2"]


def test_checkpoints_of_different_tasks_or_samples_are_not_compared():
    with pytest.raises(ValueError, match="one task and one number of samples, got a with 4, b wi"):
        solved_matrix([checkpoint("base", task="a"), checkpoint("base", task="b")])
    with pytest.raises(ValueError, match="sums with 4, sums with 8"):
        solved_matrix([checkpoint("base"), checkpoint("iter-001", n=8)])
