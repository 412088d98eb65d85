"""What each method reached on each held-out task, and how it differs from the reference method."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rloop.evaluation.checkpoints import Checkpoint, default_ks
from rloop.evaluation.comparison import seed_difference, seed_mean
from rloop.evaluation.intervals import Estimate
from rloop.evaluation.metrics import metric_values
from rloop.observe import metric_keys
from rloop.report.compare_groups import MethodGroup
from rloop.report.compare_runs import ComparedRun, TaskRun


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricResult:
    """One metric of one method on one task.

    Example: MetricResult(metric="pass@8", mean=Estimate(0.7, 0.6, 0.8), by_run=(0.68, 0.72),
    difference=Estimate(0.04, -0.02, 0.1), change=Estimate(0.1, 0.05, 0.15))
    """

    metric: str
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
    not_compared: str = ""
    """Why there is no difference from the reference, in a sentence; empty where there is one."""

    @property
    def has_change(self) -> bool:
        """Whether its runs were measured before their training too."""
        return any(metric.change for metric in self.metrics.values())


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskResult:
    """All methods on one task, on the problems that all runs were measured on.

    Example: TaskResult(task="sums", num_problems=16, metrics=("avg@8", "maj@8", "pass@8"),
    methods=(...), reference="Plain RL")
    """

    task: str
    num_problems: int
    metrics: tuple[str, ...]
    methods: tuple[MethodResult, ...]
    reference: str

    @property
    def headline(self) -> tuple[str, ...]:
        """Return avg@n and pass@(largest k)."""
        return tuple(metric_keys.headline(self.metrics))


class TaskValues:
    """The counts of one task over the problems that every run has, as values by metric."""

    def __init__(self, task: str, runs: Sequence[ComparedRun]) -> None:
        """Collect the task from runs that all have it."""
        self.task = task
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

    def not_compared(self, group: MethodGroup, reference: MethodGroup) -> str:
        """Return why two methods cannot be compared; empty where they can.

        With fewer samples more problems look all solved or all unsolved: pass@8 of n = 8 is 0 or
        1, of n = 64 often between. Problems can then differ in one direction alone, and resampling
        them, which never sees the other, calls equal policies different.
        """
        samples = sorted(
            {self.task_run(run).final.num_samples for run in (*group.runs, *reference.runs)}
        )
        if len(samples) == 1:
            return ""
        told = " and ".join(map(str, samples))
        return (
            f"Not comparable: n differs, {told} samples per problem. With fewer samples more "
            "problems look all solved or all unsolved, so equal policies can seem to differ. "
            "Measure both with the same --samples of `rloop eval`."
        )

    def final(self, group: MethodGroup, metric: str) -> NDArray[np.float64]:
        """Return a metric of the last policies of a group [S, P]."""
        return np.stack([self.of(self.task_run(run).final, metric) for run in group.runs])

    def start(self, group: MethodGroup, metric: str) -> NDArray[np.float64] | None:
        """Return the same of what the runs started with; None where one was not measured."""
        tasks = [self.task_run(run) for run in group.runs]
        if not all(one.has_reference for one in tasks):
            return None
        return np.stack([self.of(one.path[0], metric) for one in tasks])

    def task_run(self, run: ComparedRun) -> TaskRun:
        """Return the task in one run."""
        return self._by_run[run.directory]


def task_result(
    values: TaskValues,
    groups: Sequence[MethodGroup],
    reference: MethodGroup,
    metrics: Sequence[str],
    *,
    confidence: float,
) -> TaskResult:
    """Return every method's metrics on a task."""
    methods = [
        MethodResult(
            group=group,
            policies=tuple(dict.fromkeys(values.task_run(run).final.label for run in group.runs)),
            metrics={name: _metric(values, group, reference, name, confidence) for name in metrics},
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
    )


def pass_rows(
    values: TaskValues, groups: Sequence[MethodGroup], *, confidence: float
) -> list[dict[str, object]]:
    """Return pass@k of each method at powers of two, with intervals: policy, k, value, low, high.

    The first is what the runs started with, each start once.
    """
    rows = []
    started = [group for group in groups if values.start(group, "avg") is not None]
    curves = [(group.label, group, False) for group in groups]
    if started:
        curves.insert(0, ("before training", started[0], True))
    for label, group, is_start in curves:
        for k in default_ks(values.num_samples):
            name = f"pass@{k}"
            found = values.start(group, name) if is_start else values.final(group, name)
            assert found is not None, "a start that is drawn was measured"
            mean = seed_mean(found, confidence=confidence)
            place = {"policy": label, "k": k}
            rows.append({**place, "value": mean.value, "low": mean.low, "high": mean.high})
    return rows


def _metric(
    values: TaskValues,
    group: MethodGroup,
    reference: MethodGroup,
    name: str,
    confidence: float,
) -> MetricResult:
    found, start = values.final(group, name), values.start(group, name)
    difference = change = None
    if group is not reference and not values.not_compared(group, reference):
        difference = seed_difference(
            found,
            values.final(reference, name),
            is_paired_by_seed=group.seeds == reference.seeds,
            confidence=confidence,
        )
    if start is not None:
        change = seed_difference(found, start, is_paired_by_seed=True, confidence=confidence)
    return MetricResult(
        metric=name,
        mean=seed_mean(found, confidence=confidence),
        by_run=tuple(float(mean) for mean in found.mean(axis=1)),
        difference=difference,
        change=change,
    )
