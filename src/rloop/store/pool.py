"""Some columns of many trajectories, and all the others of the few rows that are wanted.

Knows nothing of which rows those are.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from rloop.store.parquet import IntArray, read_rows, read_whole
from rloop.store.schema import part_of_schema

LIGHT = (
    "problem_id",
    "task",
    "correct",
    "verdict",
    "finish_reason",
    "iteration",
    "step",
    "member",
    "completion_hash",
    "completion_tokens",
    "behavior_logprob_sum",
)
"""What selection needs: no tokens and no text."""
MAX_THREADS = 4
"""Files read at a time: each holds a row group in memory."""


class Pool:
    """The trajectories of some files; a row's index is its place in `columns`."""

    def __init__(self, files: Sequence[Path], columns: Sequence[str] = LIGHT) -> None:
        """Read the columns."""
        self._files = tuple(files)
        wanted = part_of_schema(columns)
        with _threads() as threads:
            parts = list(threads.map(lambda path: read_whole(path, wanted), files))
        self.columns: pa.Table = pa.concat_tables([wanted.empty_table(), *parts])
        self._starts = np.cumsum([0, *(part.num_rows for part in parts)])

    def completion_ids(self, rows: IntArray) -> list[npt.NDArray[np.int32]]:
        """Return the token ids of the rows' completions, as views of one buffer."""
        lists = self.take(rows, ["completion_ids"])["completion_ids"].combine_chunks()
        ends = np.cumsum(lists.value_lengths().to_numpy())
        return np.split(lists.flatten().to_numpy(), ends[:-1]) if len(rows) else []

    def take(self, rows: IntArray, names: Sequence[str]) -> pa.Table:
        """Return any columns of the rows, in the order in which the rows are given.

        Only those that are not in `columns` are read.
        """
        held = self.columns.take(rows)
        missing = [name for name in names if name not in held.column_names]
        read = self._read(rows, missing) if missing else held
        return pa.table({name: (read if name in missing else held)[name] for name in names})

    def _read(self, rows: IntArray, names: Sequence[str]) -> pa.Table:
        order = np.argsort(rows, kind="stable")
        wanted = rows[order]
        cuts = np.searchsorted(wanted, self._starts)
        back = np.empty_like(order)
        back[order] = np.arange(len(order))
        columns = part_of_schema(names)

        def read(number: int) -> pa.Table:
            local = wanted[cuts[number] : cuts[number + 1]] - self._starts[number]
            return read_rows(self._files[number], local, columns)

        # Whole row groups are decoded for a few rows of each.
        with _threads() as threads:
            tables = list(threads.map(read, np.flatnonzero(np.diff(cuts)).tolist()))
        return pa.concat_tables([columns.empty_table(), *tables]).combine_chunks().take(back)


def _threads() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(min(MAX_THREADS, pa.cpu_count()))
