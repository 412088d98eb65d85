"""Group advantages and the overlong penalty, with numbers worked by hand."""

from dataclasses import replace
from typing import Any

import pytest
from doubles_records import group_at, place_at
from hypothesis import given, settings
from hypothesis import strategies as st

from rloop.algo.advantages import (
    ESTIMATORS,
    dr_grpo_advantages,
    grpo_advantages,
    has_signal,
    is_trained_on,
    maxrl_advantages,
    member_advantages,
    rloo_advantages,
    soft_overlong_penalty,
)
from rloop.recipe.config import ExploreConfig
from rloop.types import Group, Trajectory, Verdict

rewards = st.lists(st.floats(-2, 2).map(lambda x: round(x, 3)), min_size=1, max_size=16)


def test_grpo_divides_by_the_sample_standard_deviation():
    # mean 1/4; squares 9/16 + 3/16 = 12/16; / (4 - 1) = 1/4; std 1/2; (3/4) / (1/2) = 1.5
    assert grpo_advantages([1, 0, 0, 0]) == pytest.approx([1.5, -0.5, -0.5, -0.5], abs=1e-5)
    # 1e-6 is added to the std: 0.75 / 0.500001
    assert grpo_advantages([1, 0, 0, 0])[0] == pytest.approx(0.75 / 0.500001, abs=1e-12)


def test_dr_grpo_subtracts_the_mean_alone():
    assert dr_grpo_advantages([1, 0, 0, 0]) == [0.75, -0.25, -0.25, -0.25]


def test_rloo_subtracts_the_mean_of_the_others():
    # 1 - 0/3 = 1; 0 - 1/3
    assert rloo_advantages([1, 0, 0, 0]) == pytest.approx([1, -1 / 3, -1 / 3, -1 / 3])


def test_maxrl_divides_by_the_success_rate():
    # mean 1/4: 0.75 / 0.25 = 3; mean 3/4: 0.25 / 0.75 = 1/3
    assert maxrl_advantages([1, 0, 0, 0]) == [3.0, -1.0, -1.0, -1.0]
    assert maxrl_advantages([1, 1, 1, 0]) == pytest.approx([1 / 3, 1 / 3, 1 / 3, -1.0])


@pytest.mark.parametrize("estimator", ESTIMATORS.values(), ids=ESTIMATORS)
@pytest.mark.parametrize("group", [[0.1] * 3, [1.0], [0.7, 0.7], [1 / 3] * 7])
def test_group_of_equal_rewards_has_zero_advantage_exactly(estimator, group):
    assert not has_signal(group)
    assert estimator(group) == [0.0] * len(group)


@pytest.mark.parametrize("estimator", ESTIMATORS.values(), ids=ESTIMATORS)
@settings(deadline=None)
@given(rewards=rewards)
def test_advantages_sum_to_zero_and_keep_the_order_of_rewards(estimator, rewards):
    if estimator is maxrl_advantages:
        rewards = [abs(reward) for reward in rewards]
    advantages = estimator(rewards)
    assert sum(advantages) == pytest.approx(0.0, abs=1e-9)
    by_reward = sorted(range(len(rewards)), key=lambda i: (rewards[i], advantages[i]))
    assert [advantages[i] for i in by_reward] == sorted(advantages)
    if has_signal(rewards):
        assert max(advantages) > 0 > min(advantages)


@settings(deadline=None)
@given(rewards=rewards.filter(lambda group: len(group) > 1))
def test_rloo_is_dr_grpo_times_n_over_n_minus_1(rewards):
    scale = len(rewards) / (len(rewards) - 1)
    expected = [scale * advantage for advantage in dr_grpo_advantages(rewards)]
    assert rloo_advantages(rewards) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize(
    ("num_tokens", "expected"),
    [
        (1, 0.0),
        (80, 0.0),  # the buffer begins after 100 - 20
        (85, -0.125),  # 5 of 20 tokens into it: -0.5 * 5 / 20
        (90, -0.25),
        (100, -0.5),  # the limit itself
        (120, -0.5),  # beyond it nothing is added
    ],
)
def test_overlong_penalty_is_linear_over_the_buffer(num_tokens, expected):
    found = soft_overlong_penalty(num_tokens, max_tokens=100, buffer_tokens=20, penalty=0.5)
    assert found == pytest.approx(expected)


def test_without_a_buffer_there_is_no_penalty():
    assert soft_overlong_penalty(100, max_tokens=100, buffer_tokens=0, penalty=1.0) == 0.0


def explore(**changes: Any) -> ExploreConfig:
    """Return settings under which ten tokens are the most, and Dr. GRPO's plain differences."""
    data = {
        "steps": 1,
        "prompts_per_step": 1,
        "group_size": 2,
        "sampling": {"max_completion_tokens": 10},
        "optimizer": {"learning_rate": 1e-3},
        "advantage": "dr_grpo",
    }
    return ExploreConfig.model_validate(data | changes)


def group_of(*members: tuple[str, bool]) -> Group:
    return group_at(place_at(), completions=members)


def changed(group: Group, **changes: Trajectory) -> Group:
    """Return the group with the members of these numbers (`m1`) replaced."""
    members = enumerate(group.trajectories)
    return replace(group, trajectories=tuple(changes.get(f"m{i}", t) for i, t in members))


def failed(group: Group, number: int) -> Trajectory:
    verdict = Verdict(kind="error", reason="no verdict within 5 s")
    return replace(group.trajectories[number], verdict=verdict, reward=0.0)


@pytest.mark.parametrize("is_correct", [True, False])
def test_length_shaping_alone_makes_no_signal(is_correct):
    # Penalties 0 and -1 differ, correctness does not: DAPO 3.2 filters by accuracy.
    group = group_of(("1", is_correct), ("123456789", is_correct))
    assert member_advantages(group, explore(overlong_buffer_tokens=4)) is None


def test_graded_rewards_alone_make_no_signal_and_rank_the_members_of_a_mixed_group():
    group = group_of(("1", False), ("2", False))
    graded = replace(group.trajectories[1], reward=0.8)
    assert member_advantages(changed(group, m1=graded), explore()) is None
    mixed = group_of(("1", False), ("2", False), ("3", True))
    graded = replace(mixed.trajectories[1], reward=0.5)
    # rewards 0, 0.5, 1: mean 0.5
    found = member_advantages(changed(mixed, m1=graded), explore())
    assert found == pytest.approx([-0.5, 0.0, 0.5])


def test_a_mixed_group_is_shaped_by_length():
    group = group_of(("1", True), ("123456789", True), ("3", False))
    # penalties: 2 and 2 tokens none, 10 tokens -1; rewards 1, 0, 0; mean 1/3
    found = member_advantages(group, explore(overlong_buffer_tokens=4))
    assert found == pytest.approx([2 / 3, -1 / 3, -1 / 3])


def test_a_mixed_group_of_equal_sums_has_no_signal():
    group = group_of(("1", True), ("2", False))
    equal = replace(group.trajectories[1], reward=1.0)
    assert member_advantages(changed(group, m1=equal), explore()) is None


def test_a_failed_verdict_is_neither_right_nor_wrong():
    group = group_of(("1", True), ("2", True), ("3", True))
    assert member_advantages(changed(group, m2=failed(group, 2)), explore()) is None
    mixed = group_of(("1", True), ("2", False), ("3", True), ("4", False))
    found = changed(mixed, m3=failed(mixed, 3))
    # of the three that are known the mean is 2/3
    assert member_advantages(found, explore()) == pytest.approx([1 / 3, -2 / 3, 1 / 3, 0.0])
    trained = [is_trained_on(t, explore()) for t in found.trajectories]
    assert trained == [True, True, True, False]


def test_a_failed_reward_leaves_its_completion_out():
    group = group_of(("1", True), ("2", False), ("3", False))
    verdict = Verdict(kind="error", reason="judge is busy")
    unknown = replace(group.trajectories[2], rewards={"judge": verdict}, reward=0.0)
    # of rewards 1 and 0 the mean is 0.5
    assert member_advantages(changed(group, m2=unknown), explore()) == [0.5, -0.5, 0.0]


def test_truncated_members_are_masked_where_asked_and_count_for_their_group():
    group = group_of(("1", True), ("2", False))
    first = group.trajectories[1]
    cut = replace(first, completion=replace(first.completion, finish_reason="length"))
    group = changed(group, m1=cut)
    for is_masked in (False, True):
        config = explore(mask_truncated=is_masked)
        assert member_advantages(group, config) == [0.5, -0.5]
        assert is_trained_on(group.trajectories[0], config)
        assert is_trained_on(cut, config) != is_masked
