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
    lost_between_halves,
    newly_solved,
    newly_solved_matrix,
)

A = np.array([True, True, True, True, False, False])
B = np.array([True, False, False, True, True, False])


def test_forgetting_and_newly_solved_equal_values_worked_by_hand() -> None:
    assert forgetting(A, B) == 0.5  # a solved 4, of which b lost 2
    assert newly_solved(A, B) == 0.5  # a missed 2, of which b solved 1
    assert forgetting(B, A) == pytest.approx(1 / 3)  # b solved 3, of which a misses 1


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


def test_loss_from_half_to_half_equals_a_value_worked_by_hand() -> None:
    before = np.array([[True, True], [True, False], [False, False]])
    after = np.array([[True, False], [True, True], [False, True]])
    # before solves 3 halves; from its first half of the first problem after's second is missing
    assert lost_between_halves(before, after) == pytest.approx(1 / 3)
    # of its own only the second problem is missing in the other half
    assert lost_between_halves(before, before) == pytest.approx(1 / 3)
    assert math.isnan(lost_between_halves(before[2:], after[2:]))


@pytest.mark.parametrize(
    ("num_samples", "mean", "concentration"),
    [(32, 0.13, 1), (32, 0.05, 1), (64, 0.07, 1), (8, 0.07, 2)],
)
def test_chance_forgetting_has_no_winners_curse(num_samples, mean, concentration) -> None:
    """Rates are Beta. The truth is what n / 2 new samples miss of what n / 2 others solved.

    4,000 problems x 100 policies: an error of about 0.0005. Counting again by c / n of the problems
    that were solved, sum of (1 - c/n)^n, is 25 % and more too low.
    """
    rng = np.random.default_rng(num_samples)
    half = num_samples // 2
    rates = rng.beta(mean * concentration, (1 - mean) * concentration, 400_000)
    missed = (1 - rates) ** half
    truth = ((1 - missed) * missed).sum() / (1 - missed).sum()
    counts = rng.binomial(half, rates[:, None], (len(rates), 2))
    assert lost_between_halves(counts > 0, counts > 0) == pytest.approx(truth, rel=0.02)
    whole = counts.sum(axis=1)
    plug_in = ((1 - whole / num_samples) ** num_samples)[whole > 0].mean()
    missed_of_all = (1 - rates) ** num_samples
    truth_of_all = ((1 - missed_of_all) * missed_of_all).sum() / (1 - missed_of_all).sum()
    assert plug_in < 0.85 * truth_of_all
