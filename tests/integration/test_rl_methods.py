"""Replay, averaging and early stopping over a scripted engine: samples, policies, resumption."""

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from doubles_runs import (
    BuildEngine,
    begin,
    half_right,
    scripted,
    toy_recipe,
    trajectories,
    with_mixed_groups,
)
from doubles_scripted import Handler, ScriptedEngine
from safetensors.torch import load_file

from rloop.engines.base import Engine, ExploreStep, Verify
from rloop.engines.registry import build_engine
from rloop.evaluation.checkpoints import read_checkpoints
from rloop.loop.replayed import read_successes
from rloop.loop.session import resume
from rloop.loop.state import Manifest
from rloop.observe.run_log import read_metrics
from rloop.recipe.config import Recipe
from rloop.recipe.methods import METHODS
from rloop.report.compare_runs import read_compared
from rloop.store.trajectories import TrajectoryStore
from rloop.types import Group, Problem

COMPLETIONS = 2 * 4 * 3 * 4
"""What every method samples in RL: iterations x steps x prompts x group."""


def forgets(problem: Problem, member: int, updates: int) -> str:
    """Write ever fewer right answers to held-out problems, the same to those of training."""
    if problem.problem_id.startswith("sums/"):
        return half_right(problem, member, updates)
    return problem.answer if member < 4 - updates else "no idea"


HANDLERS: dict[str, Handler] = {
    "replay": half_right,
    "averaging": half_right,
    "early_stop": forgets,
}


def recipe_of(method: str, folder: Path) -> Recipe:
    changes: dict[str, Any] = {"evaluate__every": 2, "explore__checkpoint_every": 2}
    if method == "early_stop":  # RLoop; what an exploration leaves goes to further iterations
        changes |= {"explore__early_stop": {"pass_at_k_falls": 1}, "evaluate__k": [1]}
        changes |= {"iterations": 8, "explore__steps": 8, "explore__total_steps": 8}
        return toy_recipe(folder, **changes | {"evaluate__every": 1})
    return METHODS[method].of(toy_recipe(folder, **changes))


@pytest.fixture(scope="module", params=list(HANDLERS))
def whole(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A method's name and a run of it that nothing disturbed."""
    folder = tmp_path_factory.mktemp(request.param)
    code, run_dir = begin(
        recipe_of(request.param, folder), folder, scripted(HANDLERS[request.param])
    )
    assert code == 0
    return request.param, run_dir


def rows(run_dir: Path) -> list[dict[str, Any]]:
    order = "iteration, phase, step, policy, problem_id, member"
    return trajectories(run_dir, f"select * exclude (run) from trajectories order by {order}")


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_method_samples_the_budget_and_ends_complete(whole):
    method, run_dir = whole
    assert sum(row["phase"] == "explore" for row in rows(run_dir)) == COMPLETIONS
    compared, why = read_compared(run_dir)
    assert compared is not None, why
    assert compared.method == METHODS["rloop" if method == "early_stop" else method].title
    assert compared.run.total("explore", "trajectories_count") == COMPLETIONS
    final = {"replay": "explored-002", "averaging": "averaged-001", "early_stop": "iter-003"}
    assert compared.tasks["held"].final.policy == final[method]


def test_replay_begins_at_the_base_again_and_joins_two_successes_to_each_group(
    tmp_path: Path,
):
    started: list[tuple[int, str, int]] = []

    class Noting(ScriptedEngine):
        def explore(self, *args: Any, **kwargs: Any) -> Iterator[ExploreStep]:
            replayed = kwargs["replayed"] or {}
            started.append((args[2].iteration, args[0].name, len(replayed)))
            return super().explore(*args, **kwargs)

    recipe = recipe_of("replay", tmp_path)
    _, run_dir = begin(recipe, tmp_path, lambda r, v: Noting(r, v, half_right))
    assert started == [(1, "base", 0), (2, "base", 6)]
    explored = [line for line in read_metrics(run_dir) if line["phase"] == "explore"]
    # members 0 and 2 are right, in two texts; both join each of three groups in iteration 2
    assert [line.get("explore/replayed_count") for line in explored] == [None] * 4 + [6] * 4
    assert [line["explore/trajectories_count"] for line in explored] == [12] * 8


def test_stored_successes_are_different_whole_and_of_earlier_iterations(tmp_path: Path):
    def cut(problem: Problem, member: int, updates: int) -> str:
        """Write one answer too long for a completion, two equal ones, one wrong one."""
        del updates
        return [f"{'so ' * 9}{problem.answer}", problem.answer, problem.answer, "no"][member]

    _, run_dir = begin(recipe_of("replay", tmp_path), tmp_path, scripted(cut))
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


def test_the_average_is_of_the_policies_on_the_way(tmp_path: Path):
    recipe = recipe_of("averaging", tmp_path)
    assert (recipe.explore.steps, recipe.explore.average_every) == (8, 2)
    _, run_dir = begin(recipe, tmp_path, scripted())
    # 2, 4, 6 and 8 updates: 5
    averaged = run_dir / "policies/averaged-001/scripted.json"
    assert averaged.read_text() == '{"updates": 5}'
    assert names(run_dir / "policies") == ["averaged-001", "base"]
    measured = [c.label for c in read_checkpoints(TrajectoryStore(run_dir))]
    assert measured == [
        "base", *(f"explored-001@{step}" for step in (2, 4, 6, 8)), "averaged-001"
    ]  # fmt: skip


def test_the_last_policy_counts_where_the_average_ends_between_two(tmp_path: Path):
    recipe = recipe_of("averaging", tmp_path)
    explore = recipe.explore.model_copy(update={"average_every": 3})
    recipe = recipe.model_copy(update={"explore": explore, "keep_explored": True})
    _, run_dir = begin(recipe, tmp_path, scripted())
    # 3, 6 and 8 updates: 17 / 3, rounded down by the scripted engine
    assert (run_dir / "policies/averaged-001/scripted.json").read_text() == '{"updates": 5}'
    steps = [f"explored-001-step-{step:06d}" for step in (3, 6, 8)]
    assert names(run_dir / "policies") == ["averaged-001", "base", *steps]


def test_what_an_exploration_leaves_goes_to_further_iterations(tmp_path: Path):
    _, run_dir = begin(recipe_of("early_stop", tmp_path), tmp_path, scripted(forgets))
    manifest = Manifest(run_dir)
    # 4 - updates of 4 are right: 3 and 2 after the steps from the base; 1 and 0 after those from
    # iter-001, which has two updates; none from iter-002, so that nothing falls any more
    results = [manifest.result(f"{i}/explore") for i in (1, 2, 3)]
    assert [result and result["steps"] for result in results] == [2, 2, 4]
    assert [bool(result and result["early_stop"]) for result in results] == [True, True, False]
    assert manifest.result("4/explore") is None


class Dying(ScriptedEngine):
    """Is killed before it hands over a step, or interrupted while a step's evaluation samples."""

    die_at = interrupt_at = (-1, 0)

    def explore(self, *args: Any, **kwargs: Any) -> Iterator[ExploreStep]:
        for step in super().explore(*args, **kwargs):
            if (args[2].iteration, step.step) == self.die_at:
                raise SystemExit("killed")
            yield step

    def sample(self, *args: Any) -> Iterator[Group]:
        for group in super().sample(*args):
            if (args[3].iteration, args[3].step) == self.interrupt_at:
                os.kill(os.getpid(), signal.SIGINT)
            yield group


def dying(handler: Handler, **when: tuple[int, int]) -> BuildEngine:
    def build(recipe: Recipe, verify: Verify) -> Engine:
        engine = Dying(recipe, verify, handler)
        for name, value in when.items():
            setattr(engine, name, value)
        return engine

    return build


def check_resumed(whole: tuple[str, Path], folder: Path, go: Callable[[Recipe], Any]) -> None:
    """Break a run off by `go`, resume it and compare it with the whole one."""
    method, expected = whole
    go(recipe_of(method, folder))
    run_dir = folder / "run"
    assert resume(run_dir, scripted(HANDLERS[method])) == 0
    assert (run_dir / "metrics.jsonl").read_bytes() == (expected / "metrics.jsonl").read_bytes()
    assert rows(run_dir) == rows(expected)
    assert Manifest(run_dir).phases == Manifest(expected).phases
    assert names(run_dir / "policies") == names(expected / "policies")


KILLED = {
    "replay": [(1, 4), (2, 1), (2, 4)],
    "averaging": [(1, 1), (1, 5), (1, 8)],
    "early_stop": [(1, 2), (2, 1), (3, 4)],
}
INTERRUPTED = {
    "replay": [(1, 4), (2, 2)],
    "averaging": [(1, 4), (1, 0)],  # in the fourth step's evaluation, and in the average's
    "early_stop": [(1, 2), (3, 0)],
}


@pytest.mark.parametrize("number", range(3))
def test_a_killed_and_resumed_run_equals_an_uninterrupted_one(whole, tmp_path, number):
    def go(recipe: Recipe) -> None:
        engine = dying(HANDLERS[whole[0]], die_at=KILLED[whole[0]][number])
        with pytest.raises(SystemExit):
            begin(recipe, tmp_path, engine)

    check_resumed(whole, tmp_path, go)


@pytest.mark.parametrize("number", range(2))
def test_an_interrupt_while_a_policy_is_measured_loses_nothing(whole, tmp_path, number):
    def go(recipe: Recipe) -> None:
        engine = dying(HANDLERS[whole[0]], interrupt_at=INTERRUPTED[whole[0]][number])
        assert begin(recipe, tmp_path, engine)[0] == 130

    check_resumed(whole, tmp_path, go)


def test_a_model_is_averaged_over_its_policies_and_goes_on_as_if_it_had_not_been(tmp_path: Path):
    base = with_mixed_groups(toy_recipe(tmp_path, evaluate__every=4, keep_explored=True))
    for method in ("rl", "averaging"):
        (tmp_path / method).mkdir()
        recipe = METHODS[method].of(base)
        assert begin(recipe, tmp_path / method, build_engine)[0] == 0
    policies = tmp_path / "averaging/run/policies"
    steps = [load_file(policies / f"explored-001-step-00000{n}/model.safetensors") for n in (4, 8)]
    averaged = load_file(policies / "averaged-001/model.safetensors")
    assert averaged.keys() == steps[0].keys()
    for name, weight in averaged.items():
        torch.testing.assert_close(weight, (steps[0][name] + steps[1][name]) / 2)
    plain = load_file(tmp_path / "rl/run/policies/explored-001/model.safetensors")
    assert all(torch.equal(plain[name], weight) for name, weight in steps[1].items())
    assert not any(torch.equal(steps[0][name], weight) for name, weight in plain.items())
