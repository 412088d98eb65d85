"""What a trajectory file holds: one row a trajectory, columns built from flat buffers.

Besides the record's own fields a row has three that follow from them, so that counting, selecting
and comparing need not read tokens or text: `completion_tokens`, `behavior_logprob_sum` and
`completion_hash`. Knows nothing of files.
"""

import hashlib
from collections.abc import Sequence
from itertools import chain, repeat
from typing import Any

import numpy as np
import pyarrow as pa

from rloop.types import Group, Place, Trajectory

SCHEMA_VERSION = 1
VERSION_KEY = b"rloop.trajectories"
"""Key of a parquet file's metadata under which the schema version stands."""

_IDS = pa.list_(pa.field("element", pa.int32()))
_LOGPROBS = pa.list_(pa.field("element", pa.float32()))

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
        "prompt_text": pa.string(),
        "completion_text": pa.string(),
        "finish_reason": pa.string(),
        "answer": pa.string(),
        "reference": pa.string(),
        "correct": pa.bool_(),
        "verdict": pa.string(),
        "reason": pa.string(),
        "reward": pa.float64(),
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
"""`reference` is the problem's answer, `answer` the one extracted from the completion; `seed` is
that of the trajectory's own random stream; `completion_hash` is blake2b of the text."""


def trajectory_table(place: Place, groups: Sequence[Group]) -> pa.Table:
    """Return the rows of the groups, in group and member order, as a table of `SCHEMA`."""
    rows = [trajectory for group in groups for trajectory in group.trajectories]
    strays = [row.place for row in rows if row.place != place]
    assert not strays, f"{len(strays)} of {len(rows)} trajectories are of {strays[0]}, not {place}"
    columns = _provenance(place, rows) | _content(rows) | _judgement(rows)
    return pa.table(columns, schema=SCHEMA)


def _provenance(place: Place, rows: Sequence[Trajectory]) -> dict[str, Any]:
    constants = {
        "run": place.run,
        "iteration": place.iteration,
        "phase": place.phase,
        "step": place.step,
        "policy": place.policy,
        "schema_version": SCHEMA_VERSION,
    }
    return {
        **{name: list(repeat(value, len(rows))) for name, value in constants.items()},
        "policy_version": [row.policy_version for row in rows],
        "task": [row.problem.task for row in rows],
        "problem_id": [row.problem.problem_id for row in rows],
        "group_id": [row.group_id for row in rows],
        "member": [row.member for row in rows],
        "temperature": [row.temperature for row in rows],
        "top_p": [row.top_p for row in rows],
        "top_k": [row.top_k for row in rows],
        "seed": [place.stream_seed(row.problem.problem_id, row.member) for row in rows],
        "template_version": [row.template_version for row in rows],
    }


def _content(rows: Sequence[Trajectory]) -> dict[str, Any]:
    completions = [row.completion for row in rows]
    logprobs = [completion.behavior_logprobs for completion in completions]
    texts = [completion.completion_text for completion in completions]
    return {
        "prompt_ids": _lists([c.prompt_ids for c in completions], _IDS),
        "completion_ids": _lists([c.completion_ids for c in completions], _IDS),
        "behavior_logprobs": _lists(logprobs, _LOGPROBS),
        "prompt_text": [c.prompt_text for c in completions],
        "completion_text": texts,
        "finish_reason": [c.finish_reason for c in completions],
        "completion_tokens": [len(c.completion_ids) for c in completions],
        "behavior_logprob_sum": [sum(values) for values in logprobs],
        "completion_hash": [text_hash(text) for text in texts],
    }


def _judgement(rows: Sequence[Trajectory]) -> dict[str, Any]:
    verdicts = [row.verdict for row in rows]
    return {
        "answer": [verdict.answer for verdict in verdicts],
        "reference": [row.problem.answer for row in rows],
        "correct": [verdict.is_correct for verdict in verdicts],
        "verdict": [verdict.kind for verdict in verdicts],
        "reason": [verdict.reason for verdict in verdicts],
        "verifier_version": [verdict.verifier_version for verdict in verdicts],
        "reward": [row.reward for row in rows],
    }


def _lists(rows: Sequence[Sequence[float]], of_type: pa.ListType) -> pa.ListArray:
    """Return a list column from ragged rows through one flat buffer, not a list of lists."""
    offsets = np.zeros(len(rows) + 1, np.int32)
    np.cumsum([len(row) for row in rows], out=offsets[1:])
    dtype = of_type.value_type.to_pandas_dtype()
    values = np.fromiter(chain.from_iterable(rows), dtype, int(offsets[-1]))
    return pa.ListArray.from_arrays(offsets, values, type=of_type)


def text_hash(text: str) -> int:
    """Return a completion's hash as the store has it: 64 bits of blake2b."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")
