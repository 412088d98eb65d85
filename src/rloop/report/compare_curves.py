"""Curves of methods over what they sampled in RL, so that methods are compared at equal cost."""

from bisect import bisect_right
from collections.abc import Sequence

import numpy as np

from rloop.evaluation.checkpoints import Checkpoint
from rloop.evaluation.comparison import seed_mean
from rloop.observe.metric_keys import training_accuracy
from rloop.report.compare_groups import MethodGroup
from rloop.report.compare_results import TaskValues
from rloop.report.compare_runs import ComparedRun
from rloop.report.run_record import Row

MAX_POINTS = 60
"""Of a training curve of one method; more RL steps are averaged in equal parts."""


class TokenClock:
    """How many tokens a run had sampled in RL at each of its steps."""

    def __init__(self, run: ComparedRun) -> None:
        """Add up the explore lines of the run's log."""
        rows = run.record.rows("explore")
        self._steps = [(int(row["iteration"]), int(row["step"])) for row in rows]
        spent = [row.get("explore/sampled_tokens_count") or 0 for row in rows]
        self._tokens = np.cumsum([0, *spent])

    def at(self, checkpoint: Checkpoint) -> int:
        """Return the tokens sampled before a checkpoint; a kept policy follows its exploration."""
        if checkpoint.is_kept:
            place: tuple[int, float] = (checkpoint.iteration, float("inf"))
        else:
            place = (checkpoint.iteration, checkpoint.step)
        return int(self._tokens[bisect_right(self._steps, place)])

    def after_each_step(self) -> list[int]:
        """Return the tokens sampled up to and with each step."""
        return [int(tokens) for tokens in self._tokens[1:]]


def reward_rows(groups: Sequence[MethodGroup]) -> list[Row]:
    """Return the training reward of each method: policy, x (tokens), value, low, high.

    The mean over seeds; low and high are the lowest and the highest seed.
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
            low, high = float(rewards.min()), float(rewards.max())
            place = {"policy": group.label, "x": round(float(x))}
            rows.append({**place, "value": float(rewards.mean()), "low": low, "high": high})
    return rows


def held_out_rows(
    values: TaskValues, groups: Sequence[MethodGroup], metric: str, *, confidence: float
) -> list[Row]:
    """Return a metric of the policies that each method would hand over: policy, x, value, ...

    A point is the mean over seeds, with the interval of a final result; x is the mean of the
    tokens. Runs of a method that ended early are followed up to the shortest.
    """
    rows: list[Row] = []
    for group in groups:
        paths = [(values.task_run(run).path, TokenClock(run)) for run in group.runs]
        for index in range(min(len(path) for path, _ in paths)):
            checkpoints = [(path[index], clock) for path, clock in paths]
            found = np.stack([values.of(checkpoint, metric) for checkpoint, _ in checkpoints])
            mean = seed_mean(found, confidence=confidence)
            x = np.mean([clock.at(checkpoint) for checkpoint, clock in checkpoints])
            place = {"policy": group.label, "x": round(float(x)), "label": checkpoints[0][0].label}
            rows.append({**place, "value": mean.value, "low": mean.low, "high": mean.high})
    return rows


def _reward_curve(run: ComparedRun) -> list[tuple[float, float]]:
    """Return (tokens, reward) of each RL step that has a reward."""
    rows = run.record.rows("explore")
    tokens = TokenClock(run).after_each_step()
    return [
        (float(spent), value)
        for row, spent in zip(rows, tokens, strict=True)
        if (value := training_accuracy(row)) is not None
    ]
