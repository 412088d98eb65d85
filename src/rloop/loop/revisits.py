"""How like the last time's the completions of a step are, on the problems that came before."""

from collections.abc import Sequence
from math import isnan

import numpy as np

from rloop.evaluation.ngrams import visit_similarity
from rloop.store.trajectories import TrajectoryStore
from rloop.types import Group, Place

MAX_PROBLEMS = 64
"""Groups of a step that are compared, the first ones: bounds the cost of a step."""
MAX_MEMBERS = 8
"""Completions of a group that are compared, the first ones."""


def revisit_similarity(
    store: TrajectoryStore, place: Place, groups: Sequence[Group]
) -> dict[str, float]:
    """Return `similarity_mean`: how like the completions of two visits to a problem are.

    The mean Jaccard similarity of token 4-grams between the step's completions of a problem and
    those of the last earlier step of the iteration that had it, a mean over the step's problems;
    nothing where none came before.
    """
    now = {
        g.problem.problem_id: [t.completion.completion_ids for t in g.trajectories[:MAX_MEMBERS]]
        for g in groups[:MAX_PROBLEMS]
    }
    before = _last_visits(store, place, sorted(now))
    similarity = visit_similarity(now, before)
    return {} if isnan(similarity) else {"similarity_mean": similarity}


def _last_visits(
    store: TrajectoryStore, place: Place, problem_ids: Sequence[str]
) -> dict[str, list[list[int]]]:
    """Return the token ids of each problem's completions at its last visit before the step."""
    columns = ("problem_id", "step", "member")
    pool = store.light(columns, iteration=place.iteration, phase="explore")
    steps, members = (pool.columns[name].to_numpy() for name in columns[1:])
    names = pool.columns["problem_id"].to_numpy(zero_copy_only=False)
    candidates = np.flatnonzero(
        (steps < place.step) & (members < MAX_MEMBERS) & np.isin(names, problem_ids)
    )
    last: dict[str, int] = {}
    for row in candidates.tolist():
        last[names[row]] = max(last.get(names[row], 0), int(steps[row]))
    rows = np.array([r for r in candidates.tolist() if steps[r] == last[names[r]]], np.int64)
    found: dict[str, list[list[int]]] = {}
    for row, ids in zip(rows.tolist(), pool.completion_ids(rows), strict=True):
        found.setdefault(names[row], []).append(ids.tolist())
    return found
