"""Intervals of a mean over problems; this module knows one value per problem, not what it means.

Problems are the unit: the spread of their values tells how much other problems would have changed
the result. A fraction gets Wilson's interval (JASA 22, 1927) for an effective number of problems,
as is usual in surveys (Korn and Graubard 1998), which is as asymmetric as a mean near 0 or 1 needs.
A difference gets Student's. A small sample underestimates a variance that comes from rare problems,
so both add a fraction of a problem with the largest possible variance (`EXTRA_FRACTION`,
`EXTRA_DIFFERENCE`):

    s^2 = (sum of (x - mean)^2 + extra * largest) / (P - 1 + extra)

For counts simulated from Beta-distributed rates, most 95 % intervals cover 94 to 97 % with 16 or
more problems and at least 94 % with 8; a percentile bootstrap covers 75 to 95 % and 52 to 94 %
(docs/results/experiments.md). For skewed values (a mean near 0, or pass@8 of a policy that solves
nearly everything) they cover 90 to 94 %, because a few problems do not show what is rare.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from math import sqrt
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

EXTRA_FRACTION = 0.75
"""Fraction of a problem, for means in 0 .. 1: reaches its coverage from 8 problems on, 2 %
wider."""
EXTRA_DIFFERENCE = 0.02
"""Fraction of a problem, for means of differences in -1 .. 1. Paired differences vary far less than
the mean allows, so a larger value would cancel the gain from pairing."""

Floats = NDArray[np.float64]
_ANGLES = np.linspace(-np.pi / 2, np.pi / 2, 20_001)


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean over problems with its interval.

    Example: Estimate(value=0.41, low=0.35, high=0.47)
    """

    value: float
    low: float
    high: float

    @property
    def is_clear_of_zero(self) -> bool:
        """Whether the interval excludes zero, so that the difference counts as one."""
        return self.low > 0 or self.high < 0


def mean_fraction(values: Floats, confidence: float) -> Estimate:
    """Return the mean of fractions [P], each in 0 .. 1, with its interval.

    Wilson's interval for P_eff = P m (1 - m) / s^2 problems and Student's t of P - 1. Values of
    only 0 and 1 have the variance m (1 - m), the largest possible, so P_eff is at least P.
    """
    values = np.sort(values)  # so that the order of problems changes no digit
    num_problems, mean = _checked(values, confidence)
    if is_without_spread(values):
        return equal_values(mean, num_problems, confidence, lowest=0.0)
    middle = (num_problems * mean + 0.5) / (num_problems + 1)
    variance = _variance(values, EXTRA_FRACTION, middle * (1 - middle))
    effective = max(num_problems, num_problems * mean * (1 - mean) / variance)
    t = student_quantile(num_problems - 1, (1 + confidence) / 2)
    share = t * t / effective
    center = (mean + share / 2) / (1 + share)
    half = t / (1 + share) * sqrt(mean * (1 - mean) / effective + share / (4 * effective))
    # Wilson's ends enclose the mean; at 0 and 1 only but for rounding.
    return Estimate(mean, max(0.0, min(mean, center - half)), min(1.0, max(mean, center + half)))


def mean_difference(values: Floats, confidence: float) -> Estimate:
    """Return the mean of paired differences [P], each in -1 .. 1, with Student's interval."""
    values = np.sort(values)  # so that the order of problems changes no digit
    num_problems, mean = _checked(values, confidence)
    if is_without_spread(values):
        return equal_values(mean, num_problems, confidence, lowest=-1.0)
    variance = _variance(values, EXTRA_DIFFERENCE, 1 - mean * mean)
    t = student_quantile(num_problems - 1, (1 + confidence) / 2)
    half = t * sqrt(variance / num_problems)
    return Estimate(mean, max(-1.0, mean - half), min(1.0, mean + half))


def equal_values(value: float, num_problems: int, confidence: float, *, lowest: float) -> Estimate:
    """Return the mean of `num_problems` values that are all `value`, with an interval.

    Equal values do not mean that the next problem has that value too. If a fraction q of all
    problems had other values, P drawn problems would show none of them with probability (1 - q)^P,
    which is at least tail = (1 - confidence) / 2 up to q = 1 - tail^(1/P). The other values lie
    anywhere in `lowest` .. 1, so the mean lies between value - q (value - lowest) and value + q (1
    - value).

    For P problems that are all solved this is the exact interval of Clopper and Pearson (Biometrika
    26, 1934), tail^(1/P) .. 1, and mirrored for none. P equal differences of 0 give -q .. q. For
    other values the interval may be too wide, never too narrow.

    Example: equal_values(1.0, 16, 0.95, lowest=0.0) is Estimate(1.0, 0.794, 1.0)
    """
    unseen = 1.0 - ((1.0 - confidence) / 2.0) ** (1.0 / num_problems)
    return Estimate(
        value, low=value - unseen * (value - lowest), high=value + unseen * (1.0 - value)
    )


def is_without_spread(values: Floats | Sequence[float]) -> bool:
    """Whether values are equal up to rounding, which affects differences of equal fractions."""
    return float(np.ptp(values)) < 1e-9


@cache
def student_quantile(df: int, probability: float) -> float:
    """Return the quantile of Student's t with `df` >= 1 degrees of freedom, to 5 digits.

    t = sqrt(df) tan(angle), where the angle's density is proportional to cos(angle)^(df - 1),
    integrated on a grid. Above 200 Fisher's expansion about the normal quantile is used (Abramowitz
    and Stegun 26.7.5).
    """
    if df > 200:
        z = NormalDist().inv_cdf(probability)
        return z + (z**3 + z) / (4 * df) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * df**2)
    density = np.cos(_ANGLES) ** (df - 1)
    mass = np.concatenate([[0.0], np.cumsum(density[1:] + density[:-1])])
    angle = np.interp(probability, mass / mass[-1], _ANGLES)
    return float(sqrt(df) * np.tan(angle))


def _checked(values: Floats, confidence: float) -> tuple[int, float]:
    """Return the number of problems and their mean; ValueError if there are none."""
    if not values.size:
        raise ValueError("a mean over problems needs at least one problem, got 0")
    if not 0.0 < confidence < 1.0:
        raise ValueError(f"confidence must lie between 0 and 1, got {confidence}")
    return len(values), float(values.mean())


def _variance(values: Floats, extra: float, largest: float) -> float:
    """Return s^2 of one problem, as in the module's docstring."""
    squares = float(((values - values.mean()) ** 2).sum())
    return (squares + extra * largest) / (len(values) - 1 + extra)
