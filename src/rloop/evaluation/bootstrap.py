"""Bootstrap percentile intervals over problems; knows values per problem, not what they mean."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

NUM_RESAMPLES = 10_000
"""Resamples of an interval: the Monte Carlo error of an endpoint is about 1 % of the width."""


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
        """Whether the interval excludes zero: what makes a difference worth calling one."""
        return self.low > 0 or self.high < 0


def bootstrap_means(
    values: NDArray[np.float64], rng: np.random.Generator, confidence: float, *, lowest: float
) -> list[Estimate]:
    """Return the mean of each row of `values` [M, P] over the P problems, with its interval.

    Problems are drawn with replacement, the same draws for all M rows. Problems with equal columns
    are exchangeable, so a resample is one multinomial draw over the distinct columns: the same
    distribution as drawing indices, at a cost that grows with the distinct columns, not with P.
    Values lie in `lowest` .. 1: 0 for fractions, -1 for differences of them. A row without spread
    has the interval of `equal_values`, for resamples of equal values are equal too.
    """
    num_problems = values.shape[1]
    if num_problems == 0:
        raise ValueError("a mean over problems needs at least one problem, got 0")
    if not 0.0 < confidence < 1.0:
        raise ValueError(f"confidence must lie between 0 and 1, got {confidence}")
    distinct, counts = np.unique(values, axis=1, return_counts=True)
    draws = rng.multinomial(num_problems, counts / num_problems, size=NUM_RESAMPLES)
    means = draws @ distinct.T / num_problems
    tail = (1.0 - confidence) / 2.0
    lows, highs = np.quantile(means, [tail, 1.0 - tail], axis=0)
    centers = distinct @ counts / num_problems
    return [
        equal_values(float(center), num_problems, confidence, lowest=lowest)
        if is_without_spread(row)
        else Estimate(float(center), float(low), float(high))
        for row, center, low, high in zip(distinct, centers, lows, highs, strict=True)
    ]


def equal_values(value: float, num_problems: int, confidence: float, *, lowest: float) -> Estimate:
    """Return the mean of `num_problems` values that are all `value`, with an interval.

    Equal values do not say that the next problem is equal. If other values had a share q among all
    problems, P drawn problems would show none of them with probability (1 - q)^P, which is at least
    tail = (1 - confidence) / 2 up to q = 1 - tail^(1/P). The others lie anywhere in `lowest` .. 1,
    so the mean lies between value - q (value - lowest) and value + q (1 - value).

    For P problems that are all solved this is the exact interval of Clopper and Pearson (Biometrika
    26, 1934), tail^(1/P) .. 1, and mirrored for none. P equal differences of 0 give -q .. q. For
    other values it is wider than need be, never too narrow.

    Example: equal_values(1.0, 16, 0.95, lowest=0.0) is Estimate(1.0, 0.794, 1.0)
    """
    unseen = 1.0 - ((1.0 - confidence) / 2.0) ** (1.0 / num_problems)
    return Estimate(
        value, low=value - unseen * (value - lowest), high=value + unseen * (1.0 - value)
    )


def is_without_spread(values: NDArray[np.float64]) -> bool:
    """Whether values are equal but for rounding, which differences of equal fractions can show."""
    return float(np.ptp(values)) < 1e-9
