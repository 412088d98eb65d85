"""Evaluation outside a run, on the scripted engine."""

import json
import os
import signal

import pytest

from rloop.engines.scripted import ScriptedEngine
from rloop.loop.standalone import Score, evaluate_policy, new_folder, scores_of
from rloop.recipe import evaluation_recipe
from rloop.store.trajectories import TrajectoryStore


@pytest.fixture
def recipe(tmp_path):
    rows = [{"id": str(i), "problem": f"{i}+{i}=", "answer": str(2 * i)} for i in range(4)]
    path = tmp_path / "sums.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    task = {"source": f"file:{path}", "verifier": "numeric"}
    return evaluation_recipe(
        None,
        [
            "policy.path=my/policy",
            f"tasks.evaluate=[{json.dumps(task)}]",
            "evaluate.samples=4",
            "evaluate.k=[1, 4]",
        ],
    )


def test_a_policy_right_once_in_four_has_avg_a_quarter_and_pass_one(recipe, tmp_path):
    def build(recipe, verify):
        return ScriptedEngine(
            recipe, verify, lambda problem, member, _: problem.answer if member == 0 else "no"
        )

    scores = {score.metric: score for score in evaluate_policy(recipe, tmp_path / "runs", build)}
    folder = tmp_path / "runs" / "eval-policy"
    # one of four right on each of four problems: avg@4 = 0.25, pass@4 = 1 - C(3,4)/C(4,4) = 1
    assert scores["avg@4"] == Score(task="sums", metric="avg@4", value=0.25, low=0.25, high=0.25)
    assert scores["pass@4"].value == 1.0
    assert TrajectoryStore(folder).count() == 16
    assert json.loads((folder / "metrics.json").read_text())[0]["task"] == "sums"


def test_an_interrupted_evaluation_keeps_the_tasks_it_measured(recipe, tmp_path, capsys):
    (task,) = recipe.tasks.evaluate
    two = (task, task.model_copy(update={"name": "again"}))
    tasks = recipe.tasks.model_copy(update={"evaluate": two})

    class Interrupting(ScriptedEngine):
        """The user presses Ctrl-C while the second task samples."""

        def sample(self, policy, problems, num_samples, place):
            for group in super().sample(policy, problems, num_samples, place):
                if group.problem.task == "again":
                    os.kill(os.getpid(), signal.SIGINT)
                yield group

    def build(recipe, verify):
        return Interrupting(recipe, verify, lambda problem, member, _: problem.answer)

    with pytest.raises(KeyboardInterrupt):
        evaluate_policy(recipe.model_copy(update={"tasks": tasks}), tmp_path / "runs", build)
    assert TrajectoryStore(tmp_path / "runs" / "eval-policy").count() == 16
    assert "the tasks that were measured are in" in capsys.readouterr().err


def test_an_evaluation_never_writes_where_something_is(tmp_path):
    assert new_folder(tmp_path, "eval-x").name == "eval-x"
    assert new_folder(tmp_path, "eval-x").name == "eval-x-2"
    assert new_folder(tmp_path, "eval-x").name == "eval-x-3"


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
