"""What an exploration gets of the run's RL steps: worked by hand, and the total as a property."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rloop.config import ExploreConfig
from rloop.loop.step_budget import StepBudget


def explore(steps: int, total: int | None, least: int) -> ExploreConfig:
    data: dict[str, Any] = {
        "steps": steps,
        "total_steps": total,
        "prompts_per_step": 1,
        "group_size": 2,
        "sampling": {"max_completion_tokens": 1},
        "optimizer": {"learning_rate": 1e-3},
        "early_stop": {"min_steps": least},
    }
    return ExploreConfig.model_validate(data)


@pytest.mark.parametrize(
    ("used", "num_steps"),
    [
        (0, 50),
        (30, 50),
        (90, 50),  # 60 are left: the last one has 10, which is enough
        (91, 59),  # 59 are left: the last one would have 9
        (100, 50),
        (140, 10),
    ],
)
def test_no_exploration_is_left_with_fewer_than_the_least(used, num_steps):
    assert StepBudget.of(explore(50, 150, 10), used).num_steps == num_steps


def test_without_a_total_each_has_its_steps():
    budget = StepBudget.of(explore(50, None, 10), 1000)
    assert budget == StepBudget(num_steps=50, min_steps=10, left=None)
    assert [budget.may_end(step) for step in (9, 10, 49)] == [False, True, True]


def test_a_rule_may_end_it_where_enough_was_done_and_enough_is_left():
    budget = StepBudget.of(explore(50, 150, 10), 95)
    # of 55 left, all 55: after step 45 the next one still has 10
    assert budget.num_steps == 55
    assert [budget.may_end(step) for step in (9, 10, 45, 46)] == [False, True, True, False]


@given(data=st.data(), steps=st.integers(1, 30), total=st.integers(1, 200))
def test_explorations_that_end_at_any_time_use_up_the_total(data, steps, total):
    least = data.draw(st.integers(1, steps))
    config = explore(steps, total, least)
    used = turns = 0
    while used < total:
        budget = StepBudget.of(config, used)
        ends = [step for step in range(1, budget.num_steps) if budget.may_end(step)]
        used += data.draw(st.sampled_from([*ends, budget.num_steps]))
        turns += 1
    assert used == total
    assert turns <= max(1, -(-total // least))
