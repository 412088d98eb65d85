import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rloop.evaluation.diversity import (
    distinct_answers,
    distinct_n,
    inter_step_similarity,
    jaccard,
    token_ngrams,
    trajectory_diversity,
)

groups = st.lists(st.lists(st.lists(st.integers(0, 3), max_size=8), max_size=4), max_size=4)


def test_ngrams_slide_by_one_token_and_a_short_completion_is_its_own() -> None:
    assert token_ngrams([1, 2, 3, 4, 5]) == [(1, 2, 3, 4), (2, 3, 4, 5)]
    assert token_ngrams([1, 2]) == [(1, 2)]
    assert token_ngrams([]) == [()]


def test_jaccard_equals_shared_over_union() -> None:
    a = frozenset(token_ngrams([1, 2, 3, 4, 5]))  # {1234, 2345}
    b = frozenset(token_ngrams([1, 2, 3, 4, 6]))  # {1234, 2346}
    assert jaccard(a, b) == pytest.approx(1 / 3)


def test_diversity_equals_a_value_worked_by_hand() -> None:
    first = [[1, 2, 3, 4, 5], [1, 2, 3, 4, 6], [7, 8, 9, 7]]
    # pairs: 1/3, 0, 0 -> mean similarity 1/9; second problem: 1 -> mean (1/9 + 1) / 2 = 5/9
    assert trajectory_diversity([first, [[5, 5], [5, 5]]]) == pytest.approx(4 / 9)


def test_problems_with_one_completion_have_no_diversity() -> None:
    assert trajectory_diversity([[[1, 2, 3, 4]], [[1], [2]]]) == 1.0
    assert math.isnan(trajectory_diversity([[[1, 2, 3, 4]]]))


def test_inter_step_similarity_compares_every_pair_of_shared_problems() -> None:
    step_a = {"p": [[1, 2, 3, 4]], "only_a": [[1]]}
    step_b = {"p": [[1, 2, 3, 4], [9, 9]], "only_b": [[1]]}
    assert inter_step_similarity(step_a, step_b) == 0.5  # (1 + 0) / 2
    assert math.isnan(inter_step_similarity(step_a, {"only_b": [[1]]}))


def test_distinct_answers_counts_what_was_found() -> None:
    assert distinct_answers([["4", "4", "5", None], [None, None]]) == 1.0  # (2 + 0) / 2


def test_distinct_n_is_distinct_over_all() -> None:
    # 2-grams: 12, 21, 12 of the first and 12 of the second: 2 distinct of 4
    assert distinct_n([[1, 2, 1, 2], [1, 2]], 2) == 0.5
    assert math.isnan(distinct_n([], 2))


@given(groups)
def test_diversity_is_a_fraction_and_does_not_depend_on_order(completions) -> None:
    value = trajectory_diversity(completions)
    if math.isnan(value):
        assert all(len(group) < 2 for group in completions)
        return
    assert 0.0 <= value <= 1.0
    reversed_groups = [group[::-1] for group in completions[::-1]]
    assert trajectory_diversity(reversed_groups) == pytest.approx(value)


@given(st.lists(st.lists(st.integers(0, 3), max_size=8), min_size=1, max_size=1))
def test_a_step_with_one_completion_a_problem_is_like_itself(group) -> None:
    assert inter_step_similarity({"p": group}, {"p": group}) == 1.0
