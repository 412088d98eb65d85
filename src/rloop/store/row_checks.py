"""Whether the rows of a step say the truth about themselves: columns that follow from others.

Each check gives a truth value a row, True where the row is wrong. Knows nothing of files.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import isclose, nan
from typing import Any, get_args

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from rloop.store.schema import NEW_COLUMNS, SCHEMA, SCHEMA_VERSION, text_hashes
from rloop.types import FinishReason, PhaseName, Place, VerdictKind

Wrong = npt.NDArray[np.bool_]
_MAY_BE_NULL = {"answer", *NEW_COLUMNS}
_SUM_TOLERANCE = 1e-5
"""Relative: log-probabilities are stored in float32, their sum in float64."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StepPlace:
    """Where rows must say that they are.

    Example: StepPlace(iteration=1, phase="explore", step=12, seed=0)
    """

    iteration: int
    phase: PhaseName
    step: int
    seed: int | None
    """The run's; None where its recipe is out of reach."""
    weights: Mapping[str, float] = field(default_factory=dict)
    """Of the recipe's rewards, by name."""


def check_rows(rows: pa.Table, place: StepPlace) -> Iterator[tuple[str, Wrong]]:
    """Yield what is to be true of rows of `SCHEMA`, and of which rows it is not."""
    for name in SCHEMA.names:
        if name not in _MAY_BE_NULL and rows[name].null_count:
            yield f"{name} has a value", rows[name].is_null().to_numpy()
            return
    yield "place is the file's", _is_elsewhere(rows, place)
    tokens = rows["completion_tokens"].to_numpy()
    for name in ("completion_ids", "behavior_logprobs"):
        yield f"completion_tokens is the length of {name}", _lengths(rows, name) != tokens
    yield "behavior_logprob_sum is the sum", _is_sum_wrong(rows)
    yield "completion_hash is that of completion_text", _is_hash_wrong(rows)
    yield from _judgement(rows, place.weights)
    finish = pa.array(get_args(FinishReason))
    yield "finish_reason is one of ours", _not(pc.is_in(rows["finish_reason"], finish))
    if place.seed is not None:
        yield "seed is that of the place, problem and member", _is_seed_wrong(rows, place)


def _is_elsewhere(rows: pa.Table, place: StepPlace) -> Wrong:
    wanted: dict[str, Any] = {
        "iteration": place.iteration,
        "phase": place.phase,
        "step": place.step,
    }
    versions = pa.array(range(1, SCHEMA_VERSION + 1), pa.int32())
    wrong = _not(pc.is_in(rows["schema_version"], versions))
    for name, value in wanted.items():
        wrong |= pc.not_equal(rows[name], value).to_numpy()
    prefix = f"{place.iteration}/{place.phase}/{place.step}/"
    group_id = pc.binary_join_element_wise(prefix, rows["problem_id"], "")
    wrong |= pc.not_equal(rows["group_id"], group_id).to_numpy()
    return wrong


def _judgement(rows: pa.Table, weights: Mapping[str, float]) -> Iterator[tuple[str, Wrong]]:
    verdict, correct = rows["verdict"], rows["correct"].to_numpy()
    kinds = pa.array(get_args(VerdictKind))
    yield "verdict is correct, wrong or error", _not(pc.is_in(verdict, kinds))
    yield "correct follows from verdict", pc.equal(verdict, "correct").to_numpy() != correct
    yield "a score is in [0, 1]", ~_between(rows["score"], 0.0, 1.0)
    own = pc.if_else(pc.equal(verdict, "error"), 0.0, rows["score"])
    own = pc.coalesce(own, rows["correct"].cast(pa.float64()))
    is_own = rows["rewards"].is_null()
    is_other = pc.and_(is_own, pc.not_equal(rows["reward"], own)).to_numpy()
    yield "reward is the score, else 1 for a correct verdict and 0 for others", is_other
    yield "reward is the weighted sum of rewards", _is_weighted_wrong(rows, weights)
    is_silent = pc.and_(pc.equal(verdict, "error"), pc.equal(rows["reason"], ""))
    yield "an error has a reason", is_silent.to_numpy()


def _between(values: pa.ChunkedArray, low: float, high: float) -> Wrong:
    """Return which values are in a range, or null; NaN is not."""
    inside = pc.and_(pc.greater_equal(values, low), pc.less_equal(values, high))
    found: Wrong = pc.fill_null(inside, fill_value=True).to_numpy()
    return found


def _is_weighted_wrong(rows: pa.Table, weights: Mapping[str, float]) -> Wrong:
    pairs = zip(rows["reward"].to_pylist(), rows["rewards"].to_pylist(), strict=True)
    return np.array([named is not None and not _adds_up(r, named, weights) for r, named in pairs])


def _adds_up(
    reward: float, named: Sequence[Mapping[str, Any]], weights: Mapping[str, float]
) -> bool:
    """Whether the reward is the weighted sum of named ones; an error, null, adds nothing."""
    total = sum(weights.get(entry["name"], nan) * (entry["value"] or 0.0) for entry in named)
    return isclose(reward, total, rel_tol=1e-9, abs_tol=1e-9)


def _lengths(rows: pa.Table, name: str) -> npt.NDArray[np.int32]:
    found: npt.NDArray[np.int32] = pc.list_value_length(rows[name]).to_numpy()
    return found


def _is_sum_wrong(rows: pa.Table) -> Wrong:
    values = rows["behavior_logprobs"].combine_chunks().flatten().to_numpy().astype(np.float64)
    ends = np.cumsum(_lengths(rows, "behavior_logprobs"))
    sums = np.diff(np.concatenate([[0.0], np.cumsum(values)])[np.concatenate([[0], ends])])
    stored = rows["behavior_logprob_sum"].to_numpy()
    allowed = _SUM_TOLERANCE * (1 + np.abs(stored))
    wrong: Wrong = ~(np.abs(sums - stored) <= allowed)
    return wrong


def _is_hash_wrong(rows: pa.Table) -> Wrong:
    found = text_hashes(rows["completion_text"].to_pylist())
    wrong: Wrong = found != rows["completion_hash"].to_numpy()
    return wrong


def _is_seed_wrong(rows: pa.Table, place: StepPlace) -> Wrong:
    assert place.seed is not None, "seeds are checked where the run's is known"
    here = Place(
        run="", seed=place.seed, iteration=place.iteration, phase=place.phase, step=place.step
    )
    names = (rows["problem_id"].to_pylist(), rows["member"].to_pylist())
    found = list(here.stream_seeds(zip(*names, strict=True)))
    wrong: Wrong = np.array(found, np.uint64) != rows["seed"].to_numpy()
    return wrong


def _not(mask: pa.ChunkedArray) -> Wrong:
    found: Wrong = ~mask.to_numpy()
    return found
