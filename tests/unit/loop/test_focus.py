"""Where the next iteration's prompts go under `explore.focus: hard`."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from doubles_policies import make_problem
from doubles_records import group_at, place_at
from doubles_runs import begin, scripted, toy_recipe

from rloop.loop.select import focus_weights
from rloop.store.trajectories import TrajectoryStore
from rloop.types import Problem, Verdict


def test_weights_fall_with_the_success_rate(tmp_path: Path):
    def by_problem(problem: Problem, member: int, updates: int) -> str:
        del updates
        number = int(problem.answer)  # answers are 1 .. 6
        right = {1: 4, 2: 0, 3: 1}.get(number, 2)
        return problem.answer if member < right else "no idea"

    recipe = toy_recipe(tmp_path, iterations=1, expert__max_success_rate=1.0)
    _, run_dir = begin(recipe, tmp_path, scripted(by_problem))
    problems = [Problem(**fields(n)) for n in range(6)] + [make_problem(99)]
    found = focus_weights(TrajectoryStore(run_dir), problems, before=2)
    # always right: 0.05 at least; never: 0.25; 1 of 4: 1 - 0.25; never tried: 1
    assert found["sums/train/sum-0"] == 0.05
    assert found["sums/train/sum-1"] == 0.25
    assert found["sums/train/sum-2"] == pytest.approx(0.75)
    assert found["sums/train/sum-3"] == pytest.approx(0.5)
    assert found["toy/train/99"] == 1.0


def test_verdict_errors_do_not_make_a_problem_hard(tmp_path: Path):
    store, place = TrajectoryStore(tmp_path), place_at(1)
    group = group_at(place, completions=[("2", True), ("2", True), ("3", False), ("?", False)])
    error = Verdict(kind="error", reason="no verdict within 5 s")
    members = [*group.trajectories[:3], replace(group.trajectories[3], verdict=error)]
    failed = group_at(place, "sums/train/1", completions=[("?", False)])
    lost = [replace(t, verdict=error) for t in failed.trajectories]
    store.append(place, [replace(group, trajectories=tuple(members))])
    store.append(place, [replace(failed, trajectories=tuple(lost))], part="more")
    problems = [group.problem, failed.problem]
    # 2 of 3 that have a verdict; nothing is known of the other
    assert focus_weights(store, problems, before=2) == {
        "sums/train/0": pytest.approx(1 / 3),
        "sums/train/1": 1.0,
    }


def fields(number: int) -> dict[str, Any]:
    return {
        "problem_id": f"sums/train/sum-{number}",
        "task": "sums",
        "question": f"{number}+1=",
        "answer": str(number + 1),
        "verifier": "numeric",
    }


def test_a_run_with_focus_goes_through(tmp_path: Path):
    code, _ = begin(toy_recipe(tmp_path, explore__focus="hard"), tmp_path, scripted())
    assert code == 0
