"""What a trajectory file holds: one row a trajectory, columns built from flat buffers.

Besides the record's own fields a row has three that follow from them, so that counting, selecting
and comparing need not read tokens or text: `completion_tokens`, `behavior_logprob_sum` and
`completion_hash`. Knows nothing of files.
"""

import struct
from collections.abc import Iterable, Mapping, Sequence
from hashlib import blake2b
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from rloop.types import Group, Place, Trajectory, Verdict

SCHEMA_VERSION = 3
VERSION_KEY = b"rloop.trajectories"
"""Key of a parquet file's metadata under which the schema version stands."""

_IDS = pa.list_(pa.field("element", pa.int32()))
_LOGPROBS = pa.list_(pa.field("element", pa.float32()))
_DOUBLES = pa.list_(pa.field("element", pa.float64()))
_REWARD = pa.struct({"name": pa.string(), "value": pa.float64(), "reason": pa.string()})
_REWARDS = pa.list_(pa.field("element", _REWARD))

SCHEMA = pa.schema(
    {
        "run": pa.string(),
        "iteration": pa.int32(),
        "phase": pa.string(),
        "step": pa.int32(),
        "policy": pa.string(),
        "policy_version": pa.int32(),
        "task": pa.string(),
        "problem_id": pa.string(),
        "group_id": pa.string(),
        "member": pa.int32(),
        "prompt_ids": _IDS,
        "completion_ids": _IDS,
        "behavior_logprobs": _LOGPROBS,
        "question": pa.string(),
        "prompt_text": pa.string(),
        "completion_text": pa.string(),
        "finish_reason": pa.string(),
        "answer": pa.string(),
        "reference": pa.string(),
        "correct": pa.bool_(),
        "verdict": pa.string(),
        "reason": pa.string(),
        "reward": pa.float64(),
        "score": pa.float64(),
        "rewards": _REWARDS,
        "temperature": pa.float64(),
        "top_p": pa.float64(),
        "top_k": pa.int32(),
        "seed": pa.uint64(),
        "verifier_version": pa.string(),
        "template_version": pa.string(),
        "completion_tokens": pa.int32(),
        "behavior_logprob_sum": pa.float64(),
        "completion_hash": pa.uint64(),
        "schema_version": pa.int32(),
    },
    metadata={VERSION_KEY: str(SCHEMA_VERSION)},
)
"""`question` is the problem's own text, without the prompt around it. `score` is the verdict's,
null where it only says right or wrong. `rewards` are the recipe's by name, null without: each has
the value that counts in `reward`, null for an error, and a reason. `reference` is the problem's
answer, `answer` the one extracted from the completion; `seed` is that of the trajectory's own
random stream; `completion_hash` is blake2b of the text."""
NEW_COLUMNS = {"question": 3, "score": 2, "rewards": 2}
"""The version that brought a column; read as null from files of earlier ones."""
OLDER = tuple(
    pa.schema(
        [field for field in SCHEMA if NEW_COLUMNS.get(field.name, 1) <= version],
        metadata={VERSION_KEY: str(version)},
    )
    for version in range(1, SCHEMA_VERSION)
)
"""Schemas of files that earlier versions of rloop wrote."""


_DISTINCT = {
    *("prompt_ids", "completion_ids", "behavior_logprobs"),
    *("completion_text", "seed", "completion_hash", "rewards"),
}
"""Columns whose values seldom repeat, or repeat in sequence: not worth a dictionary."""
ENCODING = {
    "use_dictionary": [name for name in SCHEMA.names if name not in _DISTINCT],
    # Least and greatest of these would help no query; conditions on the others skip files.
    "write_statistics": [name for name in SCHEMA.names if name not in _DISTINCT],
    # Numbers with alike high bytes: by themselves these are compressed faster and smaller.
    "column_encoding": dict.fromkeys(
        ("completion_ids.list.element", "behavior_logprobs.list.element"), "BYTE_STREAM_SPLIT"
    ),
    "compression": dict.fromkeys(
        (
            *("prompt_ids.list.element", "completion_ids.list.element"),
            *("behavior_logprobs.list.element", "question", "prompt_text", "completion_text"),
        ),
        "zstd",
    ),
}
"""How pyarrow writes the columns; of those not compressed a dictionary leaves next to nothing."""


def part_of_schema(columns: Sequence[str]) -> pa.Schema:
    """Return the schema of some columns."""
    return pa.schema([SCHEMA.field(name) for name in columns], metadata=SCHEMA.metadata)


def trajectory_table(place: Place, groups: Sequence[Group]) -> pa.Table:
    """Return the rows of the groups, in group and member order, as a table of `SCHEMA`."""
    rows = [trajectory for group in groups for trajectory in group.trajectories]
    strays = [row.place for row in rows if row.place is not place and row.place != place]
    assert not strays, f"{len(strays)} of {len(rows)} trajectories are of {strays[0]}, not {place}"
    columns = _provenance(place, rows) | _content(rows) | _judgement(rows)
    return pa.table(columns, schema=SCHEMA)


def _provenance(place: Place, rows: Sequence[Trajectory]) -> dict[str, Any]:
    constants: dict[str, str | int] = {
        "run": place.run,
        "iteration": place.iteration,
        "phase": place.phase,
        "step": place.step,
        "policy": place.policy,
        "schema_version": SCHEMA_VERSION,
    }
    problems = [row.problem for row in rows]
    ids, members = [problem.problem_id for problem in problems], [row.member for row in rows]
    return {
        **{name: _repeated(name, value, len(rows)) for name, value in constants.items()},
        "policy_version": [row.policy_version for row in rows],
        "task": [problem.task for problem in problems],
        "problem_id": ids,
        "question": [problem.question for problem in problems],
        "group_id": [row.group_id for row in rows],
        "member": members,
        "reference": [problem.answer for problem in problems],
        "temperature": [row.temperature for row in rows],
        "top_p": [row.top_p for row in rows],
        "top_k": [row.top_k for row in rows],
        "seed": list(place.stream_seeds(zip(ids, members, strict=True))),
        "template_version": [row.template_version for row in rows],
    }


def _content(rows: Sequence[Trajectory]) -> dict[str, Any]:
    completions = [row.completion for row in rows]
    ids = [completion.completion_ids for completion in completions]
    texts = [completion.completion_text for completion in completions]
    logprobs = _lists([c.behavior_logprobs for c in completions], _DOUBLES)
    return {
        "prompt_ids": _shared_lists([c.prompt_ids for c in completions], _IDS),
        "completion_ids": _lists(ids, _IDS),
        "behavior_logprobs": logprobs.cast(_LOGPROBS),
        "prompt_text": [c.prompt_text for c in completions],
        "completion_text": texts,
        "finish_reason": [c.finish_reason for c in completions],
        "completion_tokens": list(map(len, ids)),
        "behavior_logprob_sum": _sums(logprobs),
        "completion_hash": text_hashes(texts),
    }


def _judgement(rows: Sequence[Trajectory]) -> dict[str, Any]:
    verdicts = [row.verdict for row in rows]
    kinds = [verdict.kind for verdict in verdicts]
    return {
        "answer": [verdict.answer for verdict in verdicts],
        "correct": [verdict.is_correct for verdict in verdicts],
        "verdict": kinds,
        "reason": [verdict.reason for verdict in verdicts],
        "verifier_version": [verdict.verifier_version for verdict in verdicts],
        "reward": [row.reward for row in rows],
        "score": [verdict.score for verdict in verdicts],
        "rewards": [_named(row.rewards) if row.rewards else None for row in rows],
    }


def _named(rewards: Mapping[str, Verdict]) -> list[dict[str, Any]]:
    return [
        {
            "name": name,
            "value": None if verdict.kind == "error" else verdict.reward,
            "reason": verdict.reason,
        }
        for name, verdict in rewards.items()
    ]


def _repeated(name: str, value: str | int, count: int) -> pa.Array:
    return pa.repeat(pa.scalar(value, SCHEMA.field(name).type), count)


def _shared_lists(rows: Sequence[Sequence[int]], of_type: pa.ListType) -> pa.ListArray:
    """Return a list column in which neighbours are often one object; that is read once."""
    distinct = {id(row): row for row in rows}
    numbers = {key: number for number, key in enumerate(distinct)}
    places = np.array([numbers[id(row)] for row in rows], np.int32)
    return _lists(list(distinct.values()), of_type).take(places)


def _lists(rows: Sequence[Sequence[float]], of_type: pa.ListType) -> pa.ListArray:
    """Return a list column from ragged rows.

    `struct` reads tuples faster than numpy does, and twice as fast where a format is at hand: then
    no tuple is made anew.
    """
    lengths = list(map(len, rows))
    offsets = np.zeros(len(rows) + 1, np.int32)
    np.cumsum(lengths, out=offsets[1:])
    dtype = np.dtype(of_type.value_type.to_pandas_dtype())
    pack = {length: struct.Struct(f"={length}{dtype.char}").pack for length in set(lengths)}
    packed = [pack[length](*row) for length, row in zip(lengths, rows, strict=True)]
    values = np.frombuffer(b"".join(packed), dtype)
    return pa.ListArray.from_arrays(offsets, values, type=of_type)


def _sums(lists: pa.ListArray) -> npt.NDArray[np.float64]:
    """Return the sum of each row of a list column of doubles, 0 for an empty one."""
    lengths = lists.value_lengths().to_numpy()
    is_there = lengths > 0
    sums = np.zeros(len(lists))
    if is_there.any():
        starts = lists.offsets.to_numpy()[:-1][is_there]
        sums[is_there] = np.add.reduceat(lists.values.to_numpy(), starts)
    return sums


def text_hashes(texts: Iterable[str]) -> npt.NDArray[np.uint64]:
    """Return the texts' hashes as the store has them: 64 bits of blake2b."""
    digests = [blake2b(text.encode(), digest_size=8).digest() for text in texts]
    return np.frombuffer(b"".join(digests), "<u8").astype(np.uint64)
