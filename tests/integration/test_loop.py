"""The loop over a scripted engine: order, counts, switches and stops."""

import json
from pathlib import Path
from typing import Any

import pytest
from doubles_runs import begin, half_right, scripted, toy_recipe, trajectories

from rloop.loop.manifest import Manifest
from rloop.observe.run_log import read_metrics
from rloop.recipe.config import Recipe
from rloop.session.process import start
from rloop.store.expert import read_examples
from rloop.types import Problem


def updates(run_dir: Path, policy: str) -> int:
    return int(json.loads((run_dir / "policies" / policy / "scripted.json").read_text())["updates"])


def test_a_run_goes_through_the_phases_in_the_papers_order(tmp_path: Path):
    code, run_dir = begin(toy_recipe(tmp_path), tmp_path, scripted())
    assert code == 0
    assert Manifest(run_dir).completed() == [
        "0/prepare",
        "0/problems",
        "0/evaluate/base",
        "1/explore",
        "1/select",
        "1/finetune",
        "1/evaluate/iter-001",
        "2/explore",
        "2/select",
        "2/finetune",
        "2/evaluate/iter-002",
    ]


def test_every_sampled_trajectory_is_stored(tmp_path: Path):
    _, run_dir = begin(toy_recipe(tmp_path), tmp_path, scripted())
    rows = trajectories(
        run_dir,
        "select phase, iteration, count(*) as n from trajectories group by all order by all",
    )
    # explore: 4 steps x 3 prompts x 4 members; evaluate: 4 problems x 4 samples, of the base in
    # iteration 0, of the explored and the next policy in 1 and 2.
    expected = {("explore", 1): 48, ("explore", 2): 48}
    expected |= {("evaluate", 0): 16, ("evaluate", 1): 32, ("evaluate", 2): 32}
    assert {(row["phase"], row["iteration"]): row["n"] for row in rows} == expected


def test_rft_starts_from_the_policy_that_the_iteration_started_from(tmp_path: Path):
    # Exploration makes 4 updates and is thrown away; fine-tuning makes 6, two epochs over 12
    # examples in batches of 4: 0 -> 6 -> 12.
    _, run_dir = begin(toy_recipe(tmp_path), tmp_path, scripted())
    assert (updates(run_dir, "iter-001"), updates(run_dir, "iter-002")) == (6, 12)
    assert not (run_dir / "policies" / "explored-001").exists()


@pytest.mark.parametrize(
    ("init", "expected"),
    [
        ("base", (6, 6)),  # always from the base: 0 + 6
        ("explored", (10, 20)),  # RL's weights are kept: 4 + 6, then 10 + 4 + 6
    ],
)
def test_finetune_init_decides_where_rft_starts(
    tmp_path: Path, init: str, expected: tuple[int, int]
):
    recipe = toy_recipe(tmp_path, finetune__init=init)
    _, run_dir = begin(recipe, tmp_path, scripted())
    assert (updates(run_dir, "iter-001"), updates(run_dir, "iter-002")) == expected


def test_plain_rl_keeps_its_weights(tmp_path: Path):
    recipe = toy_recipe(tmp_path, expert=None, finetune=None, iterations=1)
    code, run_dir = begin(recipe, tmp_path, scripted())
    assert code == 0
    assert updates(run_dir, "explored-001") == 4


def test_the_expert_set_holds_capped_successes_only(tmp_path: Path):
    _, run_dir = begin(toy_recipe(tmp_path), tmp_path, scripted())
    examples = read_examples(run_dir, 1)
    # Every problem is solved by half of its group, so all 6 are hard; 2 successes each are kept.
    assert len(examples) == 12
    assert all(example.completion_ids[-1] == 256 for example in examples)


def test_an_accumulated_window_selects_from_all_iterations(tmp_path: Path):
    def new_words(problem: Problem, member: int, updates: int) -> str:
        return f"{updates} updates: {problem.answer}" if member == 0 else "no idea"

    changes: dict[str, Any] = {"expert__window": "accumulated", "expert__per_problem_cap": None}
    _, run_dir = begin(toy_recipe(tmp_path, **changes), tmp_path, scripted(new_words))
    found = {example.completion_ids for example in read_examples(run_dir, 2)}
    assert {example.completion_ids for example in read_examples(run_dir, 1)} <= found
    assert len(found) > len(read_examples(run_dir, 1))


def test_evaluations_inside_exploration_follow_the_recipe(tmp_path: Path):
    _, run_dir = begin(toy_recipe(tmp_path, evaluate__every=2), tmp_path, scripted())
    steps = [
        (line["policy"], line["step"])
        for line in read_metrics(run_dir)
        if line["phase"] == "evaluate"
    ]
    assert steps[:4] == [("base", 0), ("explored-001", 2), ("explored-001", 4), ("iter-001", 0)]


def test_evaluation_metrics_are_paired_with_the_base(tmp_path: Path):
    def learns(problem: Problem, member: int, updates: int) -> str:
        return problem.answer if member < 1 + (updates > 0) else "no idea"

    _, run_dir = begin(toy_recipe(tmp_path), tmp_path, scripted(learns))
    last = read_metrics(run_dir)[-1]
    # base: 1 of 4 right on each problem; after an update: 2 of 4. avg@4 0.25 -> 0.5, no spread:
    # of 4 equal differences a share of up to 1 - 0.025^(1/4) = 0.602 may be otherwise, -1 at worst.
    assert last["policy"] == "iter-002"
    assert last["evaluate/held/avg@4"] == 0.5
    assert last["evaluate/held/avg@4_diff"] == 0.25
    low = 0.25 - 0.602 * (0.25 + 1)
    assert last["evaluate/held/avg@4_diff_low"] == pytest.approx(low, abs=1e-3)
    assert last["evaluate/held/pass@4"] == 1.0


def divergences(run_dir: Path) -> list[tuple[str, float | None]]:
    return [
        (line["policy"], line.get("evaluate/kl_base_mean"))
        for line in read_metrics(run_dir)
        if line["phase"] == "evaluate"
    ]


def test_every_evaluation_says_how_far_the_policy_is_from_the_base(tmp_path: Path):
    _, run_dir = begin(toy_recipe(tmp_path), tmp_path, scripted())
    # A scripted policy of u updates gives each token log-probability -1 / (1 + u), the base -1:
    # d = 1 - 1 / (1 + u), k3 = exp(d) - 1 - d. u = 4: d = 0.8, 2.225541 - 1.8 = 0.425541;
    # u = 6: d = 6/7, 2.356418 - 1.857143 = 0.499276; u = 6 + 4: d = 10/11, 0.572974;
    # u = 12: d = 12/13, 2.517023 - 1.923077 = 0.593946.
    found = divergences(run_dir)
    assert found[0] == ("base", None)
    assert dict(found[1:]) == {
        "explored-001": pytest.approx(0.425541, abs=1e-6),
        "iter-001": pytest.approx(0.499276, abs=1e-6),
        "explored-002": pytest.approx(0.572974, abs=1e-6),
        "iter-002": pytest.approx(0.593946, abs=1e-6),
    }


def test_after_a_cold_start_the_divergence_is_from_the_cold_started_policy(tmp_path: Path):
    task = {"source": f"file:{tmp_path / 'train.jsonl'}", "name": "cold", "verifier": "numeric"}
    cold = {"task": task, "epochs": 3, "batch_size": 4, "optimizer": {"learning_rate": 1e-3}}
    recipe = toy_recipe(tmp_path, coldstart=cold, iterations=1)
    _, run_dir = begin(recipe, tmp_path, scripted())
    # The cold start makes 3 epochs of 2 updates, log-probability -1/7; fine-tuning 6 more, -1/13:
    # d = 6/91, k3 = 1.068156 - 1.065934 = 0.002222
    found = divergences(run_dir)
    assert found[:2] == [("base", None), ("coldstart", None)]
    assert dict(found)["iter-001"] == pytest.approx(0.002222, abs=1e-6)


def test_time_spent_on_the_divergence_is_logged_as_the_evaluations(tmp_path: Path):
    _, run_dir = begin(toy_recipe(tmp_path, iterations=1), tmp_path, scripted())
    events = [json.loads(line) for line in (run_dir / "events.jsonl").read_text().splitlines()]
    found = [(e["iteration"], e["phase"], e["step"]) for e in events if e["name"] == "divergence"]
    assert found == [(1, "evaluate", 4), (1, "evaluate", 0)]


def test_a_run_that_solves_nothing_stops_with_the_counts(tmp_path: Path, capsys: Any):
    code, run_dir = begin(toy_recipe(tmp_path), tmp_path, scripted(lambda *_: "no idea"))
    assert code == 1
    said = " ".join(capsys.readouterr().err.split())
    assert "Nothing was selected: of 48 trajectories none was a success" in said
    assert len(trajectories(run_dir, "select 1 from trajectories where phase = 'explore'")) == 48


def test_a_run_that_solves_all_stops_and_names_the_threshold(tmp_path: Path, capsys: Any):
    code, _ = begin(toy_recipe(tmp_path), tmp_path, scripted(lambda p, *_: p.answer))
    assert code == 1
    assert "expert.max_success_rate=0.75" in " ".join(capsys.readouterr().err.split())


def test_groups_without_a_signal_for_long_stop_the_run(tmp_path: Path, capsys: Any):
    recipe = toy_recipe(tmp_path, explore__max_dead_steps=2)
    code, run_dir = begin(recipe, tmp_path, scripted(lambda *_: "no idea"))
    said = " ".join(capsys.readouterr().err.split())
    assert code == 1
    assert "No group had a signal for 2 steps in a row" in said
    assert "3 all wrong" in said
    assert len(trajectories(run_dir, "select 1 from trajectories where phase = 'explore'")) == 24


def test_completions_that_are_all_cut_stop_the_run(tmp_path: Path, capsys: Any):
    recipe = toy_recipe(tmp_path, explore__max_dead_steps=2)
    code, _ = begin(recipe, tmp_path, scripted(lambda p, *_: "x" * 40 + p.answer))
    assert code == 1
    assert "were cut at 16 tokens" in " ".join(capsys.readouterr().err.split())


def test_early_stop_ends_exploration_not_the_run(tmp_path: Path, capsys: Any):
    def forgets(problem: Problem, member: int, updates: int) -> str:
        return half_right(problem, member, 0) if updates < 2 or member == 0 else "no idea"

    changes: dict[str, Any] = {
        "evaluate__every": 1,
        "evaluate__k": [1],
        "explore__early_stop": {"pass_at_k_falls": 1},
        "iterations": 1,
    }
    code, run_dir = begin(toy_recipe(tmp_path, **changes), tmp_path, scripted(forgets))
    assert code == 0
    result = Manifest(run_dir).result("1/explore")
    assert result is not None
    assert result["steps"] == 2
    assert "pass@k fell" in " ".join(capsys.readouterr().err.split())


def test_start_writes_what_was_asked_and_where(tmp_path: Path):
    source = tmp_path / "recipe.yaml"
    source.write_text("# as given\n")
    start(source, toy_recipe(tmp_path), tmp_path / "run", scripted())
    assert (tmp_path / "run/recipe.yaml").read_text() == "# as given\n"
    config = json.loads((tmp_path / "run/config.json").read_text())
    assert Recipe.model_validate(config) == toy_recipe(tmp_path).dated(config["prompt"]["date"])
    assert json.loads((tmp_path / "run/environment.json").read_text())["packages"]["torch"]
