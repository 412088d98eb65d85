"""Resumption over a scripted engine: what is skipped, redone, kept and refused; the lock."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
from doubles_runs import begin, half_right, scripted, toy_recipe, trajectories
from doubles_scripted import ScriptedEngine

from rloop.engines.base import Engine, ExploreStep, FinetuneStep, Verify
from rloop.errors import ConfigError, StoreError
from rloop.loop.resumption import plan
from rloop.loop.session import resume
from rloop.loop.state import Manifest, RunLock
from rloop.recipe.config import Recipe
from rloop.report.page import write_report
from rloop.store.trajectories import TrajectoryStore
from rloop.types import Group, Problem

TUNED = {"epochs": 5, "batch_size": 4, "optimizer": {"learning_rate": 1e-3}}


class Dying(ScriptedEngine):
    """Dies at a step of exploration, once in a while, as a killed process would."""

    def __init__(self, recipe: Recipe, verify: Verify, die_at: tuple[int, int]) -> None:
        super().__init__(recipe, verify, half_right)
        self._die_at = die_at

    def explore(self, *args: Any, **kwargs: Any) -> Iterator[ExploreStep]:
        place = args[2]
        for step in super().explore(*args, **kwargs):
            if (place.iteration, step.step) == self._die_at:
                raise SystemExit("killed")
            yield step


@pytest.mark.parametrize("die_at", [(1, 1), (1, 3), (2, 2), (2, 4)])
def test_a_killed_and_resumed_run_equals_an_uninterrupted_one(
    tmp_path: Path, die_at: tuple[int, int]
):
    whole, torn = tmp_path / "whole", tmp_path / "torn"
    whole.mkdir()
    torn.mkdir()
    recipe = toy_recipe(tmp_path, evaluate__every=2)
    _, expected = begin(recipe, whole, scripted())

    def dying(recipe: Recipe, verify: Verify) -> Engine:
        return Dying(recipe, verify, die_at)

    with pytest.raises(SystemExit):
        begin(recipe, torn, dying)
    assert resume(torn / "run", scripted()) == 0
    assert (torn / "run/metrics.jsonl").read_bytes() == (expected / "metrics.jsonl").read_bytes()
    sql = "select * exclude (run) from trajectories order by iteration, phase, step, policy, "
    sql += "problem_id, member"
    assert trajectories(torn / "run", sql) == trajectories(expected, sql)
    assert Manifest(torn / "run").completed() == Manifest(expected).completed()


def test_an_interrupt_in_the_middle_of_an_evaluation_loses_nothing(tmp_path: Path):
    whole, torn = tmp_path / "whole", tmp_path / "torn"
    whole.mkdir()
    torn.mkdir()
    recipe = toy_recipe(tmp_path, evaluate__every=2, iterations=1)
    _, expected = begin(recipe, whole, scripted())

    class Interrupting(ScriptedEngine):
        """The user presses Ctrl-C while the second step's evaluation samples."""

        def sample(self, *args: Any) -> Iterator[Group]:
            for group in super().sample(*args):
                if (args[3].phase, args[3].step) == ("evaluate", 2):
                    os.kill(os.getpid(), signal.SIGINT)
                yield group

    def interrupting(recipe: Recipe, verify: Verify) -> Engine:
        return Interrupting(recipe, verify, half_right)

    code, run_dir = begin(recipe, torn, interrupting)
    assert code == 130
    assert resume(run_dir, scripted()) == 0
    assert (run_dir / "metrics.jsonl").read_bytes() == (expected / "metrics.jsonl").read_bytes()


@pytest.mark.parametrize(
    "changes",
    [
        {"evaluate__k": [1], "evaluate__every": 1, "explore__early_stop": {"pass_at_k_falls": 1}},
        {"explore__early_stop": {"min_entropy": 1.0, "patience_steps": 1}},
    ],
)
def test_an_interrupt_at_an_early_stop_does_not_undo_it(tmp_path: Path, changes: dict[str, Any]):
    whole, torn = tmp_path / "whole", tmp_path / "torn"
    whole.mkdir()
    torn.mkdir()
    recipe = toy_recipe(tmp_path, iterations=1, **changes)

    def surer(result: ExploreStep) -> ExploreStep:
        entropy = 2.0 if result.step < 2 else 0.5
        return replace(result, metrics={**result.metrics, "entropy_mean": entropy})

    class Forgetting(ScriptedEngine):
        """Gets worse, and surer, with the second update."""

        is_interrupted = False

        def explore(self, *args: Any, **kwargs: Any) -> Iterator[ExploreStep]:
            return map(surer, super().explore(*args, **kwargs))

        def sample(self, *args: Any) -> Iterator[Group]:
            for group in super().sample(*args):
                if self.is_interrupted and (args[3].phase, args[3].step) == ("evaluate", 2):
                    os.kill(os.getpid(), signal.SIGINT)
                yield group

    def forgets(problem: Problem, member: int, updates: int) -> str:
        return half_right(problem, member, 0) if updates < 2 or member == 0 else "no idea"

    def build(recipe: Recipe, verify: Verify) -> Forgetting:
        return Forgetting(recipe, verify, forgets)

    def interrupting(recipe: Recipe, verify: Verify) -> Forgetting:
        engine = build(recipe, verify)
        engine.is_interrupted = True
        return engine

    _, expected = begin(recipe, whole, build)
    code, run_dir = begin(recipe, torn, interrupting)
    assert code == 130
    assert resume(run_dir, build) == 0
    assert (run_dir / "metrics.jsonl").read_bytes() == (expected / "metrics.jsonl").read_bytes()
    result = Manifest(run_dir).result("1/explore")
    assert result == Manifest(expected).result("1/explore")
    assert result is not None
    assert result["steps"] == 2


@pytest.mark.parametrize("phase", ["coldstart", "finetune"])
@pytest.mark.parametrize("checkpoint_every", [100, 2])
def test_a_fine_tuning_goes_on_after_an_interrupt_where_it_stood(
    tmp_path: Path, phase: str, checkpoint_every: int
):
    whole, torn = tmp_path / "whole", tmp_path / "torn"
    whole.mkdir()
    torn.mkdir()
    tuned = {**TUNED, "checkpoint_every": checkpoint_every}
    task = {"source": f"file:{tmp_path / 'train.jsonl'}", "name": "cold", "verifier": "numeric"}
    recipe = toy_recipe(tmp_path, iterations=1, coldstart={"task": task, **tuned}, finetune=tuned)
    done: list[int] = []

    class Counting(ScriptedEngine):
        """Counts the phase's updates; in the third of them the user presses Ctrl-C, once."""

        def fine_tune(self, *args: Any, **kwargs: Any) -> Iterator[FinetuneStep]:
            for update in super().fine_tune(*args, **kwargs):
                if args[2].phase == phase:
                    done.append(update.step)
                    if len(done) == 3:
                        os.kill(os.getpid(), signal.SIGINT)
                yield update

    def counting(recipe: Recipe, verify: Verify) -> Engine:
        return Counting(recipe, verify, half_right)

    _, expected = begin(recipe, whole, scripted())
    code, run_dir = begin(recipe, torn, counting)
    assert code == 130
    assert [path.name[-6:] for path in (run_dir / "state").iterdir()] == ["000003"]
    assert resume(run_dir, counting) == 0
    assert done == [1, 2, 3, 4, 5]
    assert (run_dir / "metrics.jsonl").read_bytes() == (expected / "metrics.jsonl").read_bytes()
    assert not (run_dir / "state").exists()


def test_a_fine_tuning_that_was_killed_goes_on_after_its_last_saved_point(tmp_path: Path):
    recipe = toy_recipe(tmp_path, iterations=1, finetune={**TUNED, "checkpoint_every": 2})
    done: list[int] = []

    class Counting(ScriptedEngine):
        def fine_tune(self, *args: Any, **kwargs: Any) -> Iterator[FinetuneStep]:
            for update in super().fine_tune(*args, **kwargs):
                if len(done) == 3:
                    done.append(0)
                    raise SystemExit("killed")
                done.append(update.step)
                yield update

    def counting(recipe: Recipe, verify: Verify) -> Engine:
        return Counting(recipe, verify, half_right)

    with pytest.raises(SystemExit):
        begin(recipe, tmp_path, counting)
    assert resume(tmp_path / "run", counting) == 0
    assert done == [1, 2, 3, 0, 3, 4, 5]


def test_resume_says_what_it_skips_and_what_it_redoes(tmp_path: Path, capsys: Any):
    recipe = toy_recipe(tmp_path, explore__checkpoint_every=2)

    def dying(recipe: Recipe, verify: Verify) -> Engine:
        return Dying(recipe, verify, (2, 4))

    with pytest.raises(SystemExit):
        begin(recipe, tmp_path, dying)
    capsys.readouterr()
    assert resume(tmp_path / "run", scripted()) == 0
    said = " ".join(capsys.readouterr().err.split())
    assert (
        "Skipping what is complete: iteration 0 (prepare, problems, evaluate base), iteration 1 "
        "(explore, select, finetune, evaluate iter-001). "
        "Going on with explore of iteration 2 after step 2. "
        "Redoing step 3: the saved point at step 2 does not cover it. What was sampled is set "
        "aside in trajectories/.superseded."
    ) in said


@pytest.mark.parametrize(
    ("point", "steps", "expected"),
    [
        ("1/explore 0", 0, ["Beginning explore of iteration 1 again."]),
        ("1/explore 0", 2, ["Beginning", "Redoing steps 1 to 2: there is no saved point yet."]),
        ("1/explore 6", 9, ["after step 6", "Redoing steps 7 to 9: the saved point at step 6 do"]),
        ("2/finetune 0", 0, ["Beginning finetune of iteration 2 again."]),
        ("2/finetune 3", 0, ["Going on with finetune of iteration 2 after update 3."]),
        ("1/evaluate/iter-001 0", 0, ["evaluate iter-001 of iteration 1; problems that are sto"]),
    ],
)
def test_a_plan_of_resumption_is_plain(tmp_path: Path, point: str, steps: int, expected: list[str]):
    key, step = point.split()
    manifest = Manifest(tmp_path)
    manifest.save_point({"key": key, "step": int(step)})

    class Store:
        def count(self, *, iteration: int, phase: str, step: int) -> int:
            return int((iteration, phase) == (1, "explore") and step <= steps)

    complete, *found = plan(manifest, cast("TrajectoryStore", Store()), toy_recipe(tmp_path))
    assert complete == "Skipping what is complete: nothing."
    assert len(found) == len(expected)
    assert all(part in line for part, line in zip(expected, found, strict=True))


def test_a_finished_run_is_resumed_in_no_time_and_changes_nothing(tmp_path: Path, capsys: Any):
    _, run_dir = begin(toy_recipe(tmp_path), tmp_path, scripted())
    before = (run_dir / "metrics.jsonl").read_bytes()
    assert resume(run_dir, scripted(lambda *_: "no idea")) == 0
    assert (run_dir / "metrics.jsonl").read_bytes() == before
    assert "The run is complete; `--set iterations=N` lets it go on." in capsys.readouterr().err


def test_an_interrupt_before_the_first_phase_does_not_say_that_something_was_saved(
    tmp_path: Path, capsys: Any
):
    class Interrupting(ScriptedEngine):
        """The user presses Ctrl-C twice while the model is loaded."""

        def __init__(self, *args: Any) -> None:
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGINT)
            super().__init__(*args)

    def interrupting(recipe: Recipe, verify: Verify) -> Engine:
        return Interrupting(recipe, verify, half_right)

    code, run_dir = begin(toy_recipe(tmp_path), tmp_path, interrupting)
    assert code == 130
    said = " ".join(capsys.readouterr().err.split())
    assert f"Interrupted before a first result. Begin: rloop resume {run_dir}" in said
    assert resume(run_dir, scripted()) == 0


def test_other_problems_under_a_resumed_run_are_refused(tmp_path: Path):
    _, run_dir = begin(toy_recipe(tmp_path), tmp_path, scripted())
    (tmp_path / "train.jsonl").write_text('{"problem": "9+9=", "answer": "18"}\n')
    with pytest.raises(StoreError, match="problems differ"):
        resume(run_dir, scripted())


def test_a_second_process_is_refused(tmp_path: Path):
    lock = RunLock(tmp_path)
    with pytest.raises(StoreError, match="in use by process"):
        RunLock(tmp_path)
    lock.release()
    RunLock(tmp_path).release()


def test_the_lock_of_a_killed_process_is_stale_whatever_it_says(tmp_path: Path):
    holds = "from rloop.loop.state import RunLock\nfrom pathlib import Path\n"
    holds += f"lock = RunLock(Path({str(tmp_path)!r}))\nprint('held', flush=True)\ninput()"
    command = [sys.executable, "-c", holds]
    holder = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    with pytest.raises(StoreError, match=rf"in use by process {holder.pid}\. Wait for it"):
        RunLock(tmp_path)
    holder.kill()
    holder.communicate()
    assert (tmp_path / ".lock").read_text() == str(holder.pid)
    with RunLock(tmp_path):
        assert (tmp_path / ".lock").read_text() == str(os.getpid())


def test_reading_goes_on_beside_a_run(tmp_path: Path):
    class Reading(ScriptedEngine):
        """Reads the run that is under way, as `rloop report` and `rloop store sql` do."""

        def sample(self, *args: Any) -> Iterator[Group]:
            for group in super().sample(*args):
                if args[3].policy == "iter-001":
                    sql = "select count(*) as n from trajectories where phase = 'explore'"
                    assert trajectories(tmp_path / "run", sql) == [{"n": 48}]
                    assert write_report(tmp_path / "run").exists()
                    with pytest.raises(StoreError, match="in use by process"):
                        resume(tmp_path / "run", scripted())
                yield group

    def build(recipe: Recipe, verify: Verify) -> Engine:
        return Reading(recipe, verify, half_right)

    assert begin(toy_recipe(tmp_path, iterations=1), tmp_path, build)[0] == 0


def test_a_start_beside_a_users_own_files_writes_nothing(tmp_path: Path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "recipe.yaml").write_text("# mine")
    with pytest.raises(ConfigError, match="is not empty"):
        begin(toy_recipe(tmp_path), tmp_path, scripted())
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["recipe.yaml"]


def test_resume_without_a_run_says_so(tmp_path: Path):
    with pytest.raises(StoreError, match="holds no run"):
        resume(tmp_path, scripted())
