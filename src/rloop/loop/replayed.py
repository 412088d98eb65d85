"""What replay draws from: the successes of earlier explorations, read from the store."""

from collections.abc import Mapping, Sequence
from itertools import groupby
from operator import itemgetter
from typing import Any

import numpy as np

from rloop.store.trajectories import TrajectoryStore
from rloop.types import Completion, Place, Problem, Trajectory, Verdict, stable_hash

MAX_PER_PROBLEM = 64
"""Different successes of a problem that are held in memory, chosen by hash."""
COLUMNS = (
    *("run", "iteration", "step", "policy", "policy_version", "problem_id", "group_id", "member"),
    *("prompt_ids", "completion_ids", "behavior_logprobs", "prompt_text", "completion_text"),
    *("finish_reason", "answer", "verifier_version", "reward", "temperature", "top_p", "top_k"),
    "template_version",
)


def read_successes(
    store: TrajectoryStore, problems: Sequence[Problem], *, before: int, seed: int
) -> Mapping[str, tuple[Trajectory, ...]]:
    """Return successes of the explorations before an iteration, by problem_id.

    As in selection a success is correct and stopped by itself, and of equal texts one counts, the
    first. `seed` is the run's.
    """
    known = {problem.problem_id: problem for problem in problems}
    pool = store.pool(range(1, before))
    wanted: list[int] = []
    for _, rows in groupby(_distinct(pool.columns.to_pylist(), known), itemgetter("problem_id")):
        drawn = sorted(rows, key=lambda row: stable_hash(seed, "replay", row["completion_hash"]))
        wanted += (row["row"] for row in drawn[:MAX_PER_PROBLEM])
    table = pool.take(np.array(sorted(wanted), np.int64), COLUMNS)
    found: dict[str, list[Trajectory]] = {}
    for row in table.to_pylist():
        problem = known[row["problem_id"]]
        found.setdefault(problem.problem_id, []).append(_trajectory(row, problem, seed))
    return {problem_id: tuple(successes) for problem_id, successes in found.items()}


def _distinct(rows: Sequence[dict[str, Any]], known: Mapping[str, Problem]) -> list[dict[str, Any]]:
    """Return the first success of each text, with its row number, by problem."""
    first: dict[tuple[str, int], dict[str, Any]] = {}
    for number, row in enumerate(rows):
        is_success = row["correct"] and row["finish_reason"] == "stop"
        if is_success and row["problem_id"] in known:
            key = row["problem_id"], row["completion_hash"]
            first.setdefault(key, row | {"row": number})
    return sorted(first.values(), key=itemgetter("problem_id", "row"))


def _trajectory(row: Mapping[str, Any], problem: Problem, seed: int) -> Trajectory:
    return Trajectory(
        place=Place(
            run=row["run"],
            seed=seed,
            iteration=row["iteration"],
            phase="explore",
            step=row["step"],
            policy=row["policy"],
        ),
        problem=problem,
        group_id=row["group_id"],
        member=row["member"],
        policy_version=row["policy_version"],
        completion=Completion(
            prompt_text=row["prompt_text"],
            prompt_ids=tuple(row["prompt_ids"]),
            completion_text=row["completion_text"],
            completion_ids=tuple(row["completion_ids"]),
            behavior_logprobs=tuple(row["behavior_logprobs"]),
            finish_reason=row["finish_reason"],
        ),
        verdict=Verdict(
            kind="correct", answer=row["answer"], verifier_version=row["verifier_version"]
        ),
        reward=row["reward"],
        temperature=row["temperature"],
        top_p=row["top_p"],
        top_k=row["top_k"],
        template_version=row["template_version"],
    )
