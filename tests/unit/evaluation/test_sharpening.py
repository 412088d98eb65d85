"""Whether a policy is more than a sharper base: by hand, and by simulation."""

import numpy as np
import pytest
from numpy.typing import NDArray

from rloop.evaluation.sharpening import (
    Curve,
    Gain,
    accuracy_at,
    curve_gap,
    curve_k,
    frontier,
    gain_over_base,
)

TEMPERATURES = (0.3, 0.5, 0.7, 1.0)


def curve(temperatures: tuple[float, ...], *rows: list[int], samples: int = 4) -> Curve:
    return Curve(temperatures=temperatures, num_samples=samples, correct_TP=np.array(rows))


def gain(base: Curve, policy: Curve, *, k: int = 4) -> Gain:
    return gain_over_base(base, policy, k=k, temperature=1.0, confidence=0.95, seed=0)


def test_the_base_counts_down_to_the_next_point_below_the_policys_pass_at_k():
    # Two problems, four samples. Base: at 1.0 avg 2/8 and pass@4 2/2; at 0.5 avg 4/8 and pass@4
    # 1/2; at 0.2 avg 4/8, pass@4 1/2.
    base = curve((0.2, 0.5, 1.0), [4, 0], [4, 0], [1, 1])
    # With pass@4 2/2 the policy is compared with 1.0, and 0.5 below it: 6/8 - 4/8.
    assert gain(base, curve((1.0,), [3, 3])).value == pytest.approx(0.25)
    # A policy with less pass@4 than any base point is compared with all: 2/8 - 4/8.
    low = gain(curve((0.5, 1.0), [4, 0], [1, 1]), curve((1.0,), [2, 0]))
    assert low.value == pytest.approx(-0.25)


def test_a_point_of_the_base_itself_gains_nothing():
    base = curve((0.5, 1.0), [4, 0, 2], [1, 1, 2])
    assert gain(base, curve((1.0,), [1, 1, 2])).value <= 0


def test_problems_come_in_one_order_for_every_temperature():
    found = Curve.of([(1.0, {"b": 1, "a": 3}), (0.5, {"a": 4, "b": 0})], num_samples=4)
    assert found.temperatures == (0.5, 1.0)
    assert found.correct_TP.tolist() == [[4, 0], [3, 1]]


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [
        (0.01, 0.2, "beyond sharpening"),
        (-0.1, 0.0, "not beyond sharpening"),
        (-0.1, 0.2, "cannot tell"),
    ],
)
def test_the_interval_decides_the_verdict(low: float, high: float, verdict: str):
    assert Gain(temperature=1.0, k=8, value=0.0, low=low, high=high).verdict == verdict


def solved(logits: NDArray[np.float64], temperature: float) -> NDArray[np.float64]:
    """Return the chance of the first of a problem's answers at a temperature, [P]."""
    weights = np.exp((logits - logits.max(1, keepdims=True)) / temperature)
    chances: NDArray[np.float64] = (weights / weights.sum(1, keepdims=True))[:, 0]
    return chances


def simulated(seed: int, temperature: float, learned: float) -> Gain:
    """Return the gain of a policy that is the base at a temperature, its right answers raised."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(60, 12)) * 1.5
    base = [rng.binomial(16, solved(logits, t)) for t in TEMPERATURES]
    trained = logits.copy()
    trained[:, 0] += learned
    policy = rng.binomial(16, solved(trained, temperature))
    return gain(
        Curve(temperatures=TEMPERATURES, num_samples=16, correct_TP=np.array(base)),
        Curve(temperatures=(1.0,), num_samples=16, correct_TP=np.array([policy])),
        k=8,
    )


def test_a_sharper_base_is_hardly_ever_called_more_than_that():
    """At most 2.5 % by the interval's level; 5 of 120 would be 4 %."""
    calls = [
        simulated(seed, temperature, 0.0).low > 0
        for temperature in (0.4, 0.6, 0.85)
        for seed in range(40)
    ]
    assert sum(calls) <= 5


def test_a_policy_that_learned_is_recognised():
    assert sum(simulated(seed, 0.8, 1.0).low > 0 for seed in range(20)) >= 18


def test_curves_are_compared_at_the_pass_at_k_that_both_reach():
    # Two problems, pass@4 of 1 and 1/2. Reference: avg 1/4 at 1, 1/2 at 1/2. Method: 3/4 at 1/2
    # and 1/2 at 1. Both are most accurate at 1/2, so p goes from 1/2 to 1, along straight lines.
    reference = curve((0.5, 1.0), [4, 0], [1, 1])
    method = curve((0.5, 1.0), [4, 0], [2, 2])
    found = curve_gap([reference], [method], k=4, confidence=0.95, seed=0)
    assert found.passes == (0.5, 1.0)
    # the method has 1/2 throughout; the reference falls from 1/2 to 1/4: 1/8 on average
    assert found.value == pytest.approx(1 / 8)


def test_a_sharp_curve_is_compared_at_its_end_with_one_that_stays_broad():
    base = curve((0.5, 1.0), [1, 1], [1, 1])  # avg 1/4, pass@4 1
    sharp = curve((0.5, 1.0), [4, 0], [3, 0])  # avg 1/2 and 3/8, pass@4 1/2
    found = curve_gap([base], [sharp], k=4, confidence=0.95, seed=0)
    assert found.passes == (0.5, 0.5)
    assert found.value == pytest.approx(1 / 2 - 1 / 4)
    assert accuracy_at([sharp], 0.75, k=4) is None
    assert accuracy_at([base], 0.75, k=4) == pytest.approx(1 / 4)


def test_between_two_temperatures_lies_a_straight_line():
    average, passes = np.array([[0.5], [0.1]]), np.array([[0.2], [0.6]])
    wanted = np.array([[0.1], [0.3], [0.6], [0.7]])
    found = frontier(average, passes, wanted)[:, 0]
    assert found.tolist() == pytest.approx([0.5, 0.4, 0.1, -np.inf])


def test_a_jackknife_over_seeds_widens_the_interval():
    # Every problem alike, so only seeds vary: method 3/4 and 1/4 of the samples, reference 1/4.
    reference = [curve((1.0,), [1, 1]), curve((1.0,), [1, 1])]
    method = [curve((1.0,), [3, 3]), curve((1.0,), [1, 1])]
    found = curve_gap(reference, method, k=4, confidence=0.95, seed=0)
    assert found.value == pytest.approx(1 / 4)
    # left out in turn: 0 and 1/2; variance of the mean (1/4)^2; t of one degree is 12.706
    assert found.high - found.value == pytest.approx(12.706 / 4, rel=1e-3)


def test_a_method_that_is_the_reference_at_other_temperatures_is_hardly_ever_apart_from_it():
    """At most 2.5 % on either side by the interval's level."""
    above = below = 0
    for seed in range(80):
        rng = np.random.default_rng(seed)
        logits = rng.normal(size=(60, 12)) * 1.5
        ours, theirs = (
            Curve(
                temperatures=TEMPERATURES,
                num_samples=16,
                correct_TP=np.array([rng.binomial(16, solved(logits, t)) for t in temperatures]),
            )
            for temperatures in (TEMPERATURES, (0.25, 0.4, 0.6, 0.9))
        )
        found = curve_gap([theirs], [ours], k=8, confidence=0.95, seed=0)
        above, below = above + (found.low > 0), below + (found.high < 0)
    assert above <= 5
    assert below <= 5


@pytest.mark.parametrize(
    ("ks", "samples", "k"),
    [((1, 8, 32, 64), 64, 32), ((1, 8), 8, 8), ((1,), 8, 1), ((1, 4, 8), 9, 4)],
)
def test_a_curve_takes_the_largest_k_with_two_times_as_many_samples(ks, samples: int, k: int):
    assert curve_k(ks, samples) == k
