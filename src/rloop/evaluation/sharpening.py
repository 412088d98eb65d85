"""Is a trained policy more than a sharper base? It is compared with the base at every measured
temperature.

At a lower temperature the base is more accurate and solves fewer problems in k tries, like most
policies that RL produces. A policy has learned more than that if it lies above the base's whole
curve of accuracy against pass@k.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rloop.evaluation.metrics import metric_values
from rloop.types import stable_hash

Floats = NDArray[np.float64]
NUM_RESAMPLES = 4_000


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
    value, drawn_R = _resampled(values_2XP, rng)
    low, high = _interval(drawn_R, confidence)
    return Gain(temperature=temperature, k=k, value=value, low=low, high=high)


@dataclass(frozen=True, slots=True, kw_only=True)
class CurveGain:
    """How far one curve lies above another, in avg@n.

    Example: CurveGain(temperatures=(0.5, 0.7), k=32, value=0.03, low=0.01, high=0.05)
    """

    temperatures: tuple[float, float]
    """Of the upper curve, as chosen on each half of the problems."""
    k: int
    value: float
    low: float
    high: float


def gain_over_curve(
    reference: Sequence[Curve], method: Sequence[Curve], *, k: int, confidence: float, seed: int
) -> CurveGain:
    """Return how far a method's curve lies above the reference's where it lies highest.

    Each side is a curve a seed, on the same problems; values are means over seeds. The gain at a
    temperature of the method is that of `gain_over_base`. The temperature with the largest one is
    chosen on one half of the problems (every other one, in the order of their ids) and measured on
    the other half; the result is the mean of both ways, so that choosing costs no honesty. The
    interval is a bootstrap over the problems of each half; the seeds are taken as they are.
    """
    ours, theirs = (_mean_values(side, k) for side in (method, reference))
    rng = np.random.default_rng(stable_hash(seed, "curves"))
    chosen, values, drawn = [], [], []
    for half in (0, 1):
        here, there = slice(half, None, 2), slice(1 - half, None, 2)
        gains = [
            _gain(np.concatenate([theirs, ours[:, at : at + 1]], axis=1)[..., here])
            for at in range(ours.shape[1])
        ]
        at = int(np.argmax(gains))
        joined = np.concatenate([theirs, ours[:, at : at + 1]], axis=1)[..., there]
        value, drawn_R = _resampled(joined, rng)
        chosen.append(method[0].temperatures[at])
        values.append(value)
        drawn.append(drawn_R)
    low, high = _interval(np.mean(drawn, axis=0), confidence)
    return CurveGain(
        temperatures=(chosen[0], chosen[1]), k=k, value=float(np.mean(values)), low=low, high=high
    )


def _mean_values(curves: Sequence[Curve], k: int) -> Floats:
    values: Floats = np.mean([curve.values(k) for curve in curves], axis=0)
    return values


def _gain(values_2XP: Floats) -> float:
    """Return the gain of the last point over the others, over all problems."""
    average_X, passes_X = values_2XP.mean(axis=2)
    return float(_gains(average_X[None], passes_X[None])[0])


def _resampled(values_2XP: Floats, rng: np.random.Generator) -> tuple[float, Floats]:
    """Return the gain of the last point over the others, and that of resampled problems, [R]."""
    num_problems = values_2XP.shape[2]
    share = np.full(num_problems, 1.0 / num_problems)
    weights_RP = rng.multinomial(num_problems, share, size=NUM_RESAMPLES) / num_problems
    average_XP, passes_XP = values_2XP
    return _gain(values_2XP), _gains(weights_RP @ average_XP.T, weights_RP @ passes_XP.T)


def _interval(drawn_R: Floats, confidence: float) -> tuple[float, float]:
    tail = (1.0 - confidence) / 2.0
    low, high = np.quantile(drawn_R, [tail, 1.0 - tail])
    return float(low), float(high)


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
