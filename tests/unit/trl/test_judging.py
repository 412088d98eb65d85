"""Completions in, groups and advantages out: numbers by hand."""

import math
from dataclasses import replace

import pytest
from doubles_policies import InstantVerify, make_problem

from rloop.config import ExploreConfig, SamplingConfig
from rloop.engines.trl.judging import Judge, step_advantages
from rloop.engines.trl.messages import Sampled
from rloop.errors import EngineError, NonFinitePolicy
from rloop.types import Completion, Place

PLACE = Place(run="toy", seed=0, iteration=1, phase="explore", step=3, policy="explored-001")
SETTINGS = SamplingConfig(max_completion_tokens=4)
PROBLEMS = [make_problem(1, answer="7"), make_problem(2, answer="8")]


def completion(text: str, num_tokens: int = 2) -> Completion:
    return Completion(
        prompt_text="?",
        prompt_ids=(5,),
        completion_text=text,
        completion_ids=(6,) * num_tokens,
        behavior_logprobs=(-0.5,) * num_tokens,
        finish_reason="length",
    )


def groups(*completions: Completion):
    sampled = Sampled(completions=completions, template_version="t", policy_version=2)
    return Judge(InstantVerify()).groups(PROBLEMS, 2, sampled, SETTINGS, PLACE)


def config(**changes: object) -> ExploreConfig:
    values = {
        "steps": 1,
        "prompts_per_step": 2,
        "group_size": 2,
        "sampling": SETTINGS,
        "optimizer": {"learning_rate": 1e-3},
        "advantage": "dr_grpo",
    }
    return ExploreConfig.model_validate(values | changes)


def test_groups_have_their_problems_and_members_in_order():
    first, second = groups(*map(completion, ("7", "no", "no", "8")))
    assert [first.problem, second.problem] == PROBLEMS
    assert [t.reward for t in first.trajectories] == [1.0, 0.0]
    assert [t.reward for t in second.trajectories] == [0.0, 1.0]
    assert [(t.member, t.policy_version, t.place) for t in second.trajectories] == [
        (0, 2, PLACE),
        (1, 2, PLACE),
    ]
    assert second.trajectories[1].group_id == "1/explore/3/toy/train/2"


def test_a_lost_completion_is_an_error():
    with pytest.raises(EngineError, match="handed over 3 completions, 4 were asked for"):
        groups(*map(completion, ("7", "no", "no")))


def test_a_completion_drawn_from_nan_is_no_data():
    broken = replace(completion("7"), behavior_logprobs=(-0.5, math.nan))
    with pytest.raises(NonFinitePolicy, match="explored-001 gives NaN"):
        groups(broken, *map(completion, ("no", "no", "no")))


def test_advantages_make_up_for_groups_without_a_signal():
    """The first group has 1 + 2 = 3 tokens and a signal, the second 4 + 2 = 6 and none: TRL divides
    by 9, rloop by 3, so advantages of +-0.5 become +-1.5. By sequences it is 4 / 2.
    """
    step = groups(completion("7", 1), completion("no", 2), completion("no", 4), completion("no"))
    assert step_advantages(step, config()) == pytest.approx((1.5, -1.5, 0.0, 0.0))
    assert step_advantages(step, config(loss="gspo")) == pytest.approx((1.0, -1.0, 0.0, 0.0))
    assert step_advantages(step, config(advantage="rloo")) == pytest.approx((3.0, -3.0, 0.0, 0.0))


def test_a_step_without_a_signal_moves_nothing():
    assert step_advantages(groups(*map(completion, ("no",) * 4)), config()) == (0.0,) * 4


def test_an_overlong_completion_has_a_lower_advantage():
    """A buffer of 2 of 4 tokens: 4 tokens cost the whole penalty of 0.5, 2 tokens nothing."""
    step = groups(completion("7", 4), completion("no", 2), completion("8"), completion("8"))
    found = step_advantages(step, config(overlong_buffer_tokens=2, overlong_penalty=0.5))
    # Rewards 0.5 and 0 against each other; 6 of 10 tokens are in that group.
    assert found == pytest.approx((0.25 * 10 / 6, -0.25 * 10 / 6, 0.0, 0.0))


def test_lengths_alone_give_no_advantage():
    step = groups(completion("no", 4), completion("no", 2), completion("8", 4), completion("8"))
    assert step_advantages(step, config(overlong_buffer_tokens=2)) == (0.0,) * 4
