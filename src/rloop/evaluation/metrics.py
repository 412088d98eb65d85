"""avg@n and unbiased pass@k over counts of correct samples, with intervals over problems.

n samples per problem, c of them correct. Both metrics are means over problems; intervals come from
a bootstrap over problems (exact where all problems are equal), and comparisons with the base policy
are paired on the same problems.
"""

from collections.abc import Sequence
from math import comb

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rloop.evaluation.bootstrap import Estimate, bootstrap_means


def pass_at_k(num_samples: int, num_correct: int, k: int) -> float:
    """Return the chance that k draws without replacement from the samples include a correct one.

    1 - C(n - c, k) / C(n, k) (Chen et al. 2021, arXiv 2107.03374); undefined for n < k.
    """
    if not 1 <= k <= num_samples:
        raise ValueError(f"pass@{k} needs at least {k} samples per problem, got {num_samples}")
    return 1.0 - comb(num_samples - num_correct, k) / comb(num_samples, k)


def evaluate_counts(
    num_samples: int,
    num_correct: ArrayLike,
    ks: Sequence[int],
    *,
    rng: np.random.Generator,
    confidence: float = 0.95,
) -> dict[str, Estimate]:
    """Return avg@n and each pass@k from the correct samples [P] of each problem.

    Example: evaluate_counts(8, [8, 0, 3], (1, 8), rng=rng) has the keys avg@8, pass@1 and pass@8.
    """
    names, values = _values_per_problem(num_samples, num_correct, ks)
    return dict(zip(names, bootstrap_means(values, rng, confidence, lowest=0.0), strict=True))


def paired_difference(
    num_samples: int,
    num_correct: ArrayLike,
    base_num_correct: ArrayLike,
    ks: Sequence[int],
    *,
    rng: np.random.Generator,
    confidence: float = 0.95,
) -> dict[str, Estimate]:
    """Return the metrics of `evaluate_counts` as a policy minus the base, problem by problem.

    Both count arrays [P] are over the same problems in the same order.
    """
    names, values = _values_per_problem(num_samples, num_correct, ks)
    _, base_values = _values_per_problem(num_samples, base_num_correct, ks)
    if values.shape != base_values.shape:
        raise ValueError(
            "a paired difference needs the same problems for both policies, got "
            f"{values.shape[1]} and {base_values.shape[1]}"
        )
    found = bootstrap_means(values - base_values, rng, confidence, lowest=-1.0)
    return dict(zip(names, found, strict=True))


def _values_per_problem(
    num_samples: int, num_correct: ArrayLike, ks: Sequence[int]
) -> tuple[list[str], NDArray[np.float64]]:
    """Return metric names and their values [M, P], looked up in a table over c = 0 .. n."""
    counts = np.asarray(num_correct, dtype=np.int64)
    if counts.ndim != 1:
        raise ValueError(
            f"counts of correct samples must be one per problem, got shape {counts.shape}"
        )
    if counts.size and not 0 <= counts.min() <= counts.max() <= num_samples:
        raise ValueError(
            f"counts of correct samples must lie in 0 .. {num_samples}, got "
            f"{counts.min()} .. {counts.max()}"
        )
    possible = range(num_samples + 1)
    table = [[c / num_samples for c in possible]]
    table += [[pass_at_k(num_samples, c, k) for c in possible] for k in ks]
    names = [f"avg@{num_samples}", *(f"pass@{k}" for k in ks)]
    return names, np.array(table)[:, counts]
