"""Recompute the lines of a run's log from the verdicts that a store has now.

What depends on verdicts (rewards, group fractions, avg@n, pass@k and so on, paired differences) is
computed as during the run; everything else (losses, lengths, times) stays. With the run's own
verdicts every line comes out unchanged.
"""

from collections.abc import Iterable, Iterator, Mapping
from math import isclose
from typing import Any

from rloop.errors import StoreError
from rloop.evaluation.phase import task_metrics
from rloop.evaluation.tallies import Counts, stored_tallies
from rloop.recipe.config import EvaluateConfig
from rloop.store.trajectories import TrajectoryStore
from rloop.types import Place

_STEPS = """
    select iteration, step, count(*) as num_groups, sum(num_rows)::bigint as num_rows,
        sum(num_correct)::bigint as num_correct, sum(num_errors)::bigint as num_errors,
        sum(reward_sum) as reward,
        count(*) filter (num_correct = num_rows) as all_correct,
        count(*) filter (num_correct = 0) as all_wrong,
        sum(num_answers)::bigint as num_answers
    from groups where phase = 'explore' group by all
"""

_REWARDS = """
    select iteration, step, r.name, avg(r.value) as value
    from (select iteration, step, unnest(rewards) as r from trajectories where phase = 'explore')
    group by all
"""

Line = dict[str, Any]


def recount(
    lines: Iterable[Line], store: TrajectoryStore, config: EvaluateConfig, *, seed: int
) -> Iterator[Line]:
    """Yield the lines of metrics.jsonl in order, with everything that depends on verdicts
    recomputed."""
    steps = {(r["iteration"], r["step"]): r for r in store.query(_STEPS).to_pylist()}
    for row in store.query(_REWARDS).to_pylist():
        steps[row["iteration"], row["step"]][f"reward_{row['name']}_mean"] = row["value"]
    base: Mapping[str, Counts] = {}
    for line in lines:
        found: Mapping[str, float] = {}
        if line["phase"] == "explore":
            found = _explored(steps.get((line["iteration"], line["step"])))
        elif line["phase"] == "evaluate":
            place = Place(
                run="",
                seed=seed,
                iteration=line["iteration"],
                phase="evaluate",
                step=line["step"],
                policy=line["policy"],
            )
            counts = stored_tallies(store, place)
            if not _is_whole(line, counts):
                yield line
                continue
            found = _evaluated(counts, base, config)
            if line["iteration"] == 0:
                base = counts
        prefix = line["phase"]
        new = {f"{prefix}/{name}": value for name, value in found.items()}
        yield {key: _told_anew(value, new.get(key, value)) for key, value in line.items()}


def _told_anew(old: Any, new: Any) -> Any:  # noqa: ANN401 (JSON)
    """Return the new value, or the old one if they differ only by the order of a sum."""
    are_numbers = isinstance(old, float) and isinstance(new, float)
    return old if are_numbers and isclose(old, new, rel_tol=1e-12, abs_tol=1e-12) else new


def _is_whole(line: Line, counts: Mapping[str, Counts]) -> bool:
    """Whether the store has every problem of an evaluation; StoreError if the base's are missing.

    A part of an evaluation may be in quarantine; its line then stays unchanged.
    """
    is_whole = all(
        line.get(f"evaluate/{task}/problems_count") in (None, len(those))
        for task, those in counts.items()
    )
    if not is_whole and line["iteration"] == 0:
        raise StoreError(
            f"Problems of the evaluation of {line['policy']} are missing, which all others are "
            "compared with. `rloop resume` on the run samples them again."
        )
    return is_whole


def _explored(step: Mapping[str, Any] | None) -> dict[str, float]:
    """Return what `engines.native.step_metrics` says of a step's verdicts and rewards."""
    if step is None:
        return {}
    groups, rows = step["num_groups"], step["num_rows"]
    mixed = groups - step["all_correct"] - step["all_wrong"]
    return {
        **{name: value for name, value in step.items() if name.startswith("reward_")},
        "reward_mean": step["reward"] / rows,
        "correct_frac": step["num_correct"] / rows,
        "groups_all_correct_frac": step["all_correct"] / groups,
        "groups_all_wrong_frac": step["all_wrong"] / groups,
        "groups_mixed_frac": mixed / groups,
        "distinct_answers_mean": step["num_answers"] / groups,
        "verdict_error_frac": step["num_errors"] / rows,
    }


def _evaluated(
    counts: Mapping[str, Counts], base: Mapping[str, Counts], config: EvaluateConfig
) -> dict[str, float]:
    found: dict[str, float] = {}
    for task, those in counts.items():
        stats = task_metrics(those, config, base=base.get(task))
        errors = sum(tally.errors for tally in those.values())
        stats["verdict_error_frac"] = errors / max(1, sum(t.samples for t in those.values()))
        found |= {f"{task}/{name}": value for name, value in stats.items()}
    return found
