import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from rloop.evaluation.forgetting import (
    ever_solved_loss,
    forgetting,
    forgetting_matrix,
    newly_solved,
    newly_solved_matrix,
    solved_problems,
)

A = np.array([True, True, True, True, False, False])
B = np.array([True, False, False, True, True, False])


def test_forgetting_and_newly_solved_equal_values_worked_by_hand() -> None:
    assert forgetting(A, B) == 0.5  # a solved 4, of which b lost 2
    assert newly_solved(A, B) == 0.5  # a missed 2, of which b solved 1
    assert forgetting(B, A) == pytest.approx(1 / 3)  # b solved 3, of which a misses 1


def test_solved_means_any_correct_or_a_success_rate() -> None:
    assert solved_problems(8, [0, 1, 4]).tolist() == [False, True, True]
    assert solved_problems(8, [0, 1, 4], min_success_rate=0.5).tolist() == [False, False, True]


def test_matrices_have_the_earlier_checkpoint_as_row() -> None:
    matrix = forgetting_matrix(np.stack([A, B]))
    assert matrix.tolist() == [[0.0, 0.5], [pytest.approx(1 / 3), 0.0]]
    assert newly_solved_matrix(np.stack([A, B]))[0, 1] == 0.5


def test_ever_solved_loss_counts_what_the_union_knew() -> None:
    # the union solves 5 of 6 problems, the last checkpoint 3 of them: 2/6 lost
    assert ever_solved_loss(np.stack([A, B])) == pytest.approx(2 / 6)


def test_nothing_to_forget_is_undefined() -> None:
    nothing = np.zeros(3, dtype=bool)
    assert math.isnan(forgetting(nothing, ~nothing))
    assert math.isnan(newly_solved(~nothing, nothing))


@given(arrays(np.bool_, st.tuples(st.integers(1, 5), st.integers(1, 30))))
def test_a_checkpoint_forgets_nothing_of_its_own_and_the_loss_is_a_fraction(solved) -> None:
    for name in (forgetting_matrix, newly_solved_matrix):
        assert np.nan_to_num(np.diag(name(solved))).tolist() == [0.0] * len(solved)
    assert 0.0 <= ever_solved_loss(solved) <= 1.0
    assert ever_solved_loss(solved[-1:]) == 0.0
