"""The overfitting verdict: whether, and since when, held-out pass@k falls while the training reward
rises.

Along a path of checkpoints (start policy, RL's weights at rising steps; or the policies kept) the
last one is compared with every earlier one, problem by problem, by `compare_with_last`: the onset
is the best of several noisy measurements, and the test accounts for that choice. The training
reward is the one that these policies earned between the onset and the last checkpoint: inside RL,
that of the RL steps; for the policies kept, that of the first step of each exploration, which they
sampled, because later rewards belong to weights that are thrown away. Five outcomes:

    overfits   held-out is clearly below the best earlier checkpoint, the reward clearly rose
    falls      held-out is clearly below, the reward did not clearly rise, or is not known
    rises      no clear fall, and held-out is clearly above the start
    holds      none of these is clear
    too few    fewer checkpoints or problems than a verdict needs
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from rloop.evaluation.checkpoints import Checkpoint, count_matrix
from rloop.evaluation.intervals import Estimate, Floats, student_quantile
from rloop.evaluation.metrics import metric_values
from rloop.store.trajectories import TrajectoryStore
from rloop.types import stable_hash

Kind = Literal["overfits", "falls", "rises", "holds", "too few"]

MIN_CHECKPOINTS = 3
"""A start, an end and one between them: with fewer there is no onset to find."""
MIN_PROBLEMS = 8
"""From this number on the test keeps its level in simulations."""
MIN_REWARDS = 6
"""Fewest RL steps (or groups of two first steps) that can show a rise of the reward: three at
either end."""
NUM_DRAWS = 10_000
_FIRST_STEPS = """
    select iteration, num_correct / num_rows as value from groups
    where phase = 'explore' and step = 1 order by all
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rewards:
    """The training rewards of a run.

    Example: Rewards(by_step={(1, 1): 0.31, (1, 2): 0.34}, first_steps={1: (0.25, 0.375)})
    """

    by_step: Mapping[tuple[int, int], float]
    """Fraction correct by (iteration, RL step): the reward, unless it is graded."""
    first_steps: Mapping[int, Sequence[float]]
    """Mean reward of each group of an iteration's first step, by iteration; empty if the iterations
    draw problems of different difficulty, which cannot be compared."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RewardChange:
    """The training reward at the beginning and at the end of the steps between two checkpoints.

    Example: RewardChange(before=0.41, after=0.58, change=Estimate(0.17, 0.13, 0.21))
    """

    before: float
    after: float
    change: Estimate


@dataclass(frozen=True, slots=True, kw_only=True)
class Overfitting:
    """What the checkpoints of one path say about one task.

    Example: Overfitting(kind="overfits", k=32, num_problems=1319, path=(base, ...), num_steps=100,
    values=(0.7, 0.81, 0.702), sure=0.99, best=1, fall=Estimate(-0.108, -0.149, -0.066),
    gain=Estimate(0.02, -0.01, 0.05),
    reward=RewardChange(before=0.41, after=0.58, change=Estimate(0.17, 0.13, 0.21)))
    With too few measurements only the first five fields are set.
    """

    kind: Kind
    k: int
    num_problems: int
    """Problems that all checkpoints have."""
    path: tuple[Checkpoint, ...]
    num_steps: int
    """RL steps with a reward between the ends of the path."""
    values: tuple[float, ...] = ()
    """pass@k of each checkpoint."""
    sure: float = 0.0
    """1 - p of the deciding difference (`gain` if it rises, else `fall`), adjusted for choosing the
    checkpoint."""
    best: int = 0
    """Index of the best earlier checkpoint, the latest of equal ones: where a fall begins."""
    fall: Estimate | None = None
    """pass@k of the last minus that of `best`; the interval accounts for choosing `best`."""
    gain: Estimate | None = None
    """pass@k of the last minus that of the start, in the same family of intervals."""
    reward: RewardChange | None = None
    """Between `best` and the last; None with fewer than `MIN_REWARDS` values."""


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


def overfitting_verdict(
    rewards: Rewards,
    checkpoints: Sequence[Checkpoint],
    k: int,
    *,
    seed: int,
    confidence: float = 0.95,
) -> Overfitting:
    """Return the verdict on one path (`training_paths`), on the problems that all its checkpoints
    have.

    `rewards` may be those of the whole run. A difference counts if its confidence is at least
    `confidence`, that is, if its interval excludes zero; the reward rises if the interval of its
    change does. Raises ValueError for k > n and for checkpoints of different tasks.
    """
    problems, counts = count_matrix(checkpoints)
    last = checkpoints[-1]
    values = metric_values(f"pass@{k}", last.num_samples, counts)
    begin, end = _place(checkpoints[0]), _place(last)
    found = Overfitting(
        kind="too few",
        k=k,
        num_problems=len(problems),
        path=tuple(checkpoints),
        num_steps=sum(begin < key <= end for key in rewards.by_step),
    )
    if len(checkpoints) < MIN_CHECKPOINTS or len(problems) < MIN_PROBLEMS:
        return found
    rng = np.random.default_rng(stable_hash(seed, "overfitting"))
    compared = compare_with_last(values, rng=rng, confidence=confidence)
    means = values.mean(axis=1)
    best = max(range(len(means) - 1), key=lambda index: (means[index], index))
    reward = reward_change(rewards, checkpoints[best], last, confidence=confidence)
    kind, sure = _decide(compared, best, reward, confidence)
    return replace(
        found,
        kind=kind,
        values=tuple(map(float, means)),
        sure=sure,
        best=best,
        fall=compared.differences[best],
        gain=compared.differences[0],
        reward=reward,
    )


def read_first_steps(store: TrajectoryStore) -> dict[int, list[float]]:
    """Return the mean reward of each group in the first RL step of each iteration."""
    found: dict[int, list[float]] = {}
    for row in store.query(_FIRST_STEPS).to_pylist():
        found.setdefault(row["iteration"], []).append(row["value"])
    return found


def reward_change(
    rewards: Rewards, first: Checkpoint, last: Checkpoint, *, confidence: float
) -> RewardChange | None:
    """Return how the training reward changed between two checkpoints of one path.

    Inside RL: from the first to the last quarter of the steps between them, at least three each.
    Steps draw their problems independently, and a trend inside a quarter widens the interval. For
    policies kept: from the groups that the first one sampled to those of the last one that
    explored.
    """
    if last.is_kept:
        wrote = [i for i in rewards.first_steps if first.iteration + 1 < i <= last.iteration + 1]
        before = rewards.first_steps.get(first.iteration + 1, ())
        after = rewards.first_steps[max(wrote)] if wrote else ()
    else:
        begin, end = _place(first), _place(last)
        steps = rewards.by_step
        values = [steps[key] for key in sorted(steps) if begin < key <= end]
        m = max(MIN_REWARDS // 2, len(values) // 4) if len(values) >= MIN_REWARDS else 0
        before, after = values[:m], values[len(values) - m :]
    if min(len(before), len(after)) < MIN_REWARDS // 2:
        return None
    return _welch(np.array(before), np.array(after), confidence)


def _welch(before: Floats, after: Floats, confidence: float) -> RewardChange:
    """Return the difference of two means with Welch's interval (Biometrika 34, 1947)."""
    parts = [values.var(ddof=1) / len(values) for values in (before, after)]
    change, half = float(after.mean() - before.mean()), 0.0
    if (error := sum(parts)) > 0:
        squares = [p**2 / (len(v) - 1) for p, v in zip(parts, (before, after), strict=True)]
        df = int(error**2 / sum(squares) + 1e-9)
        half = student_quantile(df, (1 + confidence) / 2) * math.sqrt(error)
    return RewardChange(
        before=float(before.mean()),
        after=float(after.mean()),
        change=Estimate(change, change - half, change + half),
    )


def _decide(
    compared: Comparison, best: int, reward: RewardChange | None, confidence: float
) -> tuple[Kind, float]:
    """Return the kind, and the confidence of the deciding difference; `best` is an index."""
    fall, gain = compared.differences[best], compared.differences[0]
    if fall.value < 0 and compared.sure[best] >= confidence:
        is_rising = reward is not None and reward.change.low > 0
        return ("overfits" if is_rising else "falls"), compared.sure[best]
    if gain.value > 0 and compared.sure[0] >= confidence:
        return "rises", compared.sure[0]
    return "holds", compared.sure[best]


def _place(checkpoint: Checkpoint) -> tuple[int, float]:
    """Return a checkpoint's place among (iteration, step): a kept policy comes after all steps."""
    return checkpoint.iteration, math.inf if checkpoint.is_kept else checkpoint.step


def compare_with_last(values: Floats, *, rng: np.random.Generator, confidence: float) -> Comparison:
    """Return the last row of `values` [C, P] minus each earlier one, C and P at least 2.

    Dunnett's many-to-one comparison (1955). The best of several noisy measurements is above the
    last even if nothing falls, so a plain interval of that difference is too narrow. With D_c =
    mean over problems of (last - c):

        S    = covariance over problems of the differences, [C-1, C-1], divided by P
        t_c  = |D_c| / sqrt(S_cc)
        M    = max over c of |t*_c|, t* drawn from a multivariate t with P - 1 degrees of freedom
               and the correlations of S: how large the largest t_c gets when no checkpoint differs

    The confidence of a difference is P(M < t_c). The intervals D_c +- q sqrt(S_cc), with q the
    quantile of M, hold for all c together, so choosing one of them adds no bias. Problems are the
    unit, paired over checkpoints. That each value is itself an estimate from n samples is part of
    the variation between problems.

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
