"""Resumption over a scripted engine: what is skipped, redone, kept and refused; the lock."""

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

import pytest
from doubles_runs import (
    BuildEngine,
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
from doubles_scripted import At, ScriptedEngine, WatchedEngine

from rloop.algo.objective import Objective
from rloop.engines.base import Engine, SampleRequest, TrainingSequence
from rloop.errors import ConfigError, EngineError, StoreError
from rloop.loop.interrupt import ONE_S
from rloop.loop.manifest import Manifest, RunLock
from rloop.recipe.config import Recipe, SamplingConfig
from rloop.report.page import write_report
from rloop.session.process import resume
from rloop.session.resume import plan
from rloop.store.trajectories import TrajectoryStore
from rloop.types import PolicyRef, Problem

TUNED = {"epochs": 5, "batch_size": 16, "optimizer": {"learning_rate": 1e-3}}
"""Five updates: an epoch of at most 12 examples is one."""


class Counting(ScriptedEngine):
    """Tells each update of a fine-tuning: the policy that it began from, and its number."""

    def __init__(self, recipe: Recipe, on_update: Callable[[str, int], None]) -> None:
        super().__init__(recipe, half_right)
        self._on_update = on_update
        self._began_from = ""

    def load(self, policy: PolicyRef) -> None:
        super().load(policy)
        self._began_from = policy.name

    def update(
        self, sequences: Sequence[TrainingSequence], objective: Objective, *, learning_rate: float
    ) -> dict[str, float]:
        metrics = super().update(sequences, objective, learning_rate=learning_rate)
        if objective.loss == "sft":
            self._on_update(self._began_from, self.num_trained)
        return metrics


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

    class Surer(WatchedEngine):
        """Its entropy falls with the second update."""

        def update(self, *args: Any, **kwargs: Any) -> dict[str, float]:
            metrics = super().update(*args, **kwargs)
            # loss_mean is 1 / updates with examples and completions of weight 1.
            return metrics | {"entropy_mean": 2.0 if metrics["loss_mean"] == 1.0 else 0.5}

    def forgets(problem: Problem, member: int, updates: int) -> str:
        """Get worse with the second update."""
        return half_right(problem, member, 0) if updates < 2 or member == 0 else "no idea"

    def building(watch: Callable[[At], None]) -> BuildEngine:
        return lambda recipe: Surer(recipe, forgets, watch)

    build = building(lambda _: None)
    _, expected = begin(recipe, whole, build)
    code, run_dir = begin(recipe, torn, building(interrupted_at("evaluate", 1, 2)))
    assert code == 130
    assert resume(run_dir, build) == 0
    assert logged(run_dir) == logged(expected)
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

    def count(began_from: str, number: int) -> None:
        """Count the phase's updates; in the third of them the user presses Ctrl-C, once."""
        if began_from == {"coldstart": "base", "finetune": "coldstart"}[phase]:
            done.append(number)
            if len(done) == 3:
                os.kill(os.getpid(), signal.SIGINT)

    def counting(recipe: Recipe) -> Engine:
        return Counting(recipe, count)

    _, expected = begin(recipe, whole, scripted())
    code, run_dir = begin(recipe, torn, counting)
    assert code == 130
    assert [path.name[-6:] for path in (run_dir / "state").iterdir()] == ["000003"]
    assert resume(run_dir, counting) == 0
    assert done == [1, 2, 3, 4, 5]
    assert logged(run_dir) == logged(expected)
    assert not (run_dir / "state").exists()


def test_a_fine_tuning_that_was_killed_goes_on_after_its_last_saved_point(tmp_path: Path):
    recipe = toy_recipe(tmp_path, iterations=1, finetune={**TUNED, "checkpoint_every": 2})
    done: list[int] = []

    def count(_: str, number: int) -> None:
        if len(done) == 3:
            done.append(0)
            raise SystemExit("killed")
        done.append(number)

    def counting(recipe: Recipe) -> Engine:
        return Counting(recipe, count)

    with pytest.raises(SystemExit):
        begin(recipe, tmp_path, counting)
    assert resume(tmp_path / "run", counting) == 0
    assert done == [1, 2, 3, 0, 3, 4, 5]


def test_resume_says_what_it_skips_and_what_it_redoes(tmp_path: Path, capsys: Any):
    recipe = toy_recipe(tmp_path, explore__checkpoint_every=2)

    with pytest.raises(SystemExit):
        begin(recipe, tmp_path, watched(killed_at("explore", 2, 4)))
    capsys.readouterr()
    assert resume(tmp_path / "run", scripted()) == 0
    said = " ".join(capsys.readouterr().err.split())
    assert (
        "Skipping what is complete: iteration 0 (prepare, problems, evaluate base), iteration 1 "
        "(explore, select, finetune, evaluate iter-001). "
        "Continuing with explore of iteration 2 after step 2. "
        "Redoing step 3: the saved point at step 2 does not cover it. What was sampled is "
        "stored and not sampled again."
    ) in said


class Away(ScriptedEngine):
    """Loses its server: in the number-th update, or after the number-th completion."""

    def __init__(self, recipe: Recipe, *, update: int = 0, completion: int = 0) -> None:
        super().__init__(recipe, half_right)
        self._update, self._completion = update, completion
        self.sampled: list[SampleRequest] = []

    def sample(self, requests: Sequence[SampleRequest], settings: SamplingConfig) -> Any:
        for index, found in super().sample(requests, settings):
            self.sampled.append(requests[index])
            yield index, found
            if len(self.sampled) == self._completion:
                raise EngineError("The server is away.")

    def update(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        metrics = super().update(*args, **kwargs)
        if self.num_trained == self._update:
            raise EngineError("The server is away.")
        return metrics


# 16 completions of the base, 12 a step; the saved point is at step 2. The 50th completion is in the
# last group of step 3, of which half is lost. Steps 3 and 4 are whole when step 4's update fails.
@pytest.mark.parametrize(("lost", "again"), [({"update": 4}, 0), ({"completion": 50}, 2)])
def test_what_was_sampled_before_an_engine_failed_is_not_sampled_again(
    tmp_path: Path, lost: dict[str, int], again: int
):
    whole, torn = tmp_path / "whole", tmp_path / "torn"
    whole.mkdir()
    torn.mkdir()
    recipe = toy_recipe(tmp_path, iterations=1)
    engines: list[Away] = []

    def building(**lost: int) -> BuildEngine:
        def build(recipe: Recipe) -> Away:
            engines.append(Away(recipe, **lost))
            return engines[-1]

        return build

    _, expected = begin(recipe, whole, building())
    with pytest.raises(EngineError, match="rloop resume"):
        begin(recipe, torn, building(**lost))
    run_dir = torn / "run"
    assert resume(run_dir, building()) == 0
    undisturbed, before, after = (Counter(engine.sampled) for engine in engines)
    assert undisturbed <= before + after
    assert (before + after - undisturbed).total() == again
    assert logged(run_dir) == logged(expected)
    sql = "select * exclude (run) from trajectories order by iteration, phase, step, policy, "
    sql += "problem_id, member"
    assert trajectories(run_dir, sql) == trajectories(expected, sql)


@pytest.mark.parametrize(
    ("point", "steps", "expected"),
    [
        ("1/explore 0", 0, ["explore of iteration 1"]),
        ("1/explore 0", 2, ["explore", "Redoing steps 1 to 2: there is no saved point yet."]),
        ("1/explore 6", 9, ["after step 6", "Redoing steps 7 to 9: the saved point at step 6 do"]),
        ("2/finetune 0", 0, ["finetune of iteration 2"]),
        ("2/finetune 3", 0, ["finetune of iteration 2 after update 3."]),
        ("1/evaluate/iter-001 0", 0, ["evaluate iter-001 of iteration 1; stored"]),
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
    assert "`--set iterations=N`" in capsys.readouterr().err


def test_an_interrupt_before_the_first_phase_does_not_say_that_something_was_saved(
    tmp_path: Path, capsys: Any
):
    class Interrupting(ScriptedEngine):
        """The user presses Ctrl-C twice while the model is loaded."""

        def __init__(self, *args: Any) -> None:
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(ONE_S + 0.1)  # signals closer together are one Ctrl-C
            os.kill(os.getpid(), signal.SIGINT)
            super().__init__(*args)

    def interrupting(recipe: Recipe) -> Engine:
        return Interrupting(recipe, half_right)

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


def test_the_lock_of_a_killed_process_is_stale_whatever_it_says(tmp_path: Path):
    holds = "from rloop.loop.manifest import RunLock\nfrom pathlib import Path\n"
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
    read_at: list[At] = []

    def read(at: At) -> None:
        """Read the run that is under way, as `rloop report` and `rloop store sql` do."""
        if at != ("evaluate", 1, 0) or read_at:
            return
        read_at.append(at)
        sql = "select count(*) as n from trajectories where phase = 'explore'"
        assert trajectories(tmp_path / "run", sql) == [{"n": 48}]
        assert write_report(tmp_path / "run").exists()
        with pytest.raises(StoreError, match="in use by process"):
            resume(tmp_path / "run", scripted())

    assert begin(toy_recipe(tmp_path, iterations=1), tmp_path, watched(read))[0] == 0
    assert read_at


def test_a_start_beside_a_users_own_files_writes_nothing(tmp_path: Path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "recipe.yaml").write_text("# mine")
    with pytest.raises(ConfigError, match="is not empty"):
        begin(toy_recipe(tmp_path), tmp_path, scripted())
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["recipe.yaml"]
