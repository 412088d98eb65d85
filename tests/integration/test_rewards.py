"""Runs whose recipe has `rewards`: what is stored, logged, shown, and what stays by correctness."""

import shutil
from pathlib import Path
from typing import Any

import pytest
from doubles_runs import begin, scripted, toy_recipe

from rloop.cli.browse import find_trajectories, lines_of
from rloop.errors import ConfigError, TaskError
from rloop.observe.run_log import read_metrics
from rloop.report.page import write_report
from rloop.session.rescore import rescore
from rloop.store.expert import read_examples
from rloop.store.trajectories import TrajectoryStore
from rloop.store.verify import verify_run
from rloop.types import Problem
from rloop.view.trajectories import COLUMNS, group_view

REWARDS: list[dict[str, Any]] = [
    {"function": "accuracy"},
    {"function": "format", "pattern": r"\d+", "weight": 0.2},
    {"function": "length", "name": "brief", "weight": -0.1},
    {"function": "python:doubles_verifiers:likes_words", "weight": 0.5, "timeout_s": 20.0},
]


def half_in_digits(problem: Problem, member: int, updates: int) -> str:
    """Answer right in digits for every other member, else wrong in words."""
    del updates
    return "no idea" if member % 2 else problem.answer


@pytest.fixture(scope="module")
def graded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of the same completions as `plain`, graded by four rewards."""
    folder = tmp_path_factory.mktemp("graded")
    code, run_dir = begin(toy_recipe(folder, rewards=REWARDS), folder, scripted(half_in_digits))
    assert code == 0
    return run_dir


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("plain")
    code, run_dir = begin(toy_recipe(folder), folder, scripted(half_in_digits))
    assert code == 0
    return run_dir


def test_each_reward_is_stored_and_reward_is_their_weighted_sum(graded: Path):
    rows = TrajectoryStore(graded).rows(1, "explore", 1).to_pylist()
    for row in rows:
        values = {entry["name"]: entry["value"] for entry in row["rewards"]}
        is_number = row["completion_text"].isdigit()
        assert values["accuracy"] == row["correct"] == is_number
        assert values["format"] == is_number
        # 16 tokens are the most
        assert values["brief"] == pytest.approx(1 - row["completion_tokens"] / 16)
        assert values["likes_words"] == (0.0 if is_number else 0.5)
        expected = values["accuracy"] + 0.2 * values["format"] - 0.1 * values["brief"]
        assert row["reward"] == pytest.approx(expected + 0.5 * values["likes_words"])
    assert verify_run(graded).is_sound


def test_each_reward_is_a_metric_of_its_own(graded: Path):
    line = next(line for line in read_metrics(graded) if line["phase"] == "explore")
    # every other completion is right, in digits; the others are words
    assert line["explore/correct_frac"] == 0.5
    assert line["explore/reward_accuracy_mean"] == 0.5
    assert line["explore/reward_likes_words_mean"] == 0.25
    assert line["explore/reward_likes_words_error_frac"] == 0.0


def test_selection_and_evaluation_go_by_correctness_alone(graded: Path, plain: Path):
    for iteration in (1, 2):
        assert read_examples(graded, iteration) == read_examples(plain, iteration)
    sides = [[r for r in read_metrics(d) if r["phase"] == "evaluate"] for d in (graded, plain)]
    assert sides[0] == sides[1]
    held_out = TrajectoryStore(graded).query(
        "select count(*) as rows, count(rewards) as graded, sum((reward = correct::int)::int) as "
        "same from trajectories where phase = 'evaluate'"
    )
    (row,) = held_out.to_pylist()
    assert row["graded"] == 0
    assert row["same"] == row["rows"]


def test_a_score_of_the_tasks_verifier_is_what_rl_learns_from(tmp_path: Path):
    recipe = toy_recipe(tmp_path, iterations=1)
    task = recipe.tasks.train[0].model_copy(
        update={"verifier": "python:doubles_verifiers:half_points"}
    )
    tasks = recipe.tasks.model_copy(update={"train": (task,)})
    code, run_dir = begin(
        recipe.model_copy(update={"tasks": tasks}), tmp_path, scripted(half_in_digits)
    )
    assert code == 0
    line = next(line for line in read_metrics(run_dir) if line["phase"] == "explore")
    assert (line["explore/reward_mean"], line["explore/correct_frac"]) == (0.75, 0.5)
    found = TrajectoryStore(run_dir).query(
        "select distinct correct, score, reward from trajectories where phase = 'explore' order by "
        "all"
    )
    assert found.to_pylist() == [
        {"correct": False, "score": 0.5, "reward": 0.5},
        {"correct": True, "score": 1.0, "reward": 1.0},
    ]
    assert verify_run(run_dir).is_sound


def test_the_terminal_and_the_viewer_show_each_reward(graded: Path):
    (row,) = find_trajectories(graded, {"phase": "explore", "verdict": "wrong"}, 1)
    shown = "\n".join(lines_of(row))
    assert "likes_words 0.5 [words]" in shown
    rows = TrajectoryStore(graded).rows(1, "explore", 1).select(COLUMNS)
    found = group_view(rows, rows["member"].to_numpy() >= 0, row["problem_id"], 0)
    assert found is not None
    named = {name: value for name, value, _ in found["cards"][1]["rewards"]}
    assert named["likes_words"] == 0.5


def test_the_report_draws_each_reward(graded: Path, plain: Path):
    page = write_report(graded).read_text()
    assert "Rewards: accuracy from 0.5 to 0.5, format from 0.5 to 0.5, brief from " in page
    assert "likes_words from 0.25 to 0.25, weighted sum from " in page
    assert 'id="rewards"' not in write_report(plain).read_text()


def test_rescoring_by_the_same_verifier_changes_nothing(graded: Path, tmp_path: Path):
    run_dir = Path(shutil.copytree(graded, tmp_path / "run"))
    found = rescore(run_dir)
    assert found.num_changed == 0
    assert read_metrics(found.directory) == read_metrics(run_dir)
    assert verify_run(found.directory).is_sound


def test_another_verifier_changes_accuracy_and_the_sum(graded: Path, tmp_path: Path):
    run_dir = Path(shutil.copytree(graded, tmp_path / "run"))
    found = rescore(run_dir, verifier="python:doubles_verifiers:half_points")
    rows = TrajectoryStore(found.directory).rows(1, "explore", 1).to_pylist()
    wrong = next(row for row in rows if not row["correct"])
    values = {entry["name"]: entry["value"] for entry in wrong["rewards"]}
    assert values["accuracy"] == wrong["score"] == 0.5
    before = TrajectoryStore(run_dir).rows(1, "explore", 1).to_pylist()
    old = next(row for row in before if row["completion_hash"] == wrong["completion_hash"])
    assert wrong["reward"] == pytest.approx(old["reward"] + 0.5)
    line = next(r for r in read_metrics(found.directory) if r["phase"] == "explore")
    assert line["explore/reward_accuracy_mean"] == 0.75
    assert line["explore/correct_frac"] == 0.5
    assert verify_run(found.directory).is_sound


def test_a_reward_that_cannot_be_called_stops_before_anything_is_sampled(tmp_path: Path):
    rewards = [{"function": "python:doubles_verifiers:not_there"}]
    with pytest.raises(TaskError, match=r"rewards\.0 \(not_there\) .* has no function"):
        begin(toy_recipe(tmp_path, rewards=rewards), tmp_path, scripted(half_in_digits))
    rewards = [{"function": "python:doubles_verifiers.py:likes_words"}]
    recipe, other = toy_recipe(tmp_path, rewards=rewards), tmp_path / "other"
    other.mkdir()
    with pytest.raises(ConfigError, match=r"rewards\.0\.function: .*write python:doubles_verifie"):
        begin(recipe, other, scripted(half_in_digits))


def test_a_reward_that_fails_too_often_stops_the_run_with_the_reason(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    rewards = [{"function": "python:doubles_verifiers:fails_on_words", "name": "judge"}]
    recipe = toy_recipe(tmp_path, rewards=rewards)
    code, _ = begin(recipe, tmp_path, scripted(half_in_digits))
    told = capsys.readouterr().err
    assert code == 1
    assert "6 of 12 values of the reward judge were errors" in told
    assert "ValueError: no answer in " in told
