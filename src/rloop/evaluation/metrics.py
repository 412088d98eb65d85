"""What n samples of each problem say about a policy: avg@n, maj@n, pass@k and cover@tau.

n samples per problem, c of them correct. Each metric is a mean over problems, with an interval over
problems (`intervals`); comparisons with the base policy are paired on the same problems.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from math import comb

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rloop.evaluation.intervals import Estimate, mean_difference, mean_fraction

Values = Mapping[str, NDArray[np.float64]]
"""[P] by metric: the value of each problem."""


def pass_at_k(num_samples: int, num_correct: int, k: int) -> float:
    """Return the chance that k draws without replacement from the samples include a correct one.

    1 - C(n - c, k) / C(n, k) (Chen et al. 2021, arXiv 2107.03374); undefined for n < k.
    """
    if not 1 <= k <= num_samples:
        raise ValueError(f"pass@{k} needs at least {k} samples per problem, got {num_samples}")
    return 1.0 - comb(num_samples - num_correct, k) / comb(num_samples, k)


def majority_score(samples: Iterable[tuple[str | None, bool]]) -> float:
    """Return the chance that the most common answer of (answer, is correct) samples is right.

    Self-consistency (Wang et al. 2022, arXiv 2203.11171). Answers are equal if the verifier
    extracted the same text; samples without an answer do not vote. Ties are broken with equal
    probability, so the score is the mean over the tied answers. If the verifier judged one text in
    two ways, its fraction of right verdicts counts. 0 if there are no votes.

    Example: answers 7 (right), 7, 5 (wrong), 5 and 3 (wrong) give 0.5.
    """
    votes: Counter[str] = Counter()
    right: Counter[str] = Counter()
    for answer, is_correct in samples:
        if answer is not None:
            votes[answer] += 1
            right[answer] += is_correct
    most = max(votes.values(), default=0)
    shares = [right[answer] / most for answer, number in votes.items() if number == most]
    return sum(shares) / len(shares) if shares else 0.0


def problem_values(
    num_samples: int,
    num_correct: ArrayLike,
    ks: Sequence[int],
    *,
    majority: ArrayLike | None = None,
    taus: Sequence[float] = (),
) -> dict[str, NDArray[np.float64]]:
    """Return the value of each problem for avg@n, maj@n, each pass@k and each cover@tau.

    `num_correct` and `majority` (of `majority_score`) are [P]; without `majority` there is no
    maj@n. cover@tau is 1 if at least tau of the samples are right (arXiv 2510.08325).

    Example: problem_values(8, [8, 0, 3], (1, 8)) has the keys avg@8, pass@1 and pass@8.
    """
    counts = _checked_counts(num_samples, num_correct)
    found = {f"avg@{num_samples}": metric_values("avg", num_samples, counts)}
    if majority is not None:
        found[f"maj@{num_samples}"] = np.asarray(majority, dtype=np.float64)
    names = [*(f"pass@{k}" for k in ks), *(f"cover@{tau:g}" for tau in taus)]
    return found | {name: metric_values(name, num_samples, counts) for name in names}


def metric_values(metric: str, num_samples: int, num_correct: ArrayLike) -> NDArray[np.float64]:
    """Return avg (c/n), `pass@k` or `cover@tau` of counts of correct samples of any shape."""
    kind, _, number = metric.partition("@")
    counts = np.asarray(num_correct, dtype=np.int64)
    if kind == "avg":
        return counts / num_samples
    if kind == "cover":
        # c/n and tau, which has 6 digits in names, may be equal up to rounding.
        return (counts / num_samples >= float(number) - 1e-6).astype(np.float64)
    table = [pass_at_k(num_samples, c, int(number)) for c in range(num_samples + 1)]
    values: NDArray[np.float64] = np.array(table)[counts]
    return values


def mean_estimates(values: Values, confidence: float = 0.95) -> dict[str, Estimate]:
    """Return the mean over problems of each metric, with its interval."""
    return {name: mean_fraction(those, confidence) for name, those in values.items()}


def paired_estimates(values: Values, base: Values, confidence: float = 0.95) -> dict[str, Estimate]:
    """Return the policy's minus the base's value of each metric, paired by problem, with its
    interval.

    The values are of the same problems in the same order.
    """
    found = {}
    for name, those in values.items():
        if those.shape != base[name].shape:
            raise ValueError(
                "a paired difference needs the same problems for both policies, got "
                f"{len(those)} and {len(base[name])}"
            )
        found[name] = mean_difference(those - base[name], confidence)
    return found


def _checked_counts(num_samples: int, num_correct: ArrayLike) -> NDArray[np.int64]:
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
    return counts
