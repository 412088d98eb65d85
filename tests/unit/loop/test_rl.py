"""One RL step: what is sampled, what is trained on, and how several updates become one line."""

from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from itertools import islice
from math import cos, pi
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from doubles_policies import InstantVerify, make_problem
from doubles_records import group_at, place_at
from doubles_runs import toy_recipe

from rloop.algo.objective import Objective
from rloop.engines.base import TrainingSequence
from rloop.engines.native.engine import NativeEngine
from rloop.engines.rollout import Rollout
from rloop.loop.rl import RLState, RLStep, RLTrainer, Successes, mean_metrics, sampling_metrics
from rloop.recipe.config import Recipe
from rloop.tasks.rewards import Verify
from rloop.types import Place, Problem, Verdict

PLACE = Place(run="test", seed=0, iteration=1, phase="explore", policy="explored-001")


def explore(
    recipe: Recipe,
    problems: list[Problem],
    steps: int = 1,
    *,
    replayed: Successes | None = None,
    verify: Verify | None = None,
    engine: type[NativeEngine] = NativeEngine,
) -> list[RLStep]:
    """Return the first steps of an exploration of a tiny random model."""
    holder = engine(recipe)
    with TemporaryDirectory() as folder:
        holder.prepare(recipe.policy.path, Path(folder) / "base", seed=0)
    holder.begin(recipe.explore.optimizer, seed=0)
    explorer = RLTrainer(
        rollout=Rollout(engine=holder, verify=verify or InstantVerify(), rewards=recipe.rewards),
        config=recipe.explore,
        problems=problems,
        place=PLACE,
        replayed=replayed,
    )
    return list(islice(explorer.steps(RLState()), steps))


def easy_hard(number: int) -> list[Problem]:
    """Problems always solved (an empty answer stands in every completion) and never solved."""
    easy = [make_problem(i, answer="") for i in range(number)]
    return easy + [make_problem(100 + i, answer="never") for i in range(number)]


class EvenVerify:
    """Takes texts whose first character has an even code, so that most groups are mixed."""

    def submit(self, problem: Problem, completion_text: str) -> "Future[Verdict]":
        del problem
        future: Future[Verdict] = Future()
        is_even = bool(completion_text) and ord(completion_text[0]) % 2 == 0
        future.set_result(Verdict(kind="correct" if is_even else "wrong"))
        return future


def test_groups_without_a_signal_are_stored_and_not_trained_on(tmp_path: Any):
    (step,) = explore(toy_recipe(tmp_path), easy_hard(6))
    assert len(step.groups) == 3
    assert step.metrics["groups_mixed_frac"] == 0
    assert step.metrics["groups_signal_frac"] == 0
    solved = step.metrics["groups_all_correct_frac"] + step.metrics["groups_all_wrong_frac"]
    assert solved == pytest.approx(1.0)
    assert "loss_mean" not in step.metrics


def test_dynamic_sampling_replaces_groups_without_a_signal(tmp_path: Any):
    recipe = toy_recipe(tmp_path, explore__refill_rounds=2)
    (step,) = explore(recipe, easy_hard(6))
    # No group ever has a signal: 3 prompts, and 3 more in each of 2 rounds; all are stored.
    assert len(step.groups) == 9
    assert len({group.problem.problem_id for group in step.groups}) == 9
    assert step.metrics["trajectories_count"] == 36


def test_replayed_successes_make_failures_a_group_to_learn_from(tmp_path: Any):
    recipe = toy_recipe(
        tmp_path, iterations=2, expert=None, finetune=None, explore__replay_per_group=2
    )
    hard = easy_hard(3)[3:]
    earlier = group_at(place_at(iteration=9), completions=[(str(n), True) for n in range(5)])
    replayed = {hard[0].problem_id: earlier.trajectories, hard[1].problem_id: ()}
    (step,) = explore(recipe, hard, replayed=replayed)
    # of three groups of 4 wrong ones the one that has stored successes is trained on, with 2
    assert step.metrics["groups_all_wrong_frac"] == 1
    assert step.metrics["groups_signal_frac"] == pytest.approx(1 / 3)
    assert step.metrics["replayed_count"] == 2
    assert step.metrics["trained_sequences_count"] == 4 + 2
    assert step.metrics["trajectories_count"] == 12
    assert all(len(group.trajectories) == 4 for group in step.groups)
    # the stored ones claim to have been sampled at -0.5 a token, which no random model gives
    assert step.metrics["gap_max"] < 1e-4


def test_refill_stops_when_the_problems_are_used_up(tmp_path: Any):
    recipe = toy_recipe(tmp_path, explore__refill_rounds=9)
    (step,) = explore(recipe, easy_hard(2))
    assert len(step.groups) == 4


def test_a_step_with_a_signal_moves_the_policy(tmp_path: Any):
    recipe = toy_recipe(tmp_path)
    # One character of 64 somewhere in 16 tokens: some completions have it, some do not.
    problems = [make_problem(number, answer="-") for number in range(6)]
    steps = explore(recipe, problems, 3)
    assert any(step.metrics["groups_mixed_frac"] > 0 for step in steps)
    trained = [step for step in steps if step.metrics["groups_signal_frac"] > 0]
    assert all(step.metrics["grad_norm"] > 0 for step in trained)
    # Sampler and learner run the same float32 weights: they agree but for the order of sums.
    assert all(step.metrics["gap_max"] < 1e-4 for step in trained)
    versions = [group.trajectories[0].policy_version for step in steps for group in step.groups]
    assert versions == sorted(versions)
    assert versions[-1] > 0


def test_a_step_counts_the_different_answers_of_a_group(tmp_path: Any):
    (step,) = explore(toy_recipe(tmp_path), easy_hard(6))
    expected = [len({t.verdict.answer for t in group.trajectories}) for group in step.groups]
    assert step.metrics["distinct_answers_mean"] == pytest.approx(sum(expected) / 3)
    # A completion without an answer adds none: ("2", "3", "2", None) has 2, (None,) 0, mean 1.
    place = place_at(1)
    some = group_at(place, completions=[("2", True), ("3", False), ("2", True), ("", False)])
    none = group_at(place, "sums/train/1", completions=[("", False)])
    assert sampling_metrics([some, none], 1)["distinct_answers_mean"] == 1.0


def test_completions_of_unlike_lengths_that_are_all_right_or_all_wrong_are_refilled(
    tmp_path: Any,
):
    recipe = toy_recipe(tmp_path, explore__overlong_buffer_tokens=16, explore__refill_rounds=1)
    (step,) = explore(recipe, easy_hard(6))
    lengths = [{len(t.completion.completion_ids) for t in g.trajectories} for g in step.groups]
    assert any(len(found) > 1 for found in lengths)
    assert step.metrics["groups_signal_frac"] == 0
    assert len(step.groups) == 6  # 3 and 3 more


def test_masked_completions_are_in_neither_loss_nor_denominator(tmp_path: Any):
    """Completions of at most 40 tokens, so that some are cut and some stop."""

    def trained_on(*, is_masked: bool) -> tuple[int, int, Mapping[str, float]]:
        recipe = toy_recipe(
            tmp_path,
            explore__sampling={"max_completion_tokens": 40},
            explore__mask_truncated=is_masked,
            explore__group_size=16,
        )
        (step,) = explore(recipe, easy_hard(3), verify=EvenVerify())
        mixed = [t for group in step.groups if group.is_mixed for t in group.trajectories]
        cut = [len(t.completion.completion_ids) for t in mixed if t.completion.is_truncated]
        whole = [len(t.completion.completion_ids) for t in mixed if not t.completion.is_truncated]
        return sum(cut), sum(whole), step.metrics

    cut, whole, metrics = trained_on(is_masked=False)
    assert cut
    assert whole
    assert metrics["loss_tokens_count"] == cut + whole
    cut, whole, metrics = trained_on(is_masked=True)
    assert metrics["loss_tokens_count"] == whole


def test_rewards_are_summed_by_weight(tmp_path: Any):
    rewards = [
        {"function": "accuracy", "weight": 2.0},
        {"function": "length", "name": "brief", "weight": -0.5},
    ]
    recipe = toy_recipe(tmp_path, rewards=rewards)
    (step,) = explore(recipe, easy_hard(6))
    for trajectory in (t for group in step.groups for t in group.trajectories):
        right, tokens = trajectory.verdict.is_correct, len(trajectory.completion.completion_ids)
        assert trajectory.reward == pytest.approx(2.0 * right - 0.5 * (1 - tokens / 16))
        assert trajectory.rewards["accuracy"] == trajectory.verdict
    metrics = step.metrics
    assert metrics["correct_frac"] == metrics["reward_accuracy_mean"]
    expected = 2.0 * metrics["reward_accuracy_mean"] - 0.5 * metrics["reward_brief_mean"]
    assert metrics["reward_mean"] == pytest.approx(expected)


def test_the_schedule_goes_on_over_steps_that_had_no_update(tmp_path: Any):
    recipe = toy_recipe(
        tmp_path,
        explore__steps=10,
        explore__prompts_per_step=1,
        explore__optimizer__schedule="cosine",
        explore__optimizer__learning_rate=1e-3,
    )
    problems = [make_problem(number, answer="-") for number in range(10)]
    steps = explore(recipe, problems, 10)
    rates = {s.step: s.metrics["learning_rate"] for s in steps if "learning_rate" in s.metrics}
    assert 0 < len(rates) < 10  # some groups had a signal, some had none
    # step s of 10 is update s - 1 of 10, whatever became of the steps before
    assert rates == {s: pytest.approx(5e-4 * (1 + cos(pi * (s - 1) / 10))) for s in rates}


def test_a_step_of_fewer_groups_than_updates_takes_its_whole_part_of_the_schedule(tmp_path: Any):
    rates: list[float] = []

    class Recording(NativeEngine):
        """Notes the learning rate of each update."""

        def update(
            self,
            sequences: Sequence[TrainingSequence],
            objective: Objective,
            *,
            learning_rate: float,
        ) -> dict[str, float]:
            rates.append(learning_rate)
            return super().update(sequences, objective, learning_rate=learning_rate)

    recipe = toy_recipe(
        tmp_path, explore__updates_per_step=3, explore__optimizer__schedule="cosine"
    )
    problems = [make_problem(number, answer="-") for number in range(6)]
    steps = explore(recipe, problems, 4, engine=Recording)
    numbers = [round(3 * step.metrics["groups_signal_frac"]) for step in steps]
    assert {1, 2} & set(numbers)
    # three places a step: 0, 1, 2 for three updates; 0, 1.5 for two; 0 for one; then 3, ...
    places = [3 * s + 3 * i / number for s, number in enumerate(numbers) for i in range(number)]
    # of the 12 updates that 4 steps have at most, at a peak of 1e-3
    assert rates == pytest.approx([5e-4 * (1 + cos(pi * place / 12)) for place in places])


def test_several_updates_become_one_line():
    first = {"loss_mean": 1.0, "gap_mean": 0.1, "gap_max": 0.2, "loss_tokens_count": 10.0}
    second = {"loss_mean": 4.0, "gap_mean": 0.9, "gap_max": 0.9, "loss_tokens_count": 20.0}
    # loss: (10 * 1 + 20 * 4) / 30 = 3; the gap is the first update's
    assert mean_metrics([first, second]) == {
        "loss_mean": 3.0,
        "gap_mean": 0.1,
        "gap_max": 0.2,
        "loss_tokens_count": 30.0,
    }
