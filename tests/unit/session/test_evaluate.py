"""Evaluation outside a run, on the scripted engine: kept, interrupted, resumed, read."""

import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import pytest
from doubles_kill import Judge
from doubles_scripted import At, WatchedEngine

from rloop import cli
from rloop.engines import registry
from rloop.engines.base import Engine
from rloop.errors import ConfigError, EngineError
from rloop.loop.manifest import Manifest
from rloop.recipe.config import Recipe
from rloop.recipe.load import evaluation_recipe
from rloop.run_directory import read_run
from rloop.session import process
from rloop.session.evaluate import Score, free_folder, scores_in, scores_of, unfinished
from rloop.store.trajectories import TrajectoryStore
from rloop.types import Problem


def right_once(problem: Problem, member: int, updates: int) -> str:
    del updates
    return problem.answer if member == 0 else "no"


class Building:
    """Builds scripted engines; counts the groups that they sample, and stops at one of them."""

    def __init__(self, stop: Callable[[], None] | None = None, at: int = 0) -> None:
        self.sampled, self._stop, self._at = 0, stop, at
        self._completions = 0

    def __call__(self, recipe: Recipe) -> Engine:
        return WatchedEngine(recipe, right_once, self._watch)

    def _watch(self, at: At) -> None:
        """Count the groups as their last of 4 completions is handed over."""
        del at
        self._completions += 1
        if self._completions % 4:
            return
        self.sampled += 1
        if self._stop and self.sampled == self._at:
            self._stop()


@pytest.fixture
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give verdicts as soon as they are asked for: what is judged when it stops is then known."""
    monkeypatch.setattr(process, "VerifierPool", Judge)


def evaluate_policy(
    recipe: Recipe, folder: Path, build: Callable[[Recipe], Engine]
) -> list[Score] | None:
    """Return what an evaluation in a new folder measures."""
    return ended(process.start(folder, recipe, folder, build, is_evaluation=True), folder)


def resume_evaluation(folder: Path, build: Callable[[Recipe], Engine]) -> list[Score] | None:
    """Return what a resumed evaluation measures."""
    return ended(process.resume(folder, build), folder)


def ended(code: int, folder: Path) -> list[Score] | None:
    if code == 130:
        raise KeyboardInterrupt
    return scores_in(folder)


def killed() -> NoReturn:
    raise SystemExit("killed")


def interrupted() -> None:
    os.kill(os.getpid(), signal.SIGINT)


def out_of_memory() -> None:
    raise EngineError("Out of memory.")


def never(recipe: Recipe) -> Engine:
    raise AssertionError("there is nothing to sample")


@pytest.fixture
def recipe(tmp_path: Path) -> Recipe:
    """Return a recipe of one task: two chunks."""
    return sums(tmp_path, "sums")


def sums(folder: Path, *names: str, count: int = 8) -> Recipe:
    """Return a recipe for tasks of `count` sums, 4 samples each: 4 problems a chunk."""
    tasks = []
    for name in names:
        rows = [{"id": str(i), "problem": f"{i}+{i}=", "answer": str(2 * i)} for i in range(count)]
        path = folder / f"{name}.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        tasks.append({"source": f"file:{path}", "verifier": "numeric"})
    return evaluation_recipe(
        None,
        [
            "policy.path=my/policy",
            f"tasks.evaluate={json.dumps(tasks)}",
            "evaluate.samples=4",
            "evaluate.k=[1, 4]",
            "engine.max_batch=1",
        ],
    )


def numbers(folder: Path) -> dict[str, bytes]:
    """Return what must not depend on interruptions."""
    names = ("metrics.jsonl", "config.json")
    return {name: (folder / name).read_bytes() for name in names}


def rows(folder: Path) -> list[dict[str, Any]]:
    """Return every trajectory, in an order that does not depend on how files are cut."""
    query = "select * from trajectories order by task, problem_id, member"
    return list(TrajectoryStore(folder).query(query).to_pylist())


def files(folder: Path) -> dict[str, bytes]:
    """Return what must not depend on when a process was killed: the numbers and the chunks."""
    chunks = folder.rglob("*.parquet")
    return numbers(folder) | {str(one.relative_to(folder)): one.read_bytes() for one in chunks}


def test_a_policy_right_once_in_four_has_avg_a_quarter_and_pass_one(recipe, tmp_path):
    folder = tmp_path / "eval"
    scores = {s.metric: s for s in evaluate_policy(recipe, folder, Building()) or ()}
    # one of four right on each problem: avg@4 = 0.25, pass@4 = 1 - C(3,4)/C(4,4) = 1
    assert (scores["avg@4"].task, scores["avg@4"].value) == ("sums", 0.25)
    assert scores["avg@4"].low <= 0.25 <= scores["avg@4"].high
    assert scores["pass@4"].value == 1.0
    assert TrajectoryStore(folder).count() == 8 * 4


def test_an_evaluation_is_read_as_a_run_is(recipe, tmp_path):
    folder = tmp_path / "eval"
    evaluate_policy(recipe, folder, Building())
    record = read_run(folder)
    (line,) = record.rows("evaluate")
    assert (line["iteration"], line["step"], line["policy"]) == (0, 0, "policy")
    assert line["evaluate/sums/avg@4"] == 0.25
    assert record.is_complete
    assert [event["name"] for event in record.events] == ["evaluate"]
    assert record.environment["engine"] == {"device": "none (scripted)"}
    assert Recipe.model_validate(record.config) == recipe.dated(record.config["prompt"]["date"])


@pytest.mark.usefixtures("_at_once")
@pytest.mark.parametrize(("stop", "num_kept"), [(killed, 4), (interrupted, 6), (out_of_memory, 5)])
def test_a_stopped_and_resumed_evaluation_equals_an_uninterrupted_one(tmp_path, stop, num_kept):
    """Two tasks of two chunks of four problems, stopped at the sixth problem.

    A kill keeps the first chunk, an error the problems before, Ctrl-C that one too.
    """
    recipe = sums(tmp_path, "sums", "more")
    whole, torn = tmp_path / "whole", tmp_path / "torn"
    expected = evaluate_policy(recipe, whole, Building())
    with pytest.raises((SystemExit, KeyboardInterrupt, EngineError)):
        evaluate_policy(recipe, torn, Building(stop, 6))
    assert TrajectoryStore(torn).count() == 4 * num_kept
    build = Building()
    assert resume_evaluation(torn, build) == expected
    assert build.sampled == 16 - num_kept
    assert rows(torn) == rows(whole)
    assert numbers(torn) == numbers(whole)
    assert stop != killed or files(torn) == files(whole)
    assert len(files(whole)) == 2 + 4


@pytest.mark.usefixtures("_at_once")
def test_an_interrupt_says_how_to_go_on(recipe, tmp_path, capsys):
    folder = tmp_path / "eval"
    with pytest.raises(KeyboardInterrupt):
        evaluate_policy(recipe, folder, Building(interrupted, 6))
    said = capsys.readouterr().err
    assert f"Continue: rloop resume {folder}" in said
    resume_evaluation(folder, Building())
    assert "stored problems are not sampled again" in capsys.readouterr().err


def test_a_complete_evaluation_is_resumed_without_sampling(recipe, tmp_path):
    folder = tmp_path / "eval"
    scores = evaluate_policy(recipe, folder, Building())
    before, build = files(folder), Building()
    assert resume_evaluation(folder, build) == scores
    assert (files(folder), build.sampled) == (before, 0)


def test_a_start_that_sampled_nothing_may_be_repeated(recipe, tmp_path):
    folder = tmp_path / "eval"
    with pytest.raises(SystemExit):
        evaluate_policy(recipe, folder, lambda _: killed())
    other = recipe.model_copy(update={"seed": 7})
    evaluate_policy(other, folder, Building())
    assert json.loads((folder / "config.json").read_text())["seed"] == 7


@pytest.mark.parametrize("name", ["trajectories", "note.txt"])
def test_a_directory_in_use_is_refused_before_anything_is_loaded(recipe, tmp_path, name):
    folder = tmp_path / "eval"
    (folder / name).mkdir(parents=True)

    with pytest.raises(ConfigError, match=r"is not empty.*rloop resume.*another --out"):
        evaluate_policy(recipe, folder, never)


def test_too_many_verdicts_that_are_errors_stop_it_each_time(recipe, tmp_path, capsys):
    (task,) = recipe.tasks.evaluate
    fails = task.model_copy(update={"verifier": "python:doubles_misbehaving:raises_on_others"})
    tasks = recipe.tasks.model_copy(update={"evaluate": (fails,)})
    folder = tmp_path / "eval"
    assert not evaluate_policy(recipe.model_copy(update={"tasks": tasks}), folder, Building())
    assert not resume_evaluation(folder, Building())
    assert capsys.readouterr().err.count("75% of the verdicts on sums were errors") == 2
    assert TrajectoryStore(folder).count() == 32


def test_resume_knows_an_evaluation_from_a_run(recipe, tmp_path, monkeypatch, capsys):
    folder = tmp_path / "eval"
    with pytest.raises(SystemExit):
        evaluate_policy(recipe, folder, Building(killed, 6))
    assert Manifest(folder).is_evaluation
    assert not Manifest(tmp_path).is_evaluation
    monkeypatch.setattr(registry, "build_engine", Building())
    monkeypatch.setattr(sys, "argv", ["rloop", "resume", str(folder)])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    assert stop.value.code == 0
    assert "avg@4" in capsys.readouterr().out
    assert not (folder / "report.html").exists()


def test_the_store_commands_work_on_an_evaluation(recipe, tmp_path, monkeypatch, capsys):
    folder = tmp_path / "eval"
    evaluate_policy(recipe, folder, Building())
    for words, told in (
        (["sql", str(folder), "select count(*) as n from trajectories", "--json"], '"n": 32'),
        (["show", str(folder), "--verdict", "correct", "--limit", "1"], "policy, sums/train/0 #0"),
    ):
        monkeypatch.setattr(sys, "argv", ["rloop", "store", *words])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        assert stop.value.code == 0
        assert told in capsys.readouterr().out


def test_an_evaluation_without_out_never_goes_where_something_is(recipe, tmp_path):
    assert free_folder(tmp_path, recipe) == tmp_path / "eval-policy"
    (tmp_path / "eval-policy").mkdir()
    (tmp_path / "eval-policy-2").mkdir()
    assert free_folder(tmp_path, recipe) == tmp_path / "eval-policy-3"
    with pytest.raises(SystemExit):  # a start that sampled nothing is made again
        evaluate_policy(recipe, tmp_path / "eval-policy-3", lambda _: killed())
    assert free_folder(tmp_path, recipe) == tmp_path / "eval-policy-3"
    assert unfinished(tmp_path, recipe) == []


def test_an_evaluation_that_did_not_end_is_found_before_another_begins(recipe, tmp_path):
    assert unfinished(tmp_path, recipe) == []
    evaluate_policy(recipe, free_folder(tmp_path, recipe), Building())
    assert unfinished(tmp_path, recipe) == []
    with pytest.raises(SystemExit):
        evaluate_policy(recipe, free_folder(tmp_path, recipe), Building(killed, 6))
    assert unfinished(tmp_path, recipe) == [tmp_path / "eval-policy-2"]


def test_scores_are_the_metrics_that_have_an_interval():
    metrics = {
        "a/b/avg@4": 0.5,
        "a/b/avg@4_low": 0.4,
        "a/b/avg@4_high": 0.6,
        "a/b/truncated_frac": 0.1,
    }
    assert list(scores_of(metrics)) == [
        Score(task="a/b", metric="avg@4", value=0.5, low=0.4, high=0.6)
    ]
