"""What the loop reads from the store: the expert set, and what later explorations need.

The select phase writes the expert set from the pool of trajectories, by `algo.selection`.
Explorations with `focus: hard` draw problems by their success rate so far; those with replay get
earlier successes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import fields
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np

from rloop.algo.candidates import Candidates
from rloop.algo.selection import ProblemReport, select_expert_set
from rloop.recipe.config import Recipe
from rloop.store.expert import EXAMPLE_COLUMNS, write_expert_set
from rloop.store.trajectories import TrajectoryStore
from rloop.types import Completion, Place, Problem, Trajectory, Verdict, stable_hash

HOPELESS_WEIGHT = 0.25
"""Weight of a problem that was tried and never solved; one never tried has 1."""
EASY_WEIGHT = 0.05
"""Smallest weight, so that a problem that is always solved still comes back now and then."""
MAX_PER_PROBLEM = 64
"""Distinct successes per problem that are held in memory, chosen by hash."""
REPLAYED_COLUMNS = (
    *("run", "iteration", "step", "policy", "policy_version", "problem_id", "group_id", "member"),
    *("prompt_ids", "completion_ids", "behavior_logprobs", "prompt_text", "completion_text"),
    *("finish_reason", "answer", "verifier_version", "reward", "temperature", "top_p", "top_k"),
    "template_version",
)


def select_and_write(
    store: TrajectoryStore, run_dir: Path, recipe: Recipe, iteration: int
) -> dict[str, int]:
    """Write the iteration's expert set, and for each problem why it is in it or not; return the
    counts."""
    assert recipe.expert is not None, "a recipe that selects has an expert section"
    first = 1 if recipe.expert.window == "accumulated" else iteration
    pool = store.pool(range(first, iteration + 1))
    candidates = Candidates.from_table(pool.columns, pool.completion_ids)
    chosen = select_expert_set(candidates, recipe.expert, seed=recipe.seed)
    names = [field.name for field in fields(ProblemReport)]
    write_expert_set(
        run_dir,
        iteration,
        trajectories=pool.take(chosen.rows, EXAMPLE_COLUMNS),
        weights=chosen.weights.tolist(),
        problems=[{name: getattr(report, name) for name in names} for report in chosen.problems],
    )
    return chosen.counts


def focus_weights(
    store: TrajectoryStore, problems: Sequence[Problem], *, before: int
) -> Mapping[str, float]:
    """Return how often each problem should be explored, for `explore.focus: hard`.

    The weight is 1 - success rate over all explorations so far, without verdict errors. Problems
    that were tried and never solved may be hopeless and get 0.25; those never tried get 1.
    """
    table = store.query(
        "select problem_id, avg(correct::int) as success_rate from trajectories where phase = "
        f"'explore' and verdict != 'error' and iteration < {before} group by problem_id"
    )
    rates = {row["problem_id"]: row["success_rate"] for row in table.to_pylist()}

    def weight(rate: float | None) -> float:
        if rate is None:
            return 1.0
        return HOPELESS_WEIGHT if rate == 0 else max(EASY_WEIGHT, 1 - rate)

    return {p.problem_id: weight(rates.get(p.problem_id)) for p in problems}


def read_successes(
    store: TrajectoryStore, problems: Sequence[Problem], *, before: int, seed: int
) -> Mapping[str, tuple[Trajectory, ...]]:
    """Return successes of the explorations before an iteration, by problem_id.

    As in selection, a success is correct and stopped by itself, and of equal texts only the first
    counts. `seed` is the run's.
    """
    known = {problem.problem_id: problem for problem in problems}
    pool = store.pool(range(1, before))
    wanted: list[int] = []
    for _, rows in groupby(_distinct(pool.columns.to_pylist(), known), itemgetter("problem_id")):
        drawn = sorted(rows, key=lambda row: stable_hash(seed, "replay", row["completion_hash"]))
        wanted += (row["row"] for row in drawn[:MAX_PER_PROBLEM])
    table = pool.take(np.array(sorted(wanted), np.int64), REPLAYED_COLUMNS)
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
