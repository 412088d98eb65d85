"""Checkpoints: how often each evaluated policy of a run solved each problem, from the store.

Every curve, matrix and conclusion about training starts from these counts: c of n samples per
problem are correct. This module knows no files and no models.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rloop.errors import StoreError
from rloop.evaluation.forgetting import Solved, lost_between_halves
from rloop.evaluation.intervals import Estimate
from rloop.evaluation.metrics import mean_estimates, problem_values
from rloop.evaluation.tallies import tally_rows
from rloop.store.trajectories import TrajectoryStore
from rloop.types import policy_kind

MAX_CHECKPOINTS = 16
"""A matrix over checkpoints with more rows cannot be read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """One evaluation of one policy on one task.

    Example: Checkpoint(task="gsm8k", policy="explored-001", iteration=1, step=40, num_samples=8,
    counts={"gsm8k/test/0": 3, "gsm8k/test/1": 0})
    """

    task: str
    policy: str
    iteration: int
    """0 for the base and the cold start."""
    step: int
    """The RL step after which it was measured; 0 for a policy that is kept."""
    num_samples: int
    """n, of every problem."""
    counts: Mapping[str, int]
    """c by problem_id."""
    majority: Mapping[str, float] = field(default_factory=dict)
    """Chance that the most common answer is right, by problem_id; empty if it was not read."""
    halves: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    """c of the members 0, 2, 4, ... and of the others, by problem_id; empty if it was not read.
    """

    @property
    def is_kept(self) -> bool:
        """Whether the loop keeps the policy, as opposed to RL's weights inside an iteration."""
        return policy_kind(self.policy) != "explored"

    @property
    def label(self) -> str:
        """Return `iter-001` for a policy that is kept, `explored-002@40` for one inside RL."""
        return self.policy if self.is_kept else f"{self.policy}@{self.step}"


def read_checkpoints(store: TrajectoryStore) -> list[Checkpoint]:
    """Return the evaluations of a run in the order of training, tasks of a policy by name.

    The order is base, coldstart, then per iteration the explored policies by step and the policy
    kept. The last evaluation of a task is left out while it lacks problems of the one before,
    because it is in progress or was interrupted. Raises StoreError if problems have unequal numbers
    of samples.
    """
    rows = tally_rows(store)
    evaluations = groupby(rows, lambda r: (r["task"], r["policy"], r["iteration"], r["step"]))
    found = sorted((_checkpoint(list(members)) for _, members in evaluations), key=_training_order)
    latest: dict[str, list[Checkpoint]] = {}
    for checkpoint in found:
        latest[checkpoint.task] = [*latest.get(checkpoint.task, [])[-1:], checkpoint]
    unfinished = [
        pair[1]
        for pair in latest.values()
        if len(pair) == 2 and pair[1].counts.keys() < pair[0].counts.keys()
    ]
    return [checkpoint for checkpoint in found if checkpoint not in unfinished]


def training_paths(
    checkpoints: Sequence[Checkpoint], *, restarts: bool = False
) -> dict[str, tuple[Checkpoint, ...]]:
    """Return the paths through one task's checkpoints: RL of each iteration, then the kept
    policies.

    Each is a name such as `RL of iteration 2`, and checkpoints that were trained one from the
    other.

    RL of an iteration starts at the last policy measured before it: the cold start, the policy kept
    by the previous iteration or, for RL that continues, its last weights. RL that `restarts` starts
    at the last policy of iteration 0 each time.
    """
    paths = {}
    for iteration in sorted({c.iteration for c in checkpoints if not c.is_kept}):
        first = 1 if restarts else iteration
        start = [c for c in checkpoints if c.iteration < first][-1:]
        inside = [c for c in checkpoints if c.iteration == iteration and not c.is_kept]
        paths[f"RL of iteration {iteration}"] = (*start, *inside)
    kept = [c for c in checkpoints if c.is_kept]
    first = max((i for i, c in enumerate(kept) if c.iteration == 0), default=0)
    if len(kept) - first > 1:
        paths["policies kept"] = tuple(kept[first:])
    return paths


def default_ks(num_samples: int) -> list[int]:
    """Return 1, 2, 4, ... up to n, and n itself: the k of a pass@k curve."""
    return sorted({*(2**i for i in range(num_samples.bit_length())), num_samples})


def pass_curve(
    checkpoint: Checkpoint, ks: Sequence[int], *, confidence: float
) -> dict[int, Estimate]:
    """Return unbiased pass@k with its interval over problems, for each k <= n.

    The values equal those of metrics.jsonl if k is in the recipe. Raises ValueError for k > n.
    """
    counts = list(checkpoint.counts.values())
    found = mean_estimates(problem_values(checkpoint.num_samples, counts, ks), confidence)
    return {k: found[f"pass@{k}"] for k in ks}


def count_matrix(checkpoints: Sequence[Checkpoint]) -> tuple[list[str], NDArray[np.int64]]:
    """Return the problems that all checkpoints have, sorted, and their counts c [C, P].

    Raises ValueError unless all checkpoints have the same task and number of samples.
    """
    kinds = {(checkpoint.task, checkpoint.num_samples) for checkpoint in checkpoints}
    if len(kinds) != 1:
        raise ValueError(
            "checkpoints can be compared on one task and one number of samples, got "
            f"{', '.join(f'{task} with {n}' for task, n in sorted(kinds)) or 'none'}"
        )
    common = sorted(set.intersection(*(set(c.counts) for c in checkpoints)))
    rows = [[checkpoint.counts[name] for name in common] for checkpoint in checkpoints]
    return common, np.array(rows, dtype=np.int64).reshape(len(checkpoints), len(common))


def solved_matrix(checkpoints: Sequence[Checkpoint]) -> Solved:
    """Return which problems each checkpoint solved [C, P]: at least one of n samples correct.

    P counts the problems that all checkpoints have; see `count_matrix` for their names and errors.
    """
    return count_matrix(checkpoints)[1] > 0


def half_losses(before: Checkpoint, after: Checkpoint) -> tuple[float, float] | None:
    """Return what `after`, and `before` itself, lose of what `before` solved in half of its
    samples.

    The second is chance; the excess of the first over it is forgetting (`lost_between_halves`).
    None if there are no two halves.
    """
    problems, _ = count_matrix([before, after])
    if before.num_samples < 2 or not (before.halves and after.halves):
        return None
    then, now = (np.array([c.halves[name] for name in problems]) > 0 for c in (before, after))
    return lost_between_halves(then, now), lost_between_halves(then, then)


def spread_checkpoints(checkpoints: Sequence[Checkpoint], limit: int) -> list[int]:
    """Return the indices of at most `limit` checkpoints: all kept ones, the last, then explored
    ones.

    Explored ones are evenly spaced over training; so are the kept ones if they alone exceed the
    limit.
    """
    last = len(checkpoints) - 1
    must = [i for i, c in enumerate(checkpoints) if c.is_kept or i == last]
    others = [i for i in range(len(checkpoints)) if i not in set(must)]
    if len(must) >= limit:
        return evenly_spaced(must, limit)
    return sorted([*must, *evenly_spaced(others, limit - len(must))])


def evenly_spaced(items: Sequence[int], limit: int) -> list[int]:
    """Return at most `limit` items, evenly spaced, including the first and the last."""
    if len(items) <= limit:
        return list(items)
    return [items[i] for i in np.linspace(0, len(items) - 1, limit).round().astype(int)]


def _checkpoint(rows: Sequence[Mapping[str, Any]]) -> Checkpoint:
    """Return one evaluation from its rows, one per problem."""
    first = rows[0]
    usual = Counter(int(row["samples"]) for row in rows).most_common(1)[0][0]
    odd = [row for row in rows if row["samples"] != usual]
    if odd:
        named = ", ".join(f"{row['problem_id']} has {row['samples']}" for row in odd[:3])
        raise StoreError(
            f"The evaluation of {first['policy']} (iteration {first['iteration']}, step "
            f"{first['step']}) on {first['task']} has unequal numbers of samples: {named} "
            f"({len(odd)} such), most problems have {usual}. Its files are damaged or mixed; "
            "restore them from a backup, or move them elsewhere to continue without them."
        )
    return Checkpoint(
        task=str(first["task"]),
        policy=str(first["policy"]),
        iteration=int(first["iteration"]),
        step=int(first["step"]),
        num_samples=usual,
        counts={str(row["problem_id"]): int(row["correct"]) for row in rows},
        majority={str(row["problem_id"]): float(row["majority"]) for row in rows},
        halves={
            str(row["problem_id"]): (row["correct_even"], row["correct"] - row["correct_even"])
            for row in rows
        },
    )


def _training_order(checkpoint: Checkpoint) -> tuple[int, bool, int, bool, str, str]:
    """Return the sort key of the order of training: in an iteration, explored policies before the
    kept one."""
    is_kept, is_base = checkpoint.is_kept, checkpoint.policy == "base"
    place = (checkpoint.iteration, is_kept, checkpoint.step, not is_base)
    return *place, checkpoint.policy, checkpoint.task
