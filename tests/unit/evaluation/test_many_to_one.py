import numpy as np
import pytest

from rloop.evaluation.metrics import pass_at_k
from rloop.evaluation.overfitting import compare_with_last


def make_rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def sampled(rates, rng: np.random.Generator, k: int = 8) -> np.ndarray:
    """pass@k [C, P] of 8 samples of each problem, right with the probabilities `rates` [C, P]."""
    table: np.ndarray = np.array([pass_at_k(8, c, k) for c in range(9)])
    values: np.ndarray = table[rng.binomial(8, rates)]
    return values


def is_fall(values: np.ndarray, seed: int) -> bool:
    compared = compare_with_last(values, rng=make_rng(seed), confidence=0.95)
    best = int(values[:-1].mean(axis=1).argmax())
    return compared.differences[best].value < 0 and compared.sure[best] >= 0.95


def test_two_checkpoints_give_the_paired_t_interval():
    """An endpoint's standard error with 10,000 draws is 0.04 errors; 0.15 is four of them."""
    first = np.zeros(10)
    last = np.array([1, 1, 1, 1, 1, 1, 0, 0, 0, 0])
    found = compare_with_last(np.stack([first, last]), rng=make_rng(), confidence=0.95)
    (difference,) = found.differences
    # mean 0.6, variance 6 * 0.4 / 9 = 0.2667, error sqrt(0.02667) = 0.1633; t(0.975; 9) = 2.262
    assert difference.value == pytest.approx(0.6)
    assert (difference.high - 0.6) / 0.1633 == pytest.approx(2.262, abs=0.15)
    # t = 0.6 / 0.1633 = 3.674; P(|t| > 3.674) with 9 degrees of freedom is 0.0051
    assert found.sure == [pytest.approx(1 - 0.0051, abs=0.003)]


@pytest.mark.parametrize(("num_earlier", "expected"), [(1, 2.23), (2, 2.57), (3, 2.76), (9, 3.24)])
def test_critical_values_are_those_of_dunnetts_table(num_earlier: int, expected: float):
    """Two-sided 5 % points at 10 degrees of freedom, equal correlations of 0.5 (Dunnett 1964).

    Rows of an orthonormal basis of contrasts over 11 problems are uncorrelated and alike, so the
    differences from the last one have the correlation 0.5, and the error sqrt(2 / 10 / 11).
    """
    basis = np.linalg.qr(np.column_stack([np.ones(11), np.eye(11)[:, :10]]))[0].T[1:]
    values = basis[: num_earlier + 1]
    found = compare_with_last(values, rng=make_rng(), confidence=0.95)
    half = (found.differences[0].high - found.differences[0].low) / 2
    assert half / np.sqrt(2 / 110) == pytest.approx(expected, abs=0.15)


@pytest.mark.parametrize("k", [1, 8])
@pytest.mark.parametrize("num_problems", [8, 60])
def test_equal_checkpoints_seldom_raise_a_false_alarm(k: int, num_problems: int):
    """200 runs of 10 equal checkpoints each: at most 2.5 % falls are due, 5 % are allowed.

    Taking the best against the last without allowing for the choice alarms far more often.
    """
    alarms = naive = 0
    for seed in range(200):
        rng = make_rng(seed)
        rates = np.tile(rng.beta(0.5, 1.0, num_problems), (10, 1))
        values = sampled(rates, rng, k)
        alarms += is_fall(values, seed)
        if num_problems > 8:  # with few, values are so few that even a careless test is slow
            best = values[:-1].mean(axis=1).argmax()
            naive += is_fall(values[[best, -1]], seed)
    assert alarms <= 10
    assert num_problems == 8 or naive > alarms + 5


def test_a_policy_that_learned_and_then_stayed_seldom_raises_a_false_alarm():
    """200 runs that rise over five checkpoints and stay for five: at most 5 % alarms."""
    alarms = 0
    for seed in range(200):
        rng = make_rng(seed)
        final = rng.beta(1.0, 1.0, 60)
        progress = np.minimum(1.0, np.linspace(0.2, 1.8, 10))[:, None]
        alarms += is_fall(sampled(final * progress, rng), seed)
    assert alarms <= 10


def test_a_real_fall_is_found():
    """200 problems, the success rate of each halves after the sixth of ten checkpoints.

    pass@8 falls by about 12 points: 47 of 50 runs say so with these seeds.
    """
    found = 0
    for seed in range(50):
        rng = make_rng(seed)
        rates = np.tile(rng.beta(0.5, 1.0, 200), (10, 1))
        rates[6:] /= 2
        found += is_fall(sampled(rates, rng), seed)
    assert found >= 45


def test_checkpoints_that_are_the_same_leave_no_doubt():
    values = np.tile([0.0, 1.0, 1.0, 0.5], (3, 1))
    found = compare_with_last(values, rng=make_rng(), confidence=0.95)
    assert found.sure == [0.0, 0.0]
    assert [(d.value, d.low, d.high) for d in found.differences] == [(0.0, 0.0, 0.0)] * 2


def test_a_loss_of_every_problem_alike_is_sure():
    values = np.array([[1.0] * 8, [0.0] * 8])
    found = compare_with_last(values, rng=make_rng(), confidence=0.95)
    assert found.differences[0].value == -1.0
    assert found.sure[0] > 0.999


def test_surety_and_interval_say_the_same():
    rng = make_rng(1)
    for _ in range(20):
        values = sampled(rng.random((5, 30)), rng)
        found = compare_with_last(values, rng=rng, confidence=0.9)
        for difference, sure in zip(found.differences, found.sure, strict=True):
            assert difference.is_clear_of_zero == (sure >= 0.9)
