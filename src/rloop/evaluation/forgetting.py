"""What one checkpoint solved and another no longer solves, over the same problems in the same
order."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Solved = NDArray[np.bool_]
"""[P] whether each problem is solved; [C, P] for checkpoints in the order of training."""


def forgetting(solved_a: Solved, solved_b: Solved) -> float:
    """Return |solved by a and not by b| / |solved by a|; NaN if a solved nothing."""
    return _ratio(solved_a & ~solved_b, solved_a)


def newly_solved(solved_a: Solved, solved_b: Solved) -> float:
    """Return |not solved by a, solved by b| / |not solved by a|; NaN if a solved everything."""
    return _ratio(~solved_a & solved_b, ~solved_a)


def lost_between_halves(before: Solved, after: Solved) -> float:
    """Return |solved by before, not by after| / |solved by before|, from one half to the other.

    Both are [P, 2]: whether a problem is solved in each half of the samples. The halves share no
    sample, so with `after` = `before` the value is what chance alone gives for a policy that forgot
    nothing (n / 2 samples on either side). It has no selection bias: the means of both counts are
    those of new samples. NaN if `before` solved nothing.
    """
    lost = before & ~after[:, ::-1]
    return float(lost.sum() / before.sum()) if before.any() else float("nan")


def forgetting_matrix(solved: Solved) -> NDArray[np.float64]:
    """Return forgetting a->b for each pair of checkpoints [C, P], as [C, C] with a as row."""
    return np.array([[forgetting(a, b) for b in solved] for a in solved])


def newly_solved_matrix(solved: Solved) -> NDArray[np.float64]:
    """Return newly solved a->b for each pair of checkpoints [C, P], as [C, C] with a as row."""
    return np.array([[newly_solved(a, b) for b in solved] for a in solved])


def ever_solved_loss(solved: Solved | Sequence[Solved]) -> float:
    """Return |solved by some checkpoint but not by the last| / |problems| for checkpoints [C, P].

    NaN without problems.
    """
    stacked = np.asarray(solved)
    lost = stacked.any(axis=0) & ~stacked[-1]
    return float(lost.mean()) if lost.size else float("nan")


def _ratio(part: Solved, whole: Solved) -> float:
    """Return |part| / |whole|; 0/0 is undefined, so NaN."""
    return float(part.sum() / whole.sum()) if whole.any() else float("nan")
