"""Exploration ends when held-out pass@k has fallen often enough in a row, even if it was killed."""

from pathlib import Path
from typing import Any

import pytest
from doubles_runs import begin, half_right, killed_at, logged, scripted, toy_recipe, watched

from rloop.loop.manifest import Manifest
from rloop.observe.run_log import read_metrics
from rloop.recipe.config import Recipe
from rloop.session.process import resume
from rloop.types import Problem

RIGHT = [2, 3, 2, 3, 2, 1, 1, 1]
"""Of 4 samples after each step so many are right: pass@1 falls after steps 3, 5 and 6."""


def forgets(problem: Problem, member: int, updates: int) -> str:
    if problem.problem_id.startswith("sums/"):
        return half_right(problem, member, updates)
    return problem.answer if member < RIGHT[updates - 1] else "no idea"


def early_recipe(folder: Path) -> Recipe:
    changes: dict[str, Any] = {
        "iterations": 1,
        "explore__steps": 7,
        "evaluate__every": 1,
        "evaluate__k": [1],
        "explore__early_stop": {"pass_at_k_falls": 2},
    }
    return toy_recipe(folder, **changes)


def held_out(run_dir: Path) -> list[float]:
    return [
        line["evaluate/held/pass@1"]
        for line in read_metrics(run_dir)
        if line["phase"] == "evaluate" and line["policy"] == "explored-001"
    ]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole")
    code, run_dir = begin(early_recipe(folder), folder, scripted(forgets))
    assert code == 0
    return run_dir


def test_two_falls_in_a_row_end_the_exploration_and_not_the_run(whole: Path):
    assert held_out(whole) == [0.5, 0.75, 0.5, 0.75, 0.5, 0.25]
    explored = Manifest(whole).result("1/explore")
    assert explored is not None
    assert explored["steps"] == 6
    assert explored["early_stop"] == "held-out pass@k fell 2 evaluations in a row, now 0.250"
    assert Manifest(whole).result("1/evaluate/iter-001") is not None


@pytest.mark.parametrize("die_at", range(1, 7))
def test_it_ends_at_the_same_step_wherever_the_run_was_killed(
    whole: Path, tmp_path: Path, die_at: int
):
    dying = watched(killed_at("explore", 1, die_at), forgets)
    with pytest.raises(SystemExit):
        begin(early_recipe(tmp_path), tmp_path, dying)
    assert resume(tmp_path / "run", scripted(forgets)) == 0
    assert logged(tmp_path / "run") == logged(whole)
    assert Manifest(tmp_path / "run").result("1/explore") == Manifest(whole).result("1/explore")
