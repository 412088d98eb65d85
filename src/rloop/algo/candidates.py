"""The candidates of selection: everything that exploration sampled, as columns without tokens and
text."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidates:
    """All trajectories of the window; each column has one entry per trajectory.

    Example: two trajectories of one problem, the second cut at the length limit:
    Candidates(problem_ids=("t/0",), tasks=("t",), problem_index=[0, 0], correct=[True, False],
    judged=[True, True], stopped=[True, False], truncated=[False, True], iteration=[1, 1],
    step=[1, 1], member=[0, 1], text_hash=[77, 5], num_tokens=[12, 64],
    behavior_logprob_sum=[-3.5, -20.0], completion_ids=read)
    """

    problem_ids: Sequence[str]
    """[P] distinct."""
    tasks: Sequence[str]
    """[P] the task of each problem."""
    problem_index: IntArray
    """[N] index into `problem_ids`."""
    correct: BoolArray
    """[N] judged correct."""
    judged: BoolArray
    """[N] the verdict is not an error; a failed verifier says nothing about the problem."""
    stopped: BoolArray
    """[N] finish_reason is "stop"."""
    truncated: BoolArray
    """[N] finish_reason is "length"."""
    iteration: IntArray
    """[N]"""
    step: IntArray
    """[N]"""
    member: IntArray
    """[N] index in the group."""
    text_hash: npt.NDArray[np.uint64]
    """[N] equal for equal completion texts."""
    num_tokens: IntArray
    """[N] tokens of the completion."""
    behavior_logprob_sum: FloatArray
    """[N] log-probability of the whole completion when it was sampled (nats)."""
    completion_ids: Callable[[IntArray], Sequence[npt.ArrayLike]]
    """Reads the token ids of some rows; called only for those that `prefer: diverse` compares."""

    @classmethod
    def from_table(
        cls, table: pa.Table, completion_ids: Callable[[IntArray], Sequence[npt.ArrayLike]]
    ) -> "Candidates":
        """Return candidates from a table with the columns of the trajectory store."""
        encoded = table["problem_id"].combine_chunks().dictionary_encode()
        problem_index = encoded.indices.to_numpy().astype(np.int64)
        _, first_rows = np.unique(problem_index, return_index=True)
        integers = {
            name: table[name].to_numpy().astype(np.int64)
            for name in ("iteration", "step", "member")
        }
        return cls(
            problem_ids=encoded.dictionary.to_pylist(),
            tasks=table["task"].take(first_rows).to_pylist(),
            problem_index=problem_index,
            correct=table["correct"].to_numpy(),
            judged=pc.not_equal(table["verdict"], "error").to_numpy(),
            stopped=pc.equal(table["finish_reason"], "stop").to_numpy(),
            truncated=pc.equal(table["finish_reason"], "length").to_numpy(),
            text_hash=table["completion_hash"].to_numpy(),
            num_tokens=table["completion_tokens"].to_numpy().astype(np.int64),
            behavior_logprob_sum=table["behavior_logprob_sum"].to_numpy(),
            completion_ids=completion_ids,
            **integers,
        )
