"""What each method reached on a held-out task: values with intervals, differences from the
reference method, what was forgotten, and curves at equal cost.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from math import inf, isnan, nan

import numpy as np
from numpy.typing import NDArray

from rloop.evaluation.checkpoints import Checkpoint, default_ks, half_losses, solved_matrix
from rloop.evaluation.comparison import seed_difference, seed_mean
from rloop.evaluation.forgetting import ever_solved_loss, forgetting, newly_solved
from rloop.evaluation.intervals import Estimate
from rloop.evaluation.metrics import metric_values
from rloop.evaluation.overfitting import overfitting_verdict
from rloop.observe import metric_keys
from rloop.report.compare_runs import ComparedRun, MethodGroup, TaskRun
from rloop.report.conclusions import overfitting_sentence, read_rewards
from rloop.report.formatting import percent
from rloop.run_directory import Row

BEFORE = "before training"
"""The series of what the runs started with."""
MAX_POINTS = 60
"""Of a training curve of one method; more RL steps are averaged in equal parts."""
KINDS = {
    "overfits": "overfits",
    "falls": "held-out falls",
    "holds": "no clear change",
    "rises": "held-out rises",
    "too few": "too few measurements",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricResult:
    """One metric of one method on one task.

    Example: MetricResult(mean=Estimate(0.7, 0.6, 0.8), by_run=(0.68, 0.72),
    difference=Estimate(0.04, -0.02, 0.1), change=Estimate(0.1, 0.05, 0.15))
    """

    mean: Estimate
    """Over seeds."""
    by_run: tuple[float, ...]
    """In the order of the group's runs."""
    difference: Estimate | None
    """From the reference method; None for that one itself, and where n differs."""
    change: Estimate | None
    """From what each run started with; None where that was not measured."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MethodResult:
    """One method on one task.

    Example: MethodResult(group=MethodGroup(...), policies=("iter-002",), metrics={"avg@8": ...})
    """

    group: MethodGroup
    policies: tuple[str, ...]
    """Labels of the policies measured, each once."""
    metrics: dict[str, MetricResult]
    not_compared: str
    """Why there is no difference from the reference, in a sentence; empty where there is one."""

    @property
    def has_change(self) -> bool:
        """Whether its runs were measured before their training too."""
        return any(metric.change for metric in self.metrics.values())


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskResult:
    """All methods on one task, on the problems that all runs were measured on.

    Example: TaskResult(task="sums", num_problems=16, metrics=("avg@8", "maj@8", "pass@8"),
    methods=(...), reference="Plain RL", losses=({"label": "Plain RL", ...},))
    """

    task: str
    num_problems: int
    metrics: tuple[str, ...]
    methods: tuple[MethodResult, ...]
    reference: str
    losses: tuple[Row, ...]
    """What each method forgot, of `loss_row`."""

    @property
    def headline(self) -> tuple[str, ...]:
        """Return avg@n and pass@(largest k)."""
        return tuple(metric_keys.headline(self.metrics))


class TaskValues:
    """The counts of one task over the problems that every run has, as values by metric."""

    def __init__(self, task: str, runs: Sequence[ComparedRun], confidence: float) -> None:
        """Collect the task from runs that all have it."""
        self.task = task
        self.confidence = confidence
        self._by_run = {run.directory: run.tasks[task] for run in runs}
        counts = [set(c.counts) for one in self._by_run.values() for c in one.path]
        self.problems = sorted(set.intersection(*counts))
        every = {one.final.num_samples for one in self._by_run.values()}
        self.num_samples = min(every)
        self.has_equal_samples = len(every) == 1

    def metrics(self, ks: Sequence[int], taus: Sequence[float]) -> list[str]:
        """Return metric names in order: `avg@8` and `maj@8`, or `avg` and `maj` where n differs.

        pass@1 is left out, since it is the average.
        """
        of_n = f"@{self.num_samples}" if self.has_equal_samples else ""
        passes = [f"pass@{k}" for k in sorted({k for k in ks if 1 < k <= self.num_samples})]
        return [f"avg{of_n}", f"maj{of_n}", *passes, *(f"cover@{t:g}" for t in sorted({*taus}))]

    def of(self, checkpoint: Checkpoint, metric: str) -> NDArray[np.float64]:
        """Return a metric of a checkpoint by problem [P]."""
        if metric.startswith("maj"):
            return np.array([checkpoint.majority[name] for name in self.problems])
        counts = np.array([checkpoint.counts[name] for name in self.problems])
        return metric_values(metric, checkpoint.num_samples, counts)

    def paths(self, group: MethodGroup) -> list[TaskRun]:
        """Return the task in the runs of a group."""
        return [self._by_run[run.directory] for run in group.runs]

    def at(self, group: MethodGroup, metric: str, index: int) -> NDArray[np.float64]:
        """Return a metric of a group's policies at an index of their paths [S, P]."""
        return np.stack([self.of(one.path[index], metric) for one in self.paths(group)])

    def final(self, group: MethodGroup, metric: str) -> NDArray[np.float64]:
        """Return a metric of the last policies of a group [S, P]."""
        return self.at(group, metric, -1)

    def has_start(self, group: MethodGroup) -> bool:
        """Whether all runs of a group were measured before their training."""
        return all(one.has_reference for one in self.paths(group))

    def mean(self, values: NDArray[np.float64]) -> Estimate:
        """Return the mean over seeds and problems of values [S, P]."""
        return seed_mean(values, confidence=self.confidence)

    def not_compared(self, group: MethodGroup, reference: MethodGroup) -> str:
        """Return why two methods cannot be compared; empty where they can.

        With fewer samples more problems look all solved or all unsolved: pass@8 of n = 8 is 0 or
        1, of n = 64 often between. Problems can then differ in one direction alone, and resampling
        them, which never sees the other, calls equal policies different.
        """
        every = (*self.paths(group), *self.paths(reference))
        samples = sorted({one.final.num_samples for one in every})
        if len(samples) == 1:
            return ""
        told = " and ".join(map(str, samples))
        return (
            f"Not comparable: n differs ({told} samples per problem). With fewer samples, more "
            "problems look fully solved or unsolved, so equal policies can seem to differ. "
            "Evaluate both with the same `rloop eval --samples`."
        )


def task_result(
    values: TaskValues,
    groups: Sequence[MethodGroup],
    reference: MethodGroup,
    metrics: Sequence[str],
) -> TaskResult:
    """Return every method's metrics on a task."""
    methods = [
        MethodResult(
            group=group,
            policies=tuple(dict.fromkeys(one.final.label for one in values.paths(group))),
            metrics={name: _metric(values, group, reference, name) for name in metrics},
            not_compared=values.not_compared(group, reference) if group is not reference else "",
        )
        for group in groups
    ]
    return TaskResult(
        task=values.task,
        num_problems=len(values.problems),
        metrics=tuple(metrics),
        methods=tuple(methods),
        reference=reference.label,
        losses=tuple(loss_row(values, group) for group in groups if values.has_start(group)),
    )


def _metric(
    values: TaskValues, group: MethodGroup, reference: MethodGroup, name: str
) -> MetricResult:
    found, difference, change = values.final(group, name), None, None
    if group is not reference and not values.not_compared(group, reference):
        difference = seed_difference(
            found,
            values.final(reference, name),
            is_paired_by_seed=group.seeds == reference.seeds,
            confidence=values.confidence,
        )
    if values.has_start(group):
        start = values.at(group, name, 0)
        change = seed_difference(found, start, is_paired_by_seed=True, confidence=values.confidence)
    return MetricResult(
        mean=values.mean(found),
        by_run=tuple(float(mean) for mean in found.mean(axis=1)),
        difference=difference,
        change=change,
    )


# Curves: rows of series, x, value, low, high


def pass_rows(values: TaskValues, groups: Sequence[MethodGroup]) -> list[Row]:
    """Return pass@k of each method at powers of two; first, what the first of them began with."""
    curves = [(group.label, group, -1) for group in groups]
    curves = [(BEFORE, group, 0) for group in groups if values.has_start(group)][:1] + curves
    return [
        {"series": label, "x": k} | _ends(values.mean(values.at(group, f"pass@{k}", index)))
        for label, group, index in curves
        for k in default_ks(values.num_samples)
    ]


def held_out_rows(values: TaskValues, groups: Sequence[MethodGroup], metric: str) -> list[Row]:
    """Return a metric of the policies that each method would hand over, over RL's tokens.

    x is the mean of the runs' tokens. Runs of a method that ended early are followed up to the
    shortest.
    """
    rows: list[Row] = []
    for group in groups:
        paths = [one.path for one in values.paths(group)]
        for index in range(min(map(len, paths))):
            spent = [_tokens(run, path[index]) for run, path in zip(group.runs, paths, strict=True)]
            place = {"series": group.label, "x": round(float(np.mean(spent)))}
            place["label"] = paths[0][index].label
            rows.append(place | _ends(values.mean(values.at(group, metric, index))))
    return rows


def reward_rows(groups: Sequence[MethodGroup]) -> list[Row]:
    """Return the training reward of each method over RL's tokens, a mean over seeds.

    low and high are the lowest and the highest seed.
    """
    rows: list[Row] = []
    for group in groups:
        curves = [_reward_curve(run) for run in group.runs]
        length = min(map(len, curves))
        if not length:
            continue
        steps = np.array([curve[:length] for curve in curves])
        for part in np.array_split(np.arange(length), min(length, MAX_POINTS)):
            x, rewards = steps[:, part, 0].mean(), steps[:, part, 1].mean(axis=1)
            found = Estimate(float(rewards.mean()), float(rewards.min()), float(rewards.max()))
            rows.append({"series": group.label, "x": round(float(x))} | _ends(found))
    return rows


def _tokens(run: ComparedRun, checkpoint: Checkpoint) -> int:
    """Return the tokens sampled before a checkpoint; a kept policy follows its exploration."""
    step = inf if checkpoint.is_kept else checkpoint.step
    return run.run.rl_tokens_until(checkpoint.iteration, step)


def _reward_curve(run: ComparedRun) -> list[tuple[float, float]]:
    """Return (tokens, reward) of each RL step that has a reward."""
    rows = run.run.rows("explore")
    spent = np.cumsum([row.get("explore/sampled_tokens_count") or 0 for row in rows])
    return [
        (float(tokens), value)
        for row, tokens in zip(rows, spent, strict=True)
        if (value := metric_keys.training_accuracy(row)) is not None
    ]


def _ends(found: Estimate) -> Row:
    return {"value": found.value, "low": found.low, "high": found.high}


# Forgetting and overfitting


def loss_row(values: TaskValues, group: MethodGroup) -> Row:
    """Return what a method forgot; its runs have a start and an end.

    Fractions are the mean over seeds in words, and from the lowest to the highest: forgotten (of
    the problems that the start solved, those that the last policy does not), half_to_half (of what
    the start solved in one half of its samples, what the last policy misses in the other half of
    its own), by_chance (what the start itself misses there), learned (of those that the start did
    not solve, those that the last policy does), and ever_lost (of all problems, those that some
    policy on the way solved and the last does not). Then num_checkpoints, verdict and sentences.
    """
    paths = [one.path for one in values.paths(group)]
    solved = [solved_matrix(path) for path in paths]
    halves = [half_losses(path[0], path[-1]) or (nan, nan) for path in paths]
    verdicts = [_overfitting(values, *pair) for pair in zip(group.runs, paths, strict=True)]
    lengths = sorted(map(len, paths))
    return {
        "label": group.label,
        "forgotten": _over_seeds([forgetting(path[0], path[-1]) for path in solved]),
        "half_to_half": (_over_seeds([lost for lost, _ in halves])[0], ""),
        "by_chance": (_over_seeds([chance for _, chance in halves])[0], ""),
        "learned": _over_seeds([newly_solved(path[0], path[-1]) for path in solved]),
        "ever_lost": _over_seeds([ever_solved_loss(path) for path in solved]),
        "num_checkpoints": " to ".join(dict.fromkeys(map(str, (lengths[0], lengths[-1])))),
        "verdict": _summary([kind for kind, _ in verdicts]),
        "sentences": [
            f"{run.name}: {sentence}"
            for run, (_, sentence) in zip(group.runs, verdicts, strict=True)
        ],
    }


def _overfitting(
    values: TaskValues, run: ComparedRun, path: Sequence[Checkpoint]
) -> tuple[str, str]:
    """Return the kind and the sentence of the verdict on what a run hands over."""
    k = min(max(run.run.config["evaluate"]["k"], default=1), values.num_samples)
    found = overfitting_verdict(
        read_rewards(run.run), path, k, seed=run.seed, confidence=values.confidence
    )
    return found.kind, overfitting_sentence(found)


def _summary(kinds: Sequence[str]) -> str:
    """Return `overfits in 2 of 3 seeds, no clear change in 1`."""
    if len(kinds) == 1:
        return KINDS[kinds[0]]
    (first, times), *rest = Counter(kinds).most_common()
    more = "".join(f", {KINDS[kind]} in {number}" for kind, number in rest)
    return f"{KINDS[first]} in {times} of {len(kinds)} seeds{more}"


def _over_seeds(fractions: Sequence[float]) -> tuple[str, str]:
    """Return the mean, and from the lowest to the highest where they differ; 0/0 left out."""
    known = [fraction for fraction in fractions if not isnan(fraction)]
    if not known:
        return percent(None), ""
    is_spread = min(known) < max(known)
    spread = f"{percent(min(known))} to {percent(max(known))}" if is_spread else ""
    return percent(sum(known) / len(known)), spread
