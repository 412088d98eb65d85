"""Is a trained policy more than a sharper base? It is compared with the base at every measured
temperature.

At a lower temperature the base is more accurate and solves fewer problems in k tries, like most
policies that RL produces. A policy has learned more than that if it lies above the base's whole
curve of accuracy against pass@k.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import sqrt
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rloop.evaluation.intervals import student_quantile
from rloop.evaluation.metrics import metric_values
from rloop.types import stable_hash

Floats = NDArray[np.float64]
NUM_RESAMPLES = 4_000
NUM_DRAWS = 500
"""Bootstrap draws of a standard error, which needs fewer than an interval's ends."""
NUM_PASSES = 33
"""Values of pass@k at which two curves are compared."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Curve:
    """A policy's number of correct completions of each problem, at rising temperatures.

    Example: Curve(temperatures=(0.5, 1.0), num_samples=8, correct_TP=[[8, 0], [5, 2]])
    """

    temperatures: tuple[float, ...]
    num_samples: int
    correct_TP: NDArray[np.int64]
    """[temperatures, problems]; everything that is compared has the same problems in the same
    order.
    """

    @classmethod
    def of(cls, points: Sequence[tuple[float, Mapping[str, int]]], num_samples: int) -> "Curve":
        """Return the curve of (temperature, correct completions by problem_id), ids in order."""
        rising = sorted(points, key=lambda point: point[0])
        ids = sorted(rising[0][1])
        return cls(
            temperatures=tuple(temperature for temperature, _ in rising),
            num_samples=num_samples,
            correct_TP=np.array([[found[i] for i in ids] for _, found in rising], np.int64),
        )

    def values(self, k: int) -> Floats:
        """Return avg@n and pass@k of each problem at each temperature, [2, T, P]."""
        passes = [
            metric_values(f"pass@{k}", self.num_samples, correct_P) for correct_P in self.correct_TP
        ]
        return np.array([self.correct_TP / self.num_samples, passes])


@dataclass(frozen=True, slots=True, kw_only=True)
class Gain:
    """How far a policy at one temperature lies above the base's curve, in avg@n.

    Example: Gain(temperature=1.0, k=8, value=0.12, low=0.05, high=0.19)
    """

    temperature: float
    k: int
    value: float
    low: float
    high: float

    @property
    def verdict(self) -> str:
        """`beyond sharpening` if the interval lies above zero, `not beyond sharpening` if it lies
        at or below zero, else `cannot tell`.
        """
        if self.low > 0:
            return "beyond sharpening"
        return "not beyond sharpening" if self.high <= 0 else "cannot tell"


def curve_k(ks: Iterable[int], num_samples: int) -> int:
    """Return the k of a curve: the largest for which there are two times as many samples.

    With n = k a problem's pass@k is 0 or 1, which is coarse. The largest of all where none above 1
    is small enough.
    """
    found = sorted(ks)
    fine = [k for k in found if 1 < k <= num_samples // 2]
    return (fine or found)[-1]


def gain_sentence(gain: Mapping[str, Any]) -> str:
    """Return a sentence about a gain, from a row of `sharpening.json`: a gain's fields, policy,
    task, verdict.
    """
    low, high = 100 * gain["low"], 100 * gain["high"]
    return (
        f"{gain['policy']} on {gain['task']}, {gain['verdict']}: at temperature "
        f"{gain['temperature']:g} it is {100 * gain['value']:+.1f} points "
        f"[{low:+.1f}, {high:+.1f}] against the base's best with as much pass@{gain['k']}."
    )


def gain_over_base(
    base: Curve, policy: Curve, *, k: int, temperature: float, confidence: float, seed: int
) -> Gain:
    """Return the policy's avg@n at a temperature minus the base's best with as much pass@k.

        gain = avg(policy) - max over T in B of avg(base at T)

    B are the base's temperatures with at least the policy's pass@k, and the one with the next lower
    pass@k. The base's curve between two measured points is unknown, so the more accurate one
    counts, and a coarse list of temperatures never creates a gain. The interval is a paired
    bootstrap over problems; each draw finds B again. Its level holds for one temperature of the
    policy, chosen beforehand. In simulations a base that is only sharper is called beyond
    sharpening in 0 to 1.3 % of the cases (40 to 200 problems, 8 to 32 samples).
    """
    at = policy.temperatures.index(temperature)
    values_2XP = np.concatenate([base.values(k), policy.values(k)[:, at : at + 1]], axis=1)
    rng = np.random.default_rng(stable_hash(seed, "sharpening"))
    average_XP, passes_XP = values_2XP
    weights_RP = _draws(values_2XP.shape[2], NUM_RESAMPLES, rng)
    drawn_R = _gains(weights_RP @ average_XP.T, weights_RP @ passes_XP.T)
    tail = (1.0 - confidence) / 2.0
    low, high = np.quantile(drawn_R, [tail, 1.0 - tail])
    value = _gains(average_XP.mean(axis=1)[None], passes_XP.mean(axis=1)[None])[0]
    return Gain(temperature=temperature, k=k, value=float(value), low=float(low), high=float(high))


def _draws(num_problems: int, number: int, rng: np.random.Generator) -> Floats:
    """Return the weights of the problems in each bootstrap draw, [draws, problems]."""
    share = np.full(num_problems, 1.0 / num_problems)
    return rng.multinomial(num_problems, share, size=number) / num_problems


@dataclass(frozen=True, slots=True, kw_only=True)
class CurveGap:
    """How far one curve lies above another: accuracy at equal pass@k, on average.

    Example: CurveGap(k=32, passes=(0.28, 0.44), value=0.03, low=0.01, high=0.05)
    """

    k: int
    passes: tuple[float, float]
    """The pass@k between which both curves were compared."""
    value: float
    """Mean difference of avg@n there, a fraction; the area between the curves over their width."""
    low: float
    high: float


def curve_gap(
    reference: Sequence[Curve], method: Sequence[Curve], *, k: int, confidence: float, seed: int
) -> CurveGap:
    """Return how far a method's curve lies above the reference's.

    Each side is a curve a seed, on the same problems; points are means over seeds. What a side
    offers at a pass@k of p is the best accuracy with at least that much (`frontier`):

        gap = mean over p in lowest .. highest of frontier_method(p) - frontier_reference(p)

    The highest p is the most that both reach, the lowest what both have at least at their lowest
    temperatures: below it one of them was not measured. Where they share no pass@k, p is the
    highest.
    The interval has two parts, as those of `comparison`: a bootstrap over problems, and a jackknife
    over the seeds of each side with Student's quantile. With one seed it covers problems only.
    """
    sides = [np.array([curve.values(k) for curve in side]) for side in (reference, method)]
    rng = np.random.default_rng(stable_hash(seed, "curves"))
    weights_RP = _draws(sides[0].shape[-1], NUM_DRAWS, rng)
    drawn_R, _ = _gaps(*(side.mean(axis=0) @ weights_RP.T for side in sides))
    means = [side.mean(axis=3) for side in sides]
    value, passes = _gap(*(side.mean(axis=0) for side in means))
    probability = (1.0 + confidence) / 2.0
    squared = NormalDist().inv_cdf(probability) ** 2 * float(drawn_R.var())
    for at, side in enumerate(means):
        if (num_seeds := len(side)) == 1:
            continue
        found = []
        for index in range(num_seeds):
            points = [other.mean(axis=0) for other in means]
            points[at] = np.delete(side, index, axis=0).mean(axis=0)
            found.append(_gap(*points)[0])
        variance = float(np.var(found)) * (num_seeds - 1)
        squared += student_quantile(num_seeds - 1, probability) ** 2 * variance
    half = sqrt(squared)
    return CurveGap(k=k, passes=passes, value=value, low=value - half, high=value + half)


def accuracy_at(curves: Sequence[Curve], wanted: float, *, k: int) -> float | None:
    """Return the best avg@n with at least the wanted pass@k, of the mean of curves; None where no
    temperature reaches it.
    """
    average_T, passes_T = np.mean([curve.values(k).mean(axis=2) for curve in curves], axis=0)
    best = frontier(average_T[:, None], passes_T[:, None], np.array([[wanted]])).item()
    return best if np.isfinite(best) else None


def frontier(average_TR: Floats, passes_TR: Floats, wanted_GR: Floats) -> Floats:
    """Return the best accuracy with at least the wanted pass@k, [G, R]; -inf where it is out of
    reach.

    Between two temperatures lies a straight line: whoever draws one of them for each problem at
    random gets the mean of both, in accuracy and in pass@k.
    """
    reaches_TGR = passes_TR[:, None] >= wanted_GR
    best: Floats = np.where(reaches_TGR, average_TR[:, None], -np.inf).max(axis=0)
    for average_R, passes_R, reaches_GR in zip(average_TR, passes_TR, reaches_TGR, strict=True):
        width_TR = np.where(passes_TR > passes_R, passes_TR - passes_R, 1.0)
        part_TGR = (wanted_GR - passes_R) / width_TR[:, None]
        lines = average_R + part_TGR * (average_TR[:, None] - average_R)
        is_between = reaches_TGR & ~reaches_GR
        np.maximum(best, np.where(is_between, lines, -np.inf).max(axis=0), out=best)
    return best


def _gap(reference_2T: Floats, method_2T: Floats) -> tuple[float, tuple[float, float]]:
    """Return the gap of two curves of points, and the pass@k between which it was measured."""
    gaps, ends = _gaps(reference_2T[..., None], method_2T[..., None])
    return float(gaps[0]), (float(ends[0, 0]), float(ends[1, 0]))


def _gaps(reference_2TR: Floats, method_2TR: Floats) -> tuple[Floats, Floats]:
    """Return the gap of R pairs of curves, and its lowest and highest pass@k, [2, R]."""
    sides = (reference_2TR, method_2TR)
    highest_R = np.minimum(*(passes.max(axis=0) for _, passes in sides))
    lowest_R = np.minimum(np.maximum(*(passes[0] for _, passes in sides)), highest_R)
    parts_G1 = np.linspace(0.0, 1.0, NUM_PASSES)[:, None]
    # never above the highest, which rounding would make unreachable
    wanted_GR = np.minimum(lowest_R + parts_G1 * (highest_R - lowest_R), highest_R)
    theirs_GR, ours_GR = (frontier(average, passes, wanted_GR) for average, passes in sides)
    gaps: Floats = (ours_GR - theirs_GR).mean(axis=0)
    return gaps, np.array([lowest_R, highest_R])


def _gains(average_RX: Floats, passes_RX: Floats) -> Floats:
    """Return the gain of the last point over the others, [R].

    The others are sorted by pass@k: those with as much as the policy count, and the next one.
    """
    base_RX, passes = average_RX[:, :-1], passes_RX[:, :-1]
    order = np.argsort(-passes, axis=1, kind="stable")
    sorted_average = np.take_along_axis(base_RX, order, axis=1)
    sorted_passes = np.take_along_axis(passes, order, axis=1)
    num_counting = (sorted_passes >= passes_RX[:, -1:]).sum(axis=1) + 1
    counts = np.arange(base_RX.shape[1]) < num_counting[:, None]
    best_R: Floats = np.where(counts, sorted_average, -np.inf).max(axis=1)
    gains: Floats = average_RX[:, -1] - best_R
    return gains
