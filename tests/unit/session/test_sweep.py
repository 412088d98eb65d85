"""A sweep plans before it starts, skips, resumes and starts, and lets one failure be one."""

import json
import multiprocessing
import os
import re
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
from doubles_kill import build_scripted
from doubles_runs import half_right, logged, scripted, toy_recipe, trajectories, watched
from doubles_scripted import At, ScriptedEngine

from rloop.engines.base import Engine, Sampled, SampleRequest
from rloop.errors import ConfigError, EngineError
from rloop.recipe.config import Recipe, SamplingConfig
from rloop.session.sweep import PlannedRun, describe_sweep, plan_sweep, run_sweep

METHODS = "rloop,rl,raft"


@pytest.fixture
def source(tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_text("name: toy\n")
    return path


def plan(tmp_path, methods=METHODS, seeds="2", **changes) -> list[PlannedRun]:
    return plan_sweep(toy_recipe(tmp_path, **changes), methods, seeds, tmp_path / "sweep")


def sweep(runs, source, build=None) -> tuple[int, list[str]]:
    """Run a sweep; return its exit code and the names of the runs that ended in it."""
    finished: list[Path] = []
    code = run_sweep(
        runs,
        source,
        build or scripted(half_right),
        finish=finished.append,
        again="rloop sweep again",
    )
    return code, [path.name for path in finished]


def test_runs_are_planned_seed_by_seed_with_a_name_and_a_directory_each(tmp_path):
    runs = plan(tmp_path, seeds="2", seed=5)
    assert [run.directory.name for run in runs] == [
        *("rloop-seed-5", "rl-seed-5", "raft-seed-5"),
        *("rloop-seed-6", "rl-seed-6", "raft-seed-6"),
    ]
    assert [run.recipe.seed for run in runs] == [5, 5, 5, 6, 6, 6]
    assert runs[1].recipe.name == "toy-rl-seed-5"
    assert runs[1].recipe.explore.steps == 8
    assert {run.state() for run in runs} == {"new"}
    assert not (tmp_path / "sweep").exists()


@pytest.mark.parametrize(
    ("text", "seeds"),
    [("1", [0]), ("3", [0, 1, 2]), ("0,3, 7", [0, 3, 7]), ("4,", [4]), ("0,", [0])],
)
def test_seeds_are_a_count_or_a_list(tmp_path, text, seeds):
    assert [run.seed for run in plan(tmp_path, "rl", text)] == seeds


@pytest.mark.parametrize("text", ["0", "-1", "two", "", "1.5"])
def test_other_seeds_are_refused(tmp_path, text):
    with pytest.raises(ConfigError, match=r"a count such as 3.*got '"):
        plan(tmp_path, "rl", text)


def test_two_methods_that_are_the_same_recipe_are_refused(tmp_path):
    with pytest.raises(ConfigError, match="rloop and no_hardness are the same recipe"):
        plan(tmp_path, "rloop,no_hardness", expert={"max_success_rate": 1.0})


def test_what_a_sweep_costs_is_told_before_it_starts(tmp_path):
    recipe = toy_recipe(tmp_path, explore__refill_rounds=1)
    runs = plan_sweep(recipe, METHODS, "2", tmp_path / "sweep")
    lines, warnings = describe_sweep(recipe, runs)
    assert lines[0] == "6 runs, 0 of them complete: rloop, rl, raft; seeds 0, 1."
    # 2 iterations x 4 steps x 3 prompts x 4 completions = 96, and as many again in refills
    assert "Each samples 192 completions in RL at most" in lines[1]
    assert "explore.refill_rounds=1" in warnings[0]


@pytest.mark.parametrize(("seeds", "is_warned"), [("1", False), ("2", True), ("3", False)])
def test_two_seeds_are_warned_of_before_they_run(tmp_path, seeds, is_warned):
    recipe = toy_recipe(tmp_path)
    _, warnings = describe_sweep(recipe, plan(tmp_path, seeds=seeds))
    assert any(said.startswith("Two seeds") for said in warnings) == is_warned


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> tuple[Path, list[str]]:
    """A folder with a finished sweep of three methods, and the runs it ended."""
    folder = tmp_path_factory.mktemp("finished")
    (folder / "recipe.yaml").write_text("name: toy\n")
    code, names = sweep(plan(folder, seeds="1"), folder / "recipe.yaml")
    assert code == 0
    return folder, names


def test_a_sweep_runs_every_method_under_one_budget(finished):
    folder, names = finished
    runs = plan(folder, seeds="1")
    assert names == [run.directory.name for run in runs]
    assert {run.state() for run in runs} == {"complete"}
    for run in runs:
        (row,) = trajectories(
            run.directory, "select count(*) as n from trajectories where phase = 'explore'"
        )
        assert row["n"] == 2 * 4 * 3 * 4
    ended = json.loads((folder / "sweep/sweep.json").read_text())
    assert ended == {run.directory.name: "complete" for run in runs}


def test_the_same_sweep_again_does_nothing_and_says_so(finished, capsys):
    folder, _ = finished
    code, names = sweep(plan(folder, seeds="1"), folder / "recipe.yaml")
    assert (code, names) == (0, [])
    told = capsys.readouterr()
    assert "Run 3 of 3: raft, seed 0 is complete already" in told.err
    assert told.out == ""


def test_a_directory_with_another_recipe_is_refused_with_the_difference(finished):
    folder, _ = finished
    with pytest.raises(
        ConfigError, match=r"rl-seed-0 holds another recipe: explore.steps: 8 -> 10"
    ):
        plan(folder, "rl", "1", explore__steps=5)


def test_an_interrupted_sweep_says_how_to_go_on_and_ends_as_if_it_had_not_been(
    tmp_path, source, capsys
):
    evaluated: list[At] = []

    def interrupt(at: At) -> None:
        """Press Ctrl-C in the second evaluation of the second run."""
        if at[0] == "evaluate":
            evaluated.append(at)
            # rloop has 5 of 4 problems x 4 samples: the base, two explored, two fine-tuned ones.
            if len(evaluated) == 16 * 6 + 1:
                os.kill(os.getpid(), signal.SIGINT)

    build = watched(interrupt)
    runs = plan(tmp_path, "rloop,rl", "1")
    code, finished = sweep(runs, source, build)
    assert (code, finished) == (130, ["rloop-seed-0"])
    assert [run.state() for run in runs] == ["complete", "begun"]
    assert "stopped after 1 of 2 runs. Continue with: rloop sweep again" in capsys.readouterr().err
    code, finished = sweep(plan(tmp_path, "rloop,rl", "1"), source)
    assert (code, finished) == (0, ["rl-seed-0"])
    assert "rl, seed 0, goes on" in capsys.readouterr().err
    whole = plan_sweep(toy_recipe(tmp_path), "rl", "1", tmp_path / "whole")
    sweep(whole, source)
    assert logged(runs[1].directory) == logged(whole[0].directory)


def test_a_failing_run_is_recorded_and_does_not_stop_the_others(tmp_path, source, capsys):
    def build(recipe: Recipe) -> ScriptedEngine:
        if recipe.name == "toy-rl-seed-0":
            raise EngineError("The engine is out of order.")
        return ScriptedEngine(
            recipe, lambda p, m, u: "no" if "raft" in recipe.name else half_right(p, m, u)
        )

    runs = plan(tmp_path, "rl,raft,rloop", "1")
    code, finished = sweep(runs, source, build)
    assert (code, finished) == (1, ["raft-seed-0", "rloop-seed-0"])
    assert [run.state() for run in runs] == ["new", "begun", "complete"]
    ended = json.loads((tmp_path / "sweep/sweep.json").read_text())
    assert ended["rl-seed-0"] == "The engine is out of order."
    assert "nothing left to learn from" in ended["raft-seed-0"]
    assert "2 of 3 runs failed. To try them again: rloop sweep again" in capsys.readouterr().err


def test_runs_side_by_side_are_those_one_after_another(tmp_path, source, capsys):
    runs = plan(tmp_path, "rloop,rl,raft", "1")
    finished: list[Path] = []
    code = run_sweep(runs, source, build_scripted, finish=finished.append, again="again", jobs=2)
    told = capsys.readouterr().err
    assert code == 0, told
    assert {path.name for path in finished} == {run.directory.name for run in runs}
    assert "Run 3 of 3: raft, seed 0 (" in told
    assert f"goes to its log, such as {tmp_path}/sweep/rloop-seed-0.log" in "".join(
        told.split("\n")
    )
    assert re.search(r"rl-seed-0 ended after [0-9]+:[0-9]{2}\n", told)
    assert "Iteration 1" not in told
    alone = plan_sweep(toy_recipe(tmp_path), "rloop,rl,raft", "1", tmp_path / "alone")
    sweep(alone, source)
    for run, other in zip(runs, alone, strict=True):
        assert logged(run.directory) == logged(other.directory)
        log = run.directory.parent / f"{run.directory.name}.log"
        assert "Iteration 1" in log.read_text()
    ended = json.loads((tmp_path / "sweep/sweep.json").read_text())
    assert ended == {run.directory.name: "complete" for run in runs}


def build_failing(recipe: Recipe) -> Engine:
    """One run of the sweep dies, one says why it cannot go on, one is asked to stop."""
    if "rl-seed-0" in recipe.name:
        os.kill(os.getpid(), signal.SIGKILL)
    if "raft-seed-0" in recipe.name:
        raise EngineError("The engine is out of order.")
    return build_scripted(recipe)


def test_a_run_that_dies_or_fails_side_by_side_is_one(tmp_path, source, capsys):
    runs = plan(tmp_path, "rl,raft,rloop", "1")
    code = run_sweep(runs, source, build_failing, finish=lambda _: None, again="again", jobs=3)
    assert code == 1
    ended = json.loads((tmp_path / "sweep/sweep.json").read_text())
    assert ended["rl-seed-0"].startswith("its process was killed by SIGKILL; ")
    assert ended["raft-seed-0"] == "The engine is out of order."
    assert ended["rloop-seed-0"] == "complete"
    assert "2 of 3 runs failed. To try them again: again" in capsys.readouterr().err


class Asking(ScriptedEngine):
    """The user presses Ctrl-C once when this run samples, which takes its time."""

    def sample(
        self, requests: Sequence[SampleRequest], settings: SamplingConfig
    ) -> Iterator[tuple[int, Sampled]]:
        os.kill(os.getppid(), signal.SIGINT)
        time.sleep(1)
        yield from super().sample(requests, settings)


def build_asking(recipe: Recipe) -> Engine:
    return Asking(recipe, half_right)


def test_ctrl_c_stops_all_that_run_and_the_sweep_goes_on_from_there(tmp_path, source, capsys):
    runs = plan(tmp_path, "rloop,rl,raft", "1")
    assert run_sweep(runs[:1], source, build_scripted, finish=lambda _: None, again="") == 0
    code = run_sweep(runs, source, build_asking, finish=lambda _: None, again="again", jobs=2)
    told = capsys.readouterr().err
    assert code == 130
    assert "The sweep stopped after 1 of 3 runs. Continue with: again" in told
    assert "Stopping the runs after their steps; press Ctrl-C again" in told
    assert any(
        "Stopping after this step" in log.read_text() for log in (tmp_path / "sweep").glob("*.log")
    )
    assert run_sweep(runs, source, build_scripted, finish=lambda _: None, again="", jobs=2) == 0
    assert {run.state() for run in runs} == {"complete"}


def test_a_directory_of_something_else_is_refused(tmp_path):
    (tmp_path / "sweep/rl-seed-0").mkdir(parents=True)
    (tmp_path / "sweep/rl-seed-0/notes.txt").write_text("mine")
    with pytest.raises(ConfigError, match=r"rl-seed-0 is not empty.*--out"):
        plan(tmp_path, "rl", "1")


class Waiting(ScriptedEngine):
    """Samples for as long as the test wants."""

    def sample(
        self, requests: Sequence[SampleRequest], settings: SamplingConfig
    ) -> Iterator[tuple[int, Sampled]]:
        for found in super().sample(requests, settings):
            time.sleep(0.05)
            yield found


def build_waiting(recipe: Recipe) -> Engine:
    return Waiting(recipe, half_right)


def sweep_until_killed(folder: Path) -> None:
    runs = plan_sweep(toy_recipe(folder), "rl,rloop", "1", folder / "sweep")
    run_sweep(runs, folder / "recipe.yaml", build_waiting, finish=lambda _: None, again="", jobs=2)


def test_a_killed_sweep_leaves_no_run_behind(tmp_path):
    parent = multiprocessing.get_context("spawn").Process(
        target=sweep_until_killed, args=(tmp_path,)
    )
    (tmp_path / "recipe.yaml").write_text("name: toy\n")
    parent.start()
    locks = [tmp_path / "sweep" / f"{name}-seed-0" / ".lock" for name in ("rl", "rloop")]
    wait_until(lambda: all(lock.exists() and lock.read_text() for lock in locks))
    parent.kill()
    parent.join()
    wait_until(lambda: not any(is_alive(int(lock.read_text())) for lock in locks))
    logs = "".join(log.read_text() for log in (tmp_path / "sweep").glob("*.log"))
    assert "Stopping after this step" in logs


def wait_until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end, "nothing happened for a minute"
        time.sleep(0.1)


def is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
