"""The expert set of an iteration as files: what was kept, and why a problem is or is not in it.

RUN/expert/iter-001.parquet            one row an example: the trajectory's columns and `weight`
RUN/expert/iter-001-problems.parquet   one row a candidate problem: `outcome`, success rate, counts
"""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow as pa

from rloop.errors import StoreError
from rloop.store.parquet import read_checked, read_groups, read_whole, write_whole
from rloop.store.schema import ENCODING, NEW_COLUMNS, SCHEMA
from rloop.types import Example

VERSION_KEY = b"rloop.expert"
EXPERT_VERSION = 1

EXAMPLE_COLUMNS = tuple(
    name for name in SCHEMA.names if name not in ("schema_version", *NEW_COLUMNS)
)
"""What to take from the pool for `write_expert_set`: all that the store knows of a trajectory but
its graded rewards, by which nothing is selected."""

_NAME = re.compile(r"iter-\d+\.parquet").fullmatch
_METADATA = {VERSION_KEY: str(EXPERT_VERSION)}
EXAMPLES = pa.schema(
    [*(SCHEMA.field(name) for name in EXAMPLE_COLUMNS), pa.field("weight", pa.float64())],
    metadata=_METADATA,
)
PROBLEMS = pa.schema(
    {
        "problem_id": pa.string(),
        "task": pa.string(),
        "outcome": pa.string(),
        "success_rate": pa.float64(),
        "num_trajectories": pa.int32(),
        "num_correct": pa.int32(),
        "num_successes": pa.int32(),
        "num_different": pa.int32(),
        "num_kept": pa.int32(),
    },
    metadata=_METADATA,
)


def write_expert_set(
    run_dir: Path,
    iteration: int,
    *,
    trajectories: pa.Table,
    weights: Sequence[float],
    problems: Sequence[dict[str, object]],
) -> Path:
    """Write both files, the examples last; return the examples' path.

    `trajectories` has `EXAMPLE_COLUMNS`, `weights` one number a row, `problems` a row of `PROBLEMS`
    each.
    """
    path = _path(run_dir, iteration)
    table = trajectories.select(EXAMPLE_COLUMNS).append_column(
        EXAMPLES.field("weight"), pa.array(weights, pa.float64())
    )
    write_whole(
        path.with_name(f"{path.stem}-problems.parquet"),
        pa.Table.from_pylist(list(problems), PROBLEMS),
        run_dir,
    )
    write_whole(path, table.cast(EXAMPLES), run_dir, **ENCODING)
    return path


def read_examples(run_dir: Path, iteration: int) -> list[Example]:
    """Return the expert set as token ids to imitate, in the order selected."""
    table = _read(_path(run_dir, iteration), EXAMPLES)
    columns = [
        table["problem_id"].to_pylist(),
        _tuples(table["prompt_ids"]),
        _tuples(table["completion_ids"]),
        table["weight"].to_pylist(),
    ]
    return [
        Example(problem_id=problem_id, prompt_ids=prompt, completion_ids=completion, weight=weight)
        for problem_id, prompt, completion, weight in zip(*columns, strict=True)
    ]


def stream_examples(run_dir: Path, iteration: int | None = None) -> Iterator[pa.Table]:
    """Yield the expert sets, or an iteration's, as tables of `EXAMPLES`, a part at a time."""
    found = sorted(path for path in (run_dir / "expert").glob("*.parquet") if _NAME(path.name))
    for path in found if iteration is None else [_path(run_dir, iteration)]:
        _check(path, EXAMPLES)
        yield from read_groups(path, EXAMPLES)


def read_problems(run_dir: Path, iteration: int) -> pa.Table:
    """Return the report of every candidate problem, a table of `PROBLEMS`."""
    path = _path(run_dir, iteration)
    return _read(path.with_name(f"{path.stem}-problems.parquet"), PROBLEMS)


def _path(run_dir: Path, iteration: int) -> Path:
    return run_dir / "expert" / f"iter-{iteration:03d}.parquet"


def _read(path: Path, schema: pa.Schema) -> pa.Table:
    _check(path, schema)
    return read_whole(path)


def _check(path: Path, schema: pa.Schema) -> None:
    if not path.exists():
        raise StoreError(
            f"There is no expert set at {path}; this iteration has not run selection yet."
        )
    read_checked(path, schema, VERSION_KEY)


def _tuples(lists: pa.ChunkedArray) -> list[tuple[int, ...]]:
    """Return the rows of a list column as tuples."""
    column = lists.combine_chunks()
    values, ends = column.flatten().to_numpy().tolist(), column.value_lengths().to_numpy().cumsum()
    starts = [0, *ends.tolist()]
    return [tuple(values[a:b]) for a, b in zip(starts, ends.tolist(), strict=False)]
