"""The trajectories that someone wants out of a run, as a stream of tables.

Knows nothing of the form in which they leave.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pyarrow as pa
import pyarrow.compute as pc

from rloop.errors import StoreError
from rloop.store.expert import EXAMPLES, stream_examples
from rloop.store.schema import SCHEMA
from rloop.store.trajectories import TrajectoryStore, open_store
from rloop.types import PhaseName

Select = Literal["all", "correct", "expert"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Selected:
    """Which trajectories: all, the successes (correct and stopped), or the expert sets.

    Example: Selected(run_dir=Path("runs/demo"), select="expert", iteration=2)
    """

    run_dir: Path
    select: Select = "all"
    iteration: int | None = None
    """All iterations when None."""

    @property
    def store(self) -> TrajectoryStore:
        """The run's store; StoreError when it is no run directory."""
        return open_store(self.run_dir)

    @property
    def schema(self) -> pa.Schema:
        """The columns of `tables`; expert sets have `weight` and no `schema_version`."""
        return EXAMPLES if self.select == "expert" else SCHEMA

    def verifiers(self) -> dict[str, str]:
        """Return name and version of what judged each task's trajectories."""
        found = self.store.query(
            "select task, string_agg(distinct verifier_version, ', ' order by verifier_version) "
            "as verifier from trajectories group by task order by task"
        )
        return {row["task"]: row["verifier"] for row in found.to_pylist()}

    def tables(self, phase: PhaseName | None = None) -> Iterator[pa.Table]:
        """Yield them in the order written, a part at a time; of one phase or of all."""
        if self.select == "expert":
            if phase in (None, "explore"):
                yield from stream_examples(self.run_dir, self.iteration)
            return
        for part in self.store.stream(iteration=self.iteration, phase=phase):
            yield part.filter(_is_success(part)) if self.select == "correct" else part

    def nothing(self, phase: PhaseName | None = None) -> StoreError:
        """Return the error for a selection without a single trajectory, of a phase or of all."""
        if self.select == "expert":
            return StoreError(
                f"{self.run_dir} has no expert set: nothing was selected yet, or its recipe "
                "selects nothing. Use --select correct."
            )
        where = "" if self.iteration is None else f" of iteration {self.iteration}"
        what = "correct trajectory" if self.select == "correct" else "trajectory"
        of = "" if phase is None else f" of phase {phase}"
        return StoreError(f"{self.run_dir} has no {what}{of}{where} to export.")


def _is_success(table: pa.Table) -> pa.ChunkedArray:
    """Return for each row whether it is correct and stopped by itself, as selection means it."""
    return pc.and_(table["correct"], pc.equal(table["finish_reason"], "stop"))
