"""Looking at trajectories in a terminal: step, problem, completion, filtered by verdict."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from rloop.store.trajectories import open_store

COLUMNS = (
    "iteration, phase, step, policy, problem_id, member, verdict, reason, answer, reference, "
    "reward, finish_reason, completion_tokens, prompt_text, completion_text"
)


def find_trajectories(
    run_dir: Path, filters: Mapping[str, int | str | None], limit: int
) -> list[dict[str, Any]]:
    """Return at most `limit` trajectories whose columns equal the filters; None filters nothing."""
    wanted = [f"{name} = {_literal(value)}" for name, value in filters.items() if value is not None]
    where = f" where {' and '.join(wanted)}" if wanted else ""
    query = (
        f"select {COLUMNS} from trajectories{where} "
        f"order by iteration, phase, step, problem_id, member limit {limit}"
    )
    rows: list[dict[str, Any]] = open_store(run_dir).query(query).to_pylist()
    return rows


def _literal(value: int | str) -> str:
    return str(value) if isinstance(value, int) else "'" + value.replace("'", "''") + "'"


def lines_of(row: Mapping[str, Any]) -> Iterator[str]:
    """Yield a trajectory as lines to read: where it is, what was asked, what was written."""
    yield "{iteration}/{phase} step {step}, {policy}, {problem_id} #{member}".format_map(row)
    verdict = "{verdict}: answer {answer}, reference {reference}, reward {reward}".format_map(row)
    end = "{completion_tokens} tokens, {finish_reason}".format_map(row)
    yield f"{verdict} ({row['reason']}), {end}" if row["reason"] else f"{verdict}, {end}"
    for name in ("prompt", "completion"):
        for number, line in enumerate(row[f"{name}_text"].splitlines() or [""]):
            yield f"  {name + ':' if number == 0 else '':<12}{line}"
    yield ""
