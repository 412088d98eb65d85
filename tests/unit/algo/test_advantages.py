"""Group advantages and the overlong penalty, with numbers worked by hand."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rloop.algo.advantages import (
    dr_grpo_advantages,
    group_advantages,
    grpo_advantages,
    has_signal,
    rloo_advantages,
    soft_overlong_penalty,
)

ESTIMATORS = ["grpo", "dr_grpo", "rloo"]
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


@pytest.mark.parametrize("estimator", ESTIMATORS)
@pytest.mark.parametrize("group", [[0.1] * 3, [1.0], [0.7, 0.7], [1 / 3] * 7])
def test_group_of_equal_rewards_has_zero_advantage_exactly(estimator, group):
    assert not has_signal(group)
    assert group_advantages(group, estimator) == [0.0] * len(group)


@pytest.mark.parametrize("estimator", ESTIMATORS)
@settings(deadline=None)
@given(rewards=rewards)
def test_advantages_sum_to_zero_and_keep_the_order_of_rewards(estimator, rewards):
    advantages = group_advantages(rewards, estimator)
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
