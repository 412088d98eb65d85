"""Learning rates and the sizes of updates, by hand."""

from math import cos, pi

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rloop.algo.schedule import learning_rate, split_evenly
from rloop.recipe.config import OptimizerConfig


def test_warm_up_is_linear_and_wastes_no_update():
    config = OptimizerConfig(learning_rate=4.0, warmup_frac=0.4)
    # 0.4 of 10 updates is 4: 1/4, 2/4, 3/4, 4/4 of the peak, then the peak
    rates = [learning_rate(config, index, 10) for index in range(11)]
    assert rates == pytest.approx([1.0, 2.0, 3.0, 4.0, 4.0, 4.0, 4.0, 4.0, 4.0, 4.0, 4.0])


def test_cosine_falls_from_the_peak_towards_zero_after_the_warm_up():
    config = OptimizerConfig(learning_rate=2.0, warmup_frac=0.2, schedule="cosine")
    rates = [learning_rate(config, index, 10) for index in range(10)]
    # 2 warm-up updates, then 8: 1 + cos(pi i / 8)
    assert rates == pytest.approx([1.0, 2.0] + [1 + cos(pi * i / 8) for i in range(8)])
    assert learning_rate(OptimizerConfig(learning_rate=2.0, schedule="cosine"), 0, 1) == 2.0


def test_a_place_between_two_updates_has_a_rate_between_theirs():
    config = OptimizerConfig(learning_rate=4.0, warmup_frac=0.4)
    # 4 of 10 updates warm up: at 1.5 it is 2.5 / 4 of the peak, at 3.5 not more than the peak
    assert learning_rate(config, 1.5, 10) == pytest.approx(2.5)
    assert learning_rate(config, 3.5, 10) == pytest.approx(4.0)
    cosine = OptimizerConfig(learning_rate=2.0, schedule="cosine")
    assert learning_rate(cosine, 2.5, 10) == pytest.approx(1 + cos(pi * 2.5 / 10))


def test_a_rest_is_shared_among_the_parts():
    # 82 in 6: 13 each and 4 more; not five of 16 and one of 2
    assert [len(part) for part in split_evenly(range(82), 6)] == [14, 14, 14, 14, 13, 13]
    # 20 groups in 16 updates: 4 of two and 12 of one; not ten of two
    assert [len(part) for part in split_evenly(range(20), 16)] == [2] * 4 + [1] * 12
    assert split_evenly([], 3) == []


@given(st.lists(st.integers(), max_size=60), st.integers(1, 70))
def test_parts_are_all_of_it_in_order_and_sizes_differ_by_one_at_most(items, num_parts):
    parts = split_evenly(items, num_parts)
    assert [item for part in parts for item in part] == items
    assert len(parts) == min(num_parts, len(items))
    sizes = [len(part) for part in parts]
    assert not parts or max(sizes) - min(sizes) <= 1
    assert all(sizes)
