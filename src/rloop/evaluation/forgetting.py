"""What one checkpoint solved and another no longer does, over the same problems in one order."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

Solved = NDArray[np.bool_]
"""[P] whether each problem is solved; [C, P] for checkpoints in the order of training."""


def solved_problems(
    num_samples: int, num_correct: ArrayLike, min_success_rate: float | None = None
) -> Solved:
    """Return which problems [..., P] count as solved: any of n correct, or c/n >= the threshold."""
    counts = np.asarray(num_correct)
    if min_success_rate is None:
        return counts >= 1
    return counts >= min_success_rate * num_samples


def forgetting(solved_a: Solved, solved_b: Solved) -> float:
    """Return |solved by a and not by b| / |solved by a|; NaN when a solved nothing."""
    return _ratio(solved_a & ~solved_b, solved_a)


def newly_solved(solved_a: Solved, solved_b: Solved) -> float:
    """Return |not solved by a, solved by b| / |not solved by a|; NaN when a solved everything."""
    return _ratio(~solved_a & solved_b, ~solved_a)


def forgetting_matrix(solved: Solved) -> NDArray[np.float64]:
    """Return forgetting a->b for each pair of the checkpoints [C, P], as [C, C] with a as row."""
    return np.array([[forgetting(a, b) for b in solved] for a in solved])


def newly_solved_matrix(solved: Solved) -> NDArray[np.float64]:
    """Return newly solved a->b for each pair of the checkpoints [C, P], as [C, C] with a as row."""
    return np.array([[newly_solved(a, b) for b in solved] for a in solved])


def ever_solved_loss(solved: Solved | Sequence[Solved]) -> float:
    """Return |solved by some checkpoint, not by the last| / |problems| for checkpoints [C, P]."""
    stacked = np.asarray(solved)
    return float(np.mean(stacked.any(axis=0) & ~stacked[-1]))


def _ratio(part: Solved, whole: Solved) -> float:
    """Return |part| / |whole|; 0/0 is undefined, so NaN."""
    return float(part.sum() / whole.sum()) if whole.any() else float("nan")
