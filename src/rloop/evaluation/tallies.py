"""Counts of each problem's samples, from groups in memory and from evaluations in a store."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rloop.evaluation.metrics import majority_score
from rloop.store.trajectories import TrajectoryStore
from rloop.types import Group, Place


@dataclass(frozen=True, slots=True, kw_only=True)
class Tally:
    """What the metrics need to know about one problem's samples.

    Example: Tally(samples=8, correct=3, majority=1.0, tokens=912, truncated=1, errors=0)
    """

    samples: int
    correct: int
    majority: float
    """Chance that the most common answer is right (`metrics.majority_score`)."""
    tokens: int = 0
    truncated: int = 0
    errors: int = 0


Counts = Mapping[str, Tally]
"""Tallies of a task by problem_id."""

# The same as `majority_score`, in SQL: a row for each answer, then one for each problem.
_SQL = """
    with answers as (
        select task, policy, iteration, step, problem_id, answer, count(*) as votes,
            count(*) filter (where correct) as num_right,
            count(*) filter (where correct and member % 2 = 0) as num_even,
            sum(completion_tokens) as tokens,
            count(*) filter (where finish_reason = 'length') as truncated,
            count(*) filter (where verdict = 'error') as errors
        from trajectories where {where} group by all
    ), ranked as (
        select *, max(votes) filter (where answer is not null) over (
            partition by task, policy, iteration, step, problem_id
        ) as most from answers
    )
    select task, policy, iteration, step, problem_id, sum(votes)::bigint as samples,
        sum(num_right)::bigint as correct, coalesce(
            avg(num_right / votes) filter (where answer is not null and votes = most), 0
        )::double as majority, sum(num_even)::bigint as correct_even,
        sum(tokens)::bigint as tokens,
        sum(truncated)::bigint as truncated, sum(errors)::bigint as errors
    from ranked group by all order by all
"""


def tally(group: Group) -> Tally:
    """Return the counts of a group's samples."""
    completions = [trajectory.completion for trajectory in group.trajectories]
    verdicts = [trajectory.verdict for trajectory in group.trajectories]
    return Tally(
        samples=len(completions),
        correct=group.num_correct,
        majority=majority_score((verdict.answer, verdict.is_correct) for verdict in verdicts),
        tokens=sum(len(completion.completion_ids) for completion in completions),
        truncated=sum(completion.is_truncated for completion in completions),
        errors=sum(verdict.kind == "error" for verdict in verdicts),
    )


def tally_rows(store: TrajectoryStore, where: str = "phase = 'evaluate'") -> list[dict[str, Any]]:
    """Return a row for each problem of each stored evaluation, from the rows that match `where`.

    Keys are task, policy, iteration, step and problem_id (the sort order), the fields of a `Tally`,
    and `correct_even`, the number correct among the members 0, 2, 4, ...
    """
    rows: list[dict[str, Any]] = store.query(_SQL.format(where=where)).to_pylist()
    return rows


def stored_tallies(store: TrajectoryStore, place: Place) -> dict[str, dict[str, Tally]]:
    """Return the counts of one stored evaluation, by task and problem_id."""
    if not store.count(iteration=place.iteration, phase=place.phase, step=place.step):
        return {}
    policy = place.policy.replace("'", "''")
    rows = tally_rows(
        store,
        f"phase = '{place.phase}' and iteration = {place.iteration} and step = {place.step} "
        f"and policy = '{policy}'",
    )
    found: dict[str, dict[str, Tally]] = {}
    for row in rows:
        task, problem_id = row["task"], row["problem_id"]
        fields = {name: row[name] for name in Tally.__slots__}
        found.setdefault(task, {})[problem_id] = Tally(**fields)
    return found
