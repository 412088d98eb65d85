"""A sweep plans before it starts, skips, resumes and starts, and lets one failure be one."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from doubles_runs import logged, scripted, toy_recipe, trajectories

from rloop.errors import ConfigError
from rloop.recipe.config import Recipe
from rloop.recipe.load import load_recipe, resolved_json
from rloop.session.process import start
from rloop.session.sweep import PlannedRun, describe_sweep, plan_sweep, run_sweep

METHODS = "rloop,rl,raft"
RLOOP = (sys.executable, str(Path(__file__).parents[2] / "doubles_sweep.py"))


def plan(tmp_path, methods=METHODS, seeds="2", **changes) -> list[PlannedRun]:
    return plan_sweep(toy_recipe(tmp_path, **changes), methods, seeds, tmp_path / "sweep")


def sweep(tmp_path: Path, methods: str, jobs: int = 1) -> tuple[int, list[PlannedRun]]:
    """Sweep one seed of the toy recipe, its file changed by an override; return code and runs."""
    source, given = tmp_path / "recipe.yaml", ["--set", "expert.max_success_rate=0.9"]
    source.write_text(resolved_json(toy_recipe(tmp_path)))
    recipe = load_recipe(source, given[1:])
    runs = plan_sweep(recipe, methods, "1", tmp_path / "sweep")
    arguments = [str(source), *given]
    return run_sweep(runs, recipe, arguments, again="again", jobs=jobs, rloop=RLOOP), runs


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
def finished(tmp_path_factory) -> tuple[Path, list[PlannedRun]]:
    """A folder with a finished sweep of three methods, two at a time, and its runs."""
    folder = tmp_path_factory.mktemp("finished")
    code, runs = sweep(folder, METHODS, jobs=2)
    assert code == 0
    return folder, runs


def test_a_sweep_runs_every_method_under_one_budget(finished):
    folder, runs = finished
    assert {run.state() for run in runs} == {"complete"}
    for run in runs:
        (row,) = trajectories(
            run.directory, "select count(*) as n from trajectories where phase = 'explore'"
        )
        assert row["n"] == 2 * 4 * 3 * 4
        assert (run.directory / "report.html").exists()
        assert "Iteration 1" in run.log.read_text()
    ended = json.loads((folder / "sweep/sweep.json").read_text())
    assert ended == {run.directory.name: "complete" for run in runs}


def test_a_run_of_a_sweep_is_the_run_of_its_recipe(finished, tmp_path):
    folder, runs = finished
    for run in runs:
        written = json.loads((run.directory / "config.json").read_text())
        assert Recipe.model_validate(written) == run.recipe
    alone = tmp_path / "alone"
    start(folder / "recipe.yaml", runs[1].recipe, alone, scripted())
    assert logged(alone) == logged(runs[1].directory)
    assert (alone / "recipe.yaml").read_text() == (runs[1].directory / "recipe.yaml").read_text()


def test_the_same_sweep_again_does_nothing_and_says_so(finished, capsys):
    folder, _ = finished
    assert sweep(folder, METHODS)[0] == 0
    told = capsys.readouterr()
    assert "Run 3 of 3: raft, seed 0 is complete already" in told.err
    assert told.out == ""


def test_a_directory_with_another_recipe_is_refused_with_the_difference(finished):
    folder, _ = finished
    changes = {"explore__steps": 5, "expert__max_success_rate": 0.9}
    with pytest.raises(
        ConfigError, match=r"rl-seed-0 holds another recipe: explore.steps: 8 -> 10"
    ):
        plan(folder, "rl", "1", **changes)


def test_runs_that_fail_are_recorded_and_do_not_stop_the_others(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("HOW", "fail")
    code, runs = sweep(tmp_path, "rl,raft,rest_em,rloop", jobs=2)
    assert code == 1
    ended = json.loads((tmp_path / "sweep/sweep.json").read_text())
    assert ended["rl-seed-0"].startswith("its process was killed by SIGKILL; ")
    assert ended["raft-seed-0"] == "The engine is out of order."
    assert ended["rest_em-seed-0"].startswith("Stopped: Nothing was selected")
    assert ended["rloop-seed-0"] == "complete"
    assert [run.state() for run in runs] == ["new", "new", "begun", "complete"]
    assert "3 of 4 runs failed. To try them again: again" in capsys.readouterr().err


class Going:
    """A sweep of two slow runs at a time, in a process of its own."""

    def __init__(self, folder: Path) -> None:
        source = folder / "recipe.yaml"
        source.write_text(resolved_json(toy_recipe(folder)))
        command = f"""
import doubles_sweep
from pathlib import Path
from rloop.recipe.load import load_recipe
from rloop.session.sweep import plan_sweep, run_sweep
source = Path({str(source)!r})
recipe = load_recipe(source)
runs = plan_sweep(recipe, "rl,rloop", "1", source.parent / "sweep")
raise SystemExit(run_sweep(runs, recipe, [str(source)], again="again", jobs=2, rloop={RLOOP!r}))
"""
        self.logs = [folder / "sweep" / f"{name}-seed-0.log" for name in ("rl", "rloop")]
        self.locks = [log.with_suffix("") / ".lock" for log in self.logs]
        variables = os.environ | {"HOW": "slow", "PYTHONPATH": os.pathsep.join(sys.path)}
        self.process = subprocess.Popen([sys.executable, "-c", command], env=variables)
        wait_until(
            lambda: all(log.exists() and "Iteration 0" in log.read_text() for log in self.logs)
        )

    def has_ended(self) -> bool:
        """Whether no run goes on."""
        return not any(is_alive(int(lock.read_text())) for lock in self.locks)


def test_ctrl_c_stops_all_that_run_and_the_sweep_goes_on_from_there(tmp_path):
    going = Going(tmp_path)
    going.process.send_signal(signal.SIGINT)
    assert going.process.wait(60) == 130
    assert going.has_ended()
    assert all("Stopping after this step" in log.read_text() for log in going.logs)
    source = tmp_path / "recipe.yaml"
    recipe = load_recipe(source)
    runs = plan_sweep(recipe, "rl,rloop", "1", tmp_path / "sweep")
    assert {run.state() for run in runs} == {"begun"}
    assert run_sweep(runs, recipe, [str(source)], again="", jobs=2, rloop=RLOOP) == 0
    assert {run.state() for run in runs} == {"complete"}


def test_a_killed_sweep_leaves_no_run_behind(tmp_path):
    going = Going(tmp_path)
    going.process.kill()
    going.process.wait()
    wait_until(going.has_ended)
    assert going.has_ended()


def test_a_directory_of_something_else_is_refused(tmp_path):
    (tmp_path / "sweep/rl-seed-0").mkdir(parents=True)
    (tmp_path / "sweep/rl-seed-0/notes.txt").write_text("mine")
    with pytest.raises(ConfigError, match=r"rl-seed-0 is not empty.*--out"):
        plan(tmp_path, "rl", "1")


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
