import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rloop.observe.metrics import Max, Mean, Sum, values_of

numbers = st.lists(st.integers(-100, 100).map(float))


def test_a_merged_mean_is_not_the_mean_of_means():
    # means 1 and 4/3, their mean 7/6; all four numbers: 5 / 4
    assert (Mean.of([1.0]) + Mean.of([1.0, 1.0, 2.0])).value == 1.25


def test_a_mean_of_nothing_is_undefined():
    assert math.isnan(Mean().value)
    assert (Mean() + Mean.of([3.0])).value == 3.0


def test_a_maximum_does_not_hide_nan():
    assert math.isnan((Max(1.0) + Max(math.nan)).value)
    assert math.isnan((Max(math.nan) + Max(1.0)).value)


@given(numbers, numbers)
def test_parts_merge_to_the_whole(first, second):
    both = [*first, *second]
    assert Mean.of(first) + Mean.of(second) == Mean.of(both)
    assert sum(map(Sum, both), Sum()).value == sum(both)
    assert sum(map(Max, both), Max()).value == max(both, default=-math.inf)


def test_values_are_plain_numbers():
    found = values_of({"reward_mean": Mean(3.0, 4), "gap_max": Max(2.0), "tokens_count": Sum(5.0)})
    assert found == pytest.approx({"reward_mean": 0.75, "gap_max": 2.0, "tokens_count": 5.0})
