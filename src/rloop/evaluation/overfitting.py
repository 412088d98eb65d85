"""The overfitting verdict: since when held-out pass@k falls while the training reward rises.

Along a path of checkpoints (start policy, RL's weights at rising steps; or the policies kept) the
last one is compared with every earlier one, problem by problem, by `many_to_one`: the onset is the
best of several noisy measurements, and the test allows for that choice. The training reward is what
these very policies earned between the onset and the last checkpoint: inside RL that of the RL
steps; of policies kept that of the first step of each exploration, which they wrote, for the
rewards of later steps belong to weights that are thrown away. Five outcomes:

    overfits   held-out is clearly below the best earlier checkpoint, the reward clearly rose
    falls      held-out is clearly below, the reward did not clearly rise, or is not known
    rises      no clear fall, and held-out is clearly above the start
    holds      none of these is clear
    too few    fewer checkpoints or problems than a verdict needs
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from rloop.evaluation.checkpoints import Checkpoint, count_matrix
from rloop.evaluation.intervals import Estimate, Floats, student_quantile
from rloop.evaluation.many_to_one import Comparison, compare_with_last
from rloop.evaluation.metrics import pass_at_k
from rloop.store.trajectories import TrajectoryStore
from rloop.types import stable_hash

Kind = Literal["overfits", "falls", "rises", "holds", "too few"]

MIN_CHECKPOINTS = 3
"""A start, an end and one between them: with fewer an onset has no place."""
MIN_PROBLEMS = 8
"""From here on the test keeps its level in simulations."""
MIN_REWARDS = 6
"""RL steps, or groups of two first steps, from which a rise of the reward can be told: three at
either end."""
WANTED_CHECKPOINTS = 10
"""Measurements along an exploration that the advice aims at."""


_FIRST_STEPS = """
    select iteration, avg(correct::int) as value from trajectories
    where phase = 'explore' and step = 1 group by iteration, problem_id order by all
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rewards:
    """The training rewards of a run.

    Example: Rewards(by_step={(1, 1): 0.31, (1, 2): 0.34}, first_steps={1: (0.25, 0.375)})
    """

    by_step: Mapping[tuple[int, int], float]
    """Fraction that is correct by (iteration, RL step): the reward where it is not graded."""
    first_steps: Mapping[int, Sequence[float]]
    """Mean reward of each group of an iteration's first step, by iteration; empty where the
    iterations draw problems of different difficulty, so that they do not compare."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RewardChange:
    """The training reward at the beginning and at the end of what lies between two checkpoints.

    Example: RewardChange(before=0.41, after=0.58, change=Estimate(0.17, 0.13, 0.21))
    """

    before: float
    after: float
    change: Estimate


@dataclass(frozen=True, slots=True, kw_only=True)
class Overfitting:
    """What the checkpoints of one path say about one task.

    Example: Overfitting(kind="overfits", task="gsm8k", k=32, num_checkpoints=15,
    num_problems=1319, sentence="Held-out pass@32 on gsm8k fell from ...", sure=0.99,
    best=Checkpoint(policy="explored-001", step=60, ...), best_value=0.81, last_value=0.702,
    fall=Estimate(-0.108, -0.149, -0.066), gain=Estimate(0.02, -0.01, 0.05),
    reward=RewardChange(before=0.41, after=0.58, change=Estimate(0.17, 0.13, 0.21)))
    With too few measurements only the first six fields are set.
    """

    kind: Kind
    task: str
    k: int
    num_checkpoints: int
    num_problems: int
    """Problems that all checkpoints have."""
    sentence: str
    """The verdict in words with its numbers."""
    sure: float = 0.0
    """1 - p of the difference that decides (`gain` where it rises, else `fall`), adjusted for
    choosing the checkpoint."""
    best: Checkpoint | None = None
    """The best of the earlier checkpoints, the latest of equals: where a fall begins."""
    best_value: float | None = None
    last_value: float | None = None
    fall: Estimate | None = None
    """pass@k of the last minus that of `best`; the interval allows for choosing `best`."""
    gain: Estimate | None = None
    """pass@k of the last minus that of the start, in the same family of intervals."""
    reward: RewardChange | None = None
    """Between `best` and the last; None where fewer than `MIN_REWARDS` numbers tell."""


def overfitting_verdict(
    rewards: Rewards,
    checkpoints: Sequence[Checkpoint],
    k: int,
    *,
    seed: int,
    confidence: float = 0.95,
) -> Overfitting:
    """Return the verdict on one path (`training_paths`), on the problems that all of it has.

    `rewards` may be those of the whole run. A difference counts when it is at least `confidence`
    sure, which is when its interval excludes zero; the reward rises when the interval of its
    change does. ValueError for k > n and for checkpoints of different tasks.
    """
    problems, counts = count_matrix(checkpoints)
    last = checkpoints[-1]
    table = np.array([pass_at_k(last.num_samples, c, k) for c in range(last.num_samples + 1)])
    if len(checkpoints) < MIN_CHECKPOINTS or len(problems) < MIN_PROBLEMS:
        return _too_few(rewards, checkpoints, k, len(problems))
    values = table[counts]
    rng = np.random.default_rng(stable_hash(seed, "overfitting"))
    compared = compare_with_last(values, rng=rng, confidence=confidence)
    means = values.mean(axis=1)
    best = max(range(len(means) - 1), key=lambda index: (means[index], index))
    reward = reward_change(rewards, checkpoints[best], last, confidence=confidence)
    fall, gain = compared.differences[best], compared.differences[0]
    kind, sure = _decide(compared, best, reward, confidence)
    start, peak, end = ((_where(checkpoints[i]), float(means[i])) for i in (0, best, -1))
    name = f"Held-out pass@{k} on {last.task}"
    facts = _Facts(name, start, peak, end, fall, gain, _sure(sure), reward, last.is_kept)
    return Overfitting(
        kind=kind,
        task=last.task,
        k=k,
        num_checkpoints=len(checkpoints),
        num_problems=len(problems),
        sentence=_SENTENCES[kind](facts),
        sure=sure,
        best=checkpoints[best],
        best_value=float(means[best]),
        last_value=float(means[-1]),
        fall=fall,
        gain=gain,
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

    Inside RL from the first to the last quarter of the steps between them, at least three each;
    steps draw their problems independently, and a trend inside a quarter widens the interval. Of
    policies kept from the groups that the first one wrote to those of the last one that explored.
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
    """Return the kind, and how sure the difference is that decides it; `best` is an index."""
    fall, gain = compared.differences[best], compared.differences[0]
    if fall.value < 0 and compared.sure[best] >= confidence:
        is_rising = reward is not None and reward.change.low > 0
        return ("overfits" if is_rising else "falls"), compared.sure[best]
    if gain.value > 0 and compared.sure[0] >= confidence:
        return "rises", compared.sure[0]
    return "holds", compared.sure[best]


@dataclass(frozen=True, slots=True)
class _Facts:
    """What a sentence is made of; places in words with their values."""

    name: str
    start: tuple[str, float]
    best: tuple[str, float]
    last: tuple[str, float]
    fall: Estimate
    gain: Estimate
    sure: str
    reward: RewardChange | None
    is_kept: bool

    @property
    def whose(self) -> str:
        """Return whose reward it is."""
        return " of the policies kept" if self.is_kept else ""


def _overfits(facts: _Facts) -> str:
    assert facts.reward is not None, "a policy overfits only where the reward is known to rise"
    return (
        f"{_fell(facts)} while the training reward{facts.whose} rose from "
        f"{facts.reward.before:.2f} to {facts.reward.after:.2f}: the policy overfits since "
        f"{facts.best[0]}."
    )


def _falls(facts: _Facts) -> str:
    if facts.reward is None and facts.is_kept:
        return (
            f"{_fell(facts)}; whether these policies earned more training reward meanwhile is not "
            "known, since no two of them began explorations that compare."
        )
    if facts.reward is None:
        return (
            f"{_fell(facts)}; fewer than {MIN_REWARDS} RL steps lie between, too few to say "
            "whether the training reward rose meanwhile."
        )
    before, after, change = facts.reward.before, facts.reward.after, facts.reward.change
    return (
        f"{_fell(facts)}; the training reward{facts.whose} did not clearly rise meanwhile "
        f"({before:.2f} to {after:.2f}, {change.value:+.2f} [{change.low:+.2f}, "
        f"{change.high:+.2f}]): a loss, but not overfitting."
    )


def _fell(facts: _Facts) -> str:
    return (
        f"{facts.name} fell from {_valued(facts.best)} to {_valued(facts.last)} "
        f"({_points(facts.fall)}, {facts.sure} sure)"
    )


def _rises(facts: _Facts) -> str:
    return (
        f"{facts.name} rose from {_valued(facts.start)} to {_valued(facts.last)} "
        f"({_points(facts.gain)}, {facts.sure} sure){_against_best(facts)}."
    )


def _holds(facts: _Facts) -> str:
    return (
        f"{facts.name} went from {_valued(facts.start)} to {_valued(facts.last)} "
        f"({_points(facts.gain)}), no clear change{_against_best(facts)}."
    )


def _against_best(facts: _Facts) -> str:
    """Return what is to be said of the best checkpoint where no fall from it is clear."""
    if facts.fall.value >= 0:
        return "; no measurement was higher"
    if facts.best == facts.start:
        return ""
    return (
        f"; the best was {_valued(facts.best)}, a difference ({_points(facts.fall)}) within what "
        "chance and choosing the best explain"
    )


_SENTENCES = {"overfits": _overfits, "falls": _falls, "rises": _rises, "holds": _holds}


def _too_few(
    rewards: Rewards, checkpoints: Sequence[Checkpoint], k: int, num_problems: int
) -> Overfitting:
    """Return that a path cannot be judged, and what to set so that it can."""
    first, last = checkpoints[0], checkpoints[-1]
    name = f"Held-out pass@{k} on {last.task}"
    num_steps = sum(_place(first) < key <= _place(last) for key in rewards.by_step)
    if len(checkpoints) >= MIN_CHECKPOINTS:
        said = (
            f"{name} has {num_problems} problems that all {len(checkpoints)} measurements share, "
            f"fewer than the {MIN_PROBLEMS} that a verdict needs: measure on more problems "
            "(tasks.evaluate)."
        )
    else:
        every = max(1, num_steps // WANTED_CHECKPOINTS)
        remedy = f"set evaluate.every to {every}" if not last.is_kept else "run more iterations"
        places = dict.fromkeys((_where(first), _where(last)))
        said = (
            f"{name} was measured only at {' and '.join(places)}, too few times to say since when "
            f"it falls: {remedy}."
        )
    return Overfitting(
        kind="too few",
        task=last.task,
        k=k,
        num_checkpoints=len(checkpoints),
        num_problems=num_problems,
        sentence=said,
    )


def _place(checkpoint: Checkpoint) -> tuple[int, float]:
    """Return where a checkpoint stands among (iteration, step): a kept policy after all steps."""
    return checkpoint.iteration, math.inf if checkpoint.is_kept else checkpoint.step


def _where(checkpoint: Checkpoint) -> str:
    """Return a place in words: the start, a kept policy's name, or the step it follows."""
    if checkpoint.is_kept:
        return f"the start ({checkpoint.policy})" if not checkpoint.iteration else checkpoint.policy
    of = f" of iteration {checkpoint.iteration}" if checkpoint.iteration > 1 else ""
    return f"step {checkpoint.step}{of}"


def _valued(place: tuple[str, float]) -> str:
    where, value = place
    return f"{100 * value:.1f} % at {where}"


def _points(difference: Estimate) -> str:
    """Return a difference of fractions as `-10.8 points [-14.9, -6.6]`."""
    value, low, high = (100 * x for x in (difference.value, difference.low, difference.high))
    return f"{value:+.1f} points [{low:+.1f}, {high:+.1f}]"


def _sure(sure: float) -> str:
    """Return a probability in whole percent, rounded down so that it promises no more."""
    return "over 99.9 %" if sure > 0.999 else f"{math.floor(100 * sure)} %"
