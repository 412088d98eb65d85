"""Dunnett's many-to-one comparison (1955): the last of several checkpoints with each earlier one.

The best of several noisy measurements is above the last even if nothing falls, so a plain interval
of that difference is too narrow. With D_c = mean over problems of (last - c):

    S    = covariance over problems of the differences, [C-1, C-1], divided by P
    t_c  = |D_c| / sqrt(S_cc)
    M    = max over c of |t*_c|, t* drawn from a multivariate t with P - 1 degrees of freedom and
           the correlations of S: how large the largest t_c gets when no checkpoint differs

The confidence of a difference is P(M < t_c). The intervals D_c +- q sqrt(S_cc), with q the quantile
of M, hold for all c together, so choosing one of them adds no bias. Problems are the unit, paired
over checkpoints. That each value is itself an estimate from n samples is part of the variation
between problems. This module knows no checkpoints, only values.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rloop.evaluation.intervals import Estimate

NUM_DRAWS = 10_000

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """The last checkpoint minus each earlier one, [C-1].

    Example: Comparison(differences=[Estimate(-0.108, -0.149, -0.066)], sure=[0.998])
    """

    differences: list[Estimate]
    """Their intervals hold for all of them together."""
    sure: list[float]
    """1 - p, two-sided, adjusted for choosing among them; at least the confidence if the interval
    excludes zero."""


def compare_with_last(values: Floats, *, rng: np.random.Generator, confidence: float) -> Comparison:
    """Return the last row of `values` [C, P] minus each earlier one, C and P at least 2.

    A difference that is the same for every problem has no spread: zero has confidence 0, any other
    the largest that the draws can show.
    """
    differences = values[-1] - values[:-1]
    num_problems = values.shape[1]
    means = differences.mean(axis=1)
    covariance = np.atleast_2d(np.cov(differences)) / num_problems
    errors = np.sqrt(np.diag(covariance))
    largest = _largest_t(covariance, errors, num_problems - 1, rng)
    half = np.quantile(largest, confidence) * errors
    sizes = np.divide(np.abs(means), errors, out=np.full(len(means), np.inf), where=errors > 0)
    sizes[means == 0] = 0.0
    exceeded = (largest[:, None] >= sizes).sum(axis=0)
    return Comparison(
        differences=[
            Estimate(float(mean), float(mean - width), float(mean + width))
            for mean, width in zip(means, half, strict=True)
        ],
        sure=[float(1.0 - (1 + count) / (1 + NUM_DRAWS)) for count in exceeded],
    )


def _largest_t(
    covariance: Floats, errors: Floats, freedom: int, rng: np.random.Generator
) -> Floats:
    """Return draws of M over the comparisons that have a spread; zeros if none has."""
    has_spread = errors > 0
    if not has_spread.any():
        return np.zeros(NUM_DRAWS)
    scale = errors[has_spread]
    correlation = covariance[np.ix_(has_spread, has_spread)] / np.outer(scale, scale)
    normal = rng.multivariate_normal(
        np.zeros(len(scale)), correlation, NUM_DRAWS, check_valid="ignore", method="eigh"
    )
    chi = np.sqrt(rng.chisquare(freedom, NUM_DRAWS) / freedom)
    largest: Floats = np.abs(normal).max(axis=1) / chi
    return largest
