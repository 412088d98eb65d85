"""Looking at trajectories in a terminal: step, problem, completion, filtered by verdict."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from rloop.store.trajectories import open_store
from rloop.text import visible

PLACE = ("iteration", "phase", "step")
ORDER = (*PLACE, "policy", "problem_id", "member")
COLUMNS = (
    *ORDER,
    *("verdict", "reason", "answer", "reference", "reward", "finish_reason"),
    *("completion_tokens", "prompt_text", "completion_text", "rewards"),
)


def find_trajectories(
    run_dir: Path, filters: Mapping[str, Any], limit: int
) -> list[dict[str, Any]]:
    """Return at most `limit` trajectories whose columns equal the filters; None filters nothing.

    Texts are read of those only.
    """
    place = {name: filters.get(name) for name in PLACE}
    wanted = {name: value for name, value in filters.items() if value is not None}
    pool = open_store(run_dir).light(tuple({*ORDER, *wanted}), **place)
    table = pool.columns.append_column("row", pa.array(np.arange(pool.columns.num_rows)))
    for name, value in wanted.items():
        table = table.filter(pc.equal(table[name], value))
    rows = pc.select_k_unstable(table, limit, [(name, "ascending") for name in ORDER])
    found = pool.take(table["row"].take(rows).to_numpy(), COLUMNS)
    return list(found.to_pylist())


def _rewards(entries: Sequence[Mapping[str, Any]]) -> str:
    """Return ` = accuracy 1, judge error (...)`, in brackets; nothing without named rewards."""
    parts = [
        f"{entry['name']} {'error' if entry['value'] is None else format(entry['value'], 'g')}"
        + (f" [{entry['reason']}]" if entry["reason"] else "")
        for entry in entries
    ]
    return f" ({', '.join(parts)})" if parts else ""


def lines_of(row: Mapping[str, Any]) -> Iterator[str]:
    """Yield a trajectory as lines to read: where it is, what was asked, what was written.

    What a model wrote cannot move the cursor: its control characters are shown.
    """
    row = {name: visible(v) if isinstance(v, str) else v for name, v in row.items()}
    yield "{iteration}/{phase} step {step}, {policy}, {problem_id} #{member}".format_map(row)
    row["reward"] = round(row["reward"], 4)
    verdict = "{verdict}: answer {answer}, reference {reference}, reward {reward}".format_map(row)
    verdict += visible(_rewards(row["rewards"] or ()))
    end = "{completion_tokens} tokens, {finish_reason}".format_map(row)
    yield f"{verdict} ({row['reason']}), {end}" if row["reason"] else f"{verdict}, {end}"
    for name in ("prompt", "completion"):
        for number, line in enumerate(row[f"{name}_text"].split("\n") or [""]):
            yield f"  {name + ':' if number == 0 else '':<12}{line}"
    yield ""
