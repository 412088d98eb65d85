"""The evaluation phase: sample held-out problems, keep every trajectory, state the metrics with
intervals.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from rloop.config import EvaluateConfig
from rloop.engines.base import Engine
from rloop.evaluation.metrics import evaluate_counts, paired_difference
from rloop.store.trajectories import TrajectoryStore
from rloop.types import Group, Place, PolicyRef, Problem, stable_hash

Counts = Mapping[str, int]
"""Correct samples by problem_id."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """What one evaluation found.

    Example: Measurement(counts={"gsm8k": {"gsm8k/test/0": 3}}, metrics={"gsm8k/avg@8": 0.375})
    """

    counts: Mapping[str, Counts]
    """Correct samples of each problem, by task."""
    metrics: Mapping[str, float]
    """`TASK/avg@n`, `TASK/pass@k`, each with `_low` and `_high`, and against the base `_diff`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluator:
    """Measures policies on the same held-out tasks in the same way."""

    engine: Engine
    tasks: Mapping[str, Sequence[Problem]]
    config: EvaluateConfig
    store: TrajectoryStore

    @property
    def num_problems(self) -> int:
        """Held-out problems of all tasks."""
        return sum(map(len, self.tasks.values()))

    def evaluate(
        self,
        policy: PolicyRef | Literal["live"],
        place: Place,
        *,
        base_counts: Mapping[str, Counts] | None = None,
        on_group: Callable[[Group], None] = lambda _: None,
    ) -> Measurement:
        """Measure a policy on every task; `place.policy` names it.

        Each task's trajectories are one file of the store, written when the task is through. With
        `base_counts` (the base policy's) differences are paired on the same problems.
        """
        counts: dict[str, Counts] = {}
        metrics: dict[str, float] = {}
        for task, problems in self.tasks.items():
            groups = []
            for group in self.engine.sample(policy, problems, self.config.samples, place):
                groups.append(group)
                on_group(group)
            groups.sort(key=lambda group: group.problem.problem_id)
            self.store.append(place, groups, part=f"{place.policy}-{task}")
            counts[task] = {group.problem.problem_id: group.num_correct for group in groups}
            base = (base_counts or {}).get(task)
            stats = task_metrics(counts[task], self.config, seed=place.seed, base=base)
            metrics |= {f"{task}/{key}": value for key, value in (stats | _health(groups)).items()}
        return Measurement(counts=counts, metrics=metrics)


def task_metrics(
    counts: Counts, config: EvaluateConfig, *, seed: int, base: Counts | None = None
) -> dict[str, float]:
    """Return avg@n and pass@k of one task with bootstrap intervals, and paired against the base.

    The bootstrap draws the same problems for every policy of a run, from the run's seed.
    """
    ids = sorted(counts)
    values = [counts[problem_id] for problem_id in ids]
    rng = np.random.default_rng(stable_hash(seed, "bootstrap"))
    found = evaluate_counts(config.samples, values, config.k, rng=rng, confidence=config.confidence)
    if base is not None:
        rng = np.random.default_rng(stable_hash(seed, "bootstrap"))
        base_values = [base[problem_id] for problem_id in ids]
        differences = paired_difference(
            config.samples, values, base_values, config.k, rng=rng, confidence=config.confidence
        )
        found |= {f"{name}_diff": estimate for name, estimate in differences.items()}
    metrics: dict[str, float] = {}
    for name, estimate in found.items():
        metrics |= {
            name: estimate.value,
            f"{name}_low": estimate.low,
            f"{name}_high": estimate.high,
        }
    return metrics


def counts_of(store: TrajectoryStore, place: Place) -> dict[str, Counts]:
    """Return the counts of an evaluation that is already stored, by task."""
    table = store.query(
        "select task, problem_id, count(*) filter (where correct) as num_correct from trajectories "
        f"where phase = 'evaluate' and iteration = {place.iteration} and step = {place.step} "
        f"and policy = '{place.policy}' group by all"
    )
    counts: dict[str, dict[str, int]] = {}
    for row in table.to_pylist():
        counts.setdefault(row["task"], {})[row["problem_id"]] = row["num_correct"]
    return dict(counts)


def _health(groups: Sequence[Group]) -> dict[str, float]:
    completions = [t.completion for group in groups for t in group.trajectories]
    verdicts = [t.verdict for group in groups for t in group.trajectories]
    total = max(1, len(completions))
    num_tokens = sum(len(completion.completion_ids) for completion in completions)
    return {
        "problems_count": len(groups),
        "samples_count": len(completions),
        "sampled_tokens_count": num_tokens,
        "completion_tokens_mean": num_tokens / total,
        "truncated_frac": sum(completion.is_truncated for completion in completions) / total,
        "verdict_error_frac": sum(verdict.kind == "error" for verdict in verdicts) / total,
    }
