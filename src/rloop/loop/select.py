"""The select phase: from the store's pool to the expert set on disk, by `algo.selection`."""

from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path

from rloop.algo.candidates import Candidates
from rloop.algo.selection import ProblemReport, select_expert_set
from rloop.errors import ConfigError
from rloop.recipe.config import Recipe
from rloop.store.expert import EXAMPLE_COLUMNS, write_expert_set
from rloop.store.trajectories import TrajectoryStore
from rloop.types import Problem

HOPELESS_WEIGHT = 0.25
"""Weight of a problem never solved so far, beside 1 for one never tried."""
EASY_WEIGHT = 0.05
"""Least weight: a problem always solved comes back now and then."""


def select_and_write(
    store: TrajectoryStore, run_dir: Path, recipe: Recipe, iteration: int
) -> dict[str, int]:
    """Write the iteration's expert set, and why each problem is in it or not; return the counts."""
    if recipe.expert is None:
        raise ConfigError("The recipe has no expert section, so there is nothing to select by.")
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

    1 - success rate over all explorations so far, verdict errors left out; problems that were
    tried and never solved may be hopeless and get 0.25, those never tried get 1.
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
