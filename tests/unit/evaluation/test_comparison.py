"""Intervals over seeds and problems: worked by hand, and simulated."""

from math import sqrt

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rloop.evaluation.comparison import seed_difference, seed_mean
from rloop.evaluation.intervals import mean_difference, mean_fraction
from rloop.evaluation.metrics import metric_values


def test_the_interval_of_a_mean_is_the_two_parts_in_quadrature():
    values = [[0.0, 0.5], [0.5, 1.0]]
    # problem means .25, .75: var .125 / 2 problems = .0625; t(1) = 12.7062
    # seed means .25, .75: the same .0625; no noise: every value is the sum of its row's and
    # column's part; so half = 12.7062 * sqrt(.0625 + .0625) = 4.49, cut to 0 .. 1
    found = seed_mean(values, confidence=0.95)
    assert (found.value, found.low, found.high) == (0.5, 0.0, 1.0)
    # at 50 % t(1) = tan(pi/4) = 1: half = sqrt(.125) = .353553
    found = seed_mean(values, confidence=0.5)
    assert found.low == pytest.approx(0.5 - sqrt(0.125), abs=1e-6)
    assert found.high == pytest.approx(0.5 + sqrt(0.125), abs=1e-6)


def test_noise_is_not_counted_twice():
    values = [[0.0, 0.5], [0.5, 0.4]]
    # problem means .25, .45 and seed means .25, .45: var .02 / 2 = .01 each
    # residuals of 0 - .25 - .25 + .35 = -.15, .15, .15, -.15: .09 / 1 / 4 = .0225 of noise, more
    # than problems vary, so they add nothing to the seeds: half = 1 * sqrt(.01) at 50 %
    found = seed_mean(values, confidence=0.5)
    assert (found.value, found.low, found.high) == pytest.approx((0.35, 0.25, 0.45), abs=1e-6)


def test_seeds_that_agree_by_chance_do_not_hide_the_problems():
    values = [[0.0, 0.8], [0.2, 0.6]]
    # seed means .4, .4: no variance; problem means .1, .7: .18 / 2 = .09; residuals -+.1: .04 / 4 =
    # .01; seeds and problems beyond the noise give .08, problems alone .09: half = .3 at 50 %
    found = seed_mean(values, confidence=0.5)
    assert (found.low, found.high) == pytest.approx((0.1, 0.7), abs=1e-6)


def test_a_difference_is_paired_on_problems_and_adds_both_sides_seeds():
    ours, theirs = [[0.2, 0.9], [0.4, 0.9]], [[0.1, 0.6], [0.1, 0.6]]
    found = seed_difference(ours, theirs, is_paired_by_seed=False, confidence=0.5)
    # paired problem means: .3 - .1 = .2 and .9 - .6 = .3; var .005 / 2 = .0025; t(1) = 1 at 50 %
    # our seed means .55, .65: var .005 / 2 = .0025; theirs do not vary
    # noise: residuals -.05, .05, .05, -.05 -> .01 / 1 / 4 = .0025, all that problems vary by
    # so half = sqrt(.0025 + 0) = .05
    assert found.value == pytest.approx(0.25)
    assert (found.low, found.high) == pytest.approx((0.2, 0.3), abs=1e-6)


def test_pairing_by_seed_cancels_what_the_runs_of_a_seed_share():
    start = np.repeat([[0.1, 0.3], [0.5, 0.7]], 20, axis=1)

    def compare(*, is_paired_by_seed):
        return seed_difference(
            start + 0.2, start, is_paired_by_seed=is_paired_by_seed, confidence=0.95
        )

    paired = compare(is_paired_by_seed=True)
    # all 40 problems gain .2 with both seeds: 1 - .025^(1/40) = .088097 of 1.2 below, of .8 above
    assert (paired.value, paired.low, paired.high) == pytest.approx(
        (0.2, 0.094283, 0.270478), abs=1e-6
    )
    assert compare(is_paired_by_seed=False).low < -0.5


def test_one_seed_gives_the_interval_over_problems():
    values = np.random.default_rng(0).random((1, 30))
    assert seed_mean(values, confidence=0.95) == mean_fraction(values[0], 0.95)
    several = np.vstack([values * 0.5, values * 0.7])
    found = seed_difference(values, several, is_paired_by_seed=False, confidence=0.95)
    assert found == mean_difference(values[0] - several.mean(axis=0), 0.95)


def test_seeds_that_all_solve_everything_leave_the_bound_over_problems():
    found = seed_mean(np.ones((3, 16)), confidence=0.95)
    assert (found.value, found.low, found.high) == pytest.approx((1.0, 0.794093, 1.0), abs=1e-6)
    same = seed_difference(
        np.ones((3, 16)), np.ones((3, 16)), is_paired_by_seed=True, confidence=0.95
    )
    assert (same.low, same.high) == pytest.approx((-0.205907, 0.205907), abs=1e-6)


def test_problems_without_spread_have_at_least_the_spread_of_their_seeds():
    values = [[0.4] * 60, [0.5] * 60, [0.6] * 60]
    found = seed_mean(values, confidence=0.95)
    # sd of seed means .1 / sqrt(3) * t(2) = .0577350 * 4.302653 = .248414; the bound over problems,
    # 1 - .025^(1/60) = .059629 of .5 either way, lies inside
    assert (found.low, found.high) == pytest.approx((0.5 - 0.248414, 0.5 + 0.248414), abs=1e-5)


def test_one_problem_says_next_to_nothing_of_others():
    found = seed_mean([[0.4], [0.5], [0.6]], confidence=0.95)
    assert (found.low, found.high) == pytest.approx((0.0125, 0.9875))  # .5 -+ .975 * .5


@pytest.mark.parametrize("wrong", [[0.1, 0.2], [[]], 0.5])
def test_other_shapes_are_refused(wrong):
    with pytest.raises(ValueError, match=r"\[seeds, problems\]"):
        seed_mean(wrong, confidence=0.95)


def test_other_problems_are_refused():
    with pytest.raises(ValueError, match="got 2 and 3"):
        seed_difference([[0.1, 0.2]], [[0.1, 0.2, 0.3]], is_paired_by_seed=True, confidence=0.95)


@given(st.integers(2, 5), st.integers(1, 6), st.integers(0, 2**32 - 1), st.booleans())
def test_order_of_seeds_and_problems_and_the_sign_do_not_matter(
    num_seeds, num_problems, seed, is_paired
):
    draw = np.random.default_rng(seed)
    ours, theirs = draw.random((2, num_seeds, num_problems))

    def compare(a, b):
        return seed_difference(a, b, is_paired_by_seed=is_paired, confidence=0.9)

    there, back = compare(ours, theirs), compare(theirs, ours)
    assert (there.low, there.high) == pytest.approx((-back.high, -back.low))
    order = draw.permutation(num_problems)
    again = compare(ours[::-1, order], theirs[::-1, order])
    assert (there.low, there.high) == pytest.approx((again.low, again.high))


def simulate(draw, num_seeds, num_problems, *, seed_sd, shared):
    """Return counts [S, P] of 8 samples: a logit is problem + seed + their interaction."""
    logits = shared + draw.normal(0, seed_sd, (num_seeds, 1))
    logits = logits + draw.normal(0, 0.5, (num_seeds, num_problems))
    return draw.binomial(8, 1 / (1 + np.exp(-logits)))


CASES = [(3, 16, 0.0), (3, 40, 0.3), (3, 100, 1.0), (5, 40, 0.3), (5, 200, 0.1), (2, 40, 0.3)]


@pytest.mark.parametrize(("num_seeds", "num_problems", "seed_sd"), CASES)
def test_a_95_percent_interval_covers_the_mean_over_new_seeds_and_problems(
    num_seeds, num_problems, seed_sd
):
    """1,500 repetitions: a coverage of 0.95 falls below 0.925 once in 200,000, seeds are fixed."""
    draw = np.random.default_rng([7, num_seeds, num_problems])
    spread = sqrt(seed_sd**2 + 1.5**2 + 0.5**2)
    truth = (1 / (1 + np.exp(-draw.normal(0, spread, 1_000_000)))).mean()
    covered = 0
    for _ in range(1500):
        shared = draw.normal(0, 1.5, num_problems)
        counts = simulate(draw, num_seeds, num_problems, seed_sd=seed_sd, shared=shared)
        found = seed_mean(metric_values("avg", 8, counts), confidence=0.95)
        covered += found.low <= truth <= found.high
    assert 0.925 <= covered / 1500 <= 0.995


@pytest.mark.parametrize("is_paired", [True, False])
@pytest.mark.parametrize(("num_seeds", "num_problems", "seed_sd"), CASES)
def test_two_equal_methods_differ_in_one_of_twenty_intervals_at_most(
    num_seeds, num_problems, seed_sd, is_paired
):
    """As above: false alarms above 0.075 in 1,500 come once in 200,000; too few is too wide."""
    draw = np.random.default_rng([8, num_seeds, num_problems])
    false_alarms = 0
    for _ in range(1500):
        shared = draw.normal(0, 1.5, num_problems)
        ours, theirs = (
            metric_values(
                "avg", 8, simulate(draw, num_seeds, num_problems, seed_sd=seed_sd, shared=shared)
            )
            for _ in range(2)
        )
        found = seed_difference(ours, theirs, is_paired_by_seed=is_paired, confidence=0.95)
        false_alarms += found.is_clear_of_zero
    assert false_alarms / 1500 <= 0.075
