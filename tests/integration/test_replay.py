"""RL that replays stored successes, over a scripted engine: samples, policies, resumption."""

from pathlib import Path
from typing import Any

import pytest
from doubles_runs import (
    begin,
    half_right,
    interrupted_at,
    killed_at,
    logged,
    scripted,
    toy_recipe,
    trajectories,
    watched,
)
from doubles_scripted import ScriptedEngine

from rloop.engines.base import Engine
from rloop.loop.manifest import Manifest
from rloop.loop.select import read_successes
from rloop.recipe.config import Recipe
from rloop.recipe.methods import METHODS
from rloop.report.compare_runs import read_compared
from rloop.session.process import resume
from rloop.store.trajectories import TrajectoryStore
from rloop.types import PolicyRef, Problem

COMPLETIONS = 2 * 4 * 3 * 4
"""What every method samples in RL: iterations x steps x prompts x group."""


def replaying(folder: Path) -> Recipe:
    changes: dict[str, Any] = {"evaluate__every": 2, "explore__checkpoint_every": 2}
    return METHODS["replay"].of(toy_recipe(folder, **changes))


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nothing disturbed."""
    folder = tmp_path_factory.mktemp("whole")
    code, run_dir = begin(replaying(folder), folder, scripted())
    assert code == 0
    return run_dir


def rows(run_dir: Path) -> list[dict[str, Any]]:
    order = "iteration, phase, step, policy, problem_id, member"
    return trajectories(run_dir, f"select * exclude (run) from trajectories order by {order}")


def test_replay_samples_the_budget_and_ends_complete(whole: Path):
    assert sum(row["phase"] == "explore" for row in rows(whole)) == COMPLETIONS
    compared, why = read_compared(whole)
    assert compared is not None, why
    assert compared.method == METHODS["replay"].title
    assert compared.run.total("explore", "trajectories_count") == COMPLETIONS
    assert compared.tasks["held"].final.policy == "explored-002"


def test_replay_begins_at_the_base_again_and_joins_two_successes_to_each_group(tmp_path: Path):
    loaded: list[str] = []

    class Noting(ScriptedEngine):
        def load(self, policy: PolicyRef) -> None:
            super().load(policy)
            loaded.append(policy.name)

    def build(recipe: Recipe) -> Engine:
        return Noting(recipe, half_right)

    _, run_dir = begin(replaying(tmp_path), tmp_path, build)
    assert loaded == ["base"] * len(loaded)
    explored = [line for line in logged(run_dir) if line["phase"] == "explore"]
    # members 0 and 2 are right, in two texts; both join each of three groups in iteration 2
    assert [line["explore/replayed_count"] for line in explored] == [0] * 4 + [6] * 4
    assert [line["explore/trajectories_count"] for line in explored] == [12] * 8


def test_stored_successes_are_different_whole_and_of_earlier_iterations(tmp_path: Path):
    def cut(problem: Problem, member: int, updates: int) -> str:
        """Write one answer too long for a completion, two equal ones, one wrong one."""
        del updates
        return [f"{'so ' * 9}{problem.answer}", problem.answer, problem.answer, "no"][member]

    _, run_dir = begin(replaying(tmp_path), tmp_path, scripted(cut))
    store = TrajectoryStore(run_dir)
    first = store.rows(1, "explore", 1).to_pylist()[1]
    problem = Problem(
        problem_id=first["problem_id"], task="sums", question="?", answer="1", verifier="numeric"
    )
    found = read_successes(store, [problem], before=2, seed=0)
    assert list(found) == [problem.problem_id]
    (success,) = found[problem.problem_id]
    assert (success.place.iteration, success.place.step, success.member) == (1, 1, 1)
    assert success.completion.completion_ids == tuple(first["completion_ids"])
    assert success.completion.behavior_logprobs == tuple(first["behavior_logprobs"])
    assert (success.reward, success.verdict.kind) == (1.0, "correct")
    assert read_successes(store, [problem], before=1, seed=0) == {}


@pytest.mark.parametrize("killed", [(1, 4), (2, 1), (2, 4)])
def test_a_killed_and_resumed_run_equals_an_uninterrupted_one(
    whole: Path, tmp_path: Path, killed: tuple[int, int]
):
    with pytest.raises(SystemExit):
        begin(replaying(tmp_path), tmp_path, watched(killed_at("explore", *killed)))
    check_resumed(whole, tmp_path / "run")


@pytest.mark.parametrize("interrupted", [(1, 4), (2, 2)])
def test_an_interrupt_while_a_policy_is_measured_loses_nothing(
    whole: Path, tmp_path: Path, interrupted: tuple[int, int]
):
    stops = watched(interrupted_at("evaluate", *interrupted))
    assert begin(replaying(tmp_path), tmp_path, stops)[0] == 130
    check_resumed(whole, tmp_path / "run")


def check_resumed(whole: Path, run_dir: Path) -> None:
    """Resume a run that was broken off and compare it with the whole one."""
    assert resume(run_dir, scripted()) == 0
    assert logged(run_dir) == logged(whole)
    assert rows(run_dir) == rows(whole)
    assert Manifest(run_dir).phases == Manifest(whole).phases
    names = [sorted(path.name for path in (run / "policies").iterdir()) for run in (run_dir, whole)]
    assert names[0] == names[1]
