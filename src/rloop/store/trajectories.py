"""The trajectory store: one parquet file a step, written whole or not at all, read with SQL.

    RUN/trajectories/iteration-1/phase-explore/step-000012.parquet
    RUN/trajectories/iteration-1/phase-evaluate/step-000000-base-gsm8k.parquet   (with a part)

Rows are self-describing (iteration and phase are columns), so any tool reads the files: pandas by
`read_parquet("RUN/trajectories")`, DuckDB and polars by `**/*.parquet`. Files set aside by
`drop_after` end in a number and match neither. Runs of rloop 0.1 have folders `iteration=1` and
`phase=explore`, which pandas takes for more columns; a run that goes on keeps those it has.
"""

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from urllib.parse import quote

import duckdb
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.fs

from rloop.errors import StoreError
from rloop.store.index import StepFile, list_step_files
from rloop.store.parquet import read_checked, read_groups, read_whole, write_whole
from rloop.store.pool import Pool
from rloop.store.schema import (
    ENCODING,
    OLDER,
    SCHEMA,
    VERSION_KEY,
    part_of_schema,
    trajectory_table,
)
from rloop.types import Group, PhaseName, Place, stable_hash

SUPERSEDED = ".superseded"
PART_BYTES = 150
"""Of a part in a file's name: file systems take 255 for all of it."""
_CHECKED = ds.ParquetFileFormat(
    default_fragment_scan_options=ds.ParquetFragmentScanOptions(page_checksum_verification=True)
)
GROUPS = """
    create temp view groups as
    select iteration, phase, step, policy, task, problem_id,
        count(*) as num_rows,
        count(*) filter (where correct) as num_correct,
        count(*) filter (where verdict = 'error') as num_errors,
        count(*) filter (where finish_reason = 'length') as num_truncated,
        count(distinct answer) as num_answers,
        sum(completion_tokens)::bigint as num_tokens,
        sum(reward) as reward_sum
    from trajectories group by all
"""
"""A row for each problem that a policy was given in a step; an aggregate costs only where asked."""
_ASKED_WRONG = (
    duckdb.BinderException,
    duckdb.CatalogException,
    duckdb.ConversionException,
    duckdb.ParserException,
    duckdb.PermissionException,
)
"""Errors of the SQL, not of the files."""


def open_store(run_dir: Path) -> "TrajectoryStore":
    """Open the store of a run to read it; StoreError for a folder that is no run directory."""
    if not any((run_dir / name).exists() for name in ("trajectories", "config.json")):
        raise StoreError(
            f"{run_dir} is not a run directory: it has neither trajectories nor a config.json. "
            "Name a folder that `rloop run` or `rloop eval` wrote."
        )
    return TrajectoryStore(run_dir)


class TrajectoryStore:
    """Every trajectory of a run; one writer, any number of readers."""

    def __init__(self, run_dir: Path) -> None:
        """Open the store of a run directory; it may be empty."""
        self._run_dir = run_dir
        self._root = run_dir / "trajectories"
        self._num_rows: dict[StepFile, int] = {}

    def append(self, place: Place, groups: Sequence[Group], *, part: str = "") -> Path:
        """Write the trajectories of a step as one file, whole or not at all; return its path.

        Writing the same place and part again replaces the file. Raises StoreError on a full disk.
        """
        return self.append_table(place, trajectory_table(place, groups), part=part)

    def append_table(self, place: Place, table: pa.Table, *, part: str = "") -> Path:
        """Write a step that is a table of `SCHEMA` already, as `append` does."""
        suffix = f"-{_in_a_name(part)}" if part else ""
        path = self._step_file(place.iteration, place.phase, place.step, suffix)
        write_whole(path, table, self._run_dir, **ENCODING)
        return path

    def query(self, sql: str) -> pa.Table:
        """Return the rows of a SELECT over the views `trajectories` and `groups`, and no others.

        The connection reaches no file and no network, so it cannot write either. Conditions on
        iteration, phase and step leave files unread. Raises StoreError for SQL that DuckDB refuses
        and for damaged files: pages are checked against their checksums, which DuckDB's own
        reader of parquet does not do (it is faster, and gives wrong values for a flipped bit).
        """
        files = self._checked()
        view = _dataset(files) if files else SCHEMA.empty_table()
        with duckdb.connect(config={"enable_external_access": "false"}) as connection:
            connection.register("trajectories", view)
            connection.execute(GROUPS)
            connection.execute("set lock_configuration = true")
            try:
                relation = connection.sql(sql)
                found = relation.to_arrow_table() if relation is not None else pa.table({})
            except duckdb.Error as error:
                if not isinstance(error, _ASKED_WRONG):
                    for file in files:  # StoreError for the first that is damaged
                        deque(read_groups(file.path), maxlen=0)
                told = str(error)
                if "Table with name" in told:  # DuckDB guesses at its own system tables
                    told = told.partition("Did you")[0].strip()
                    told += " The tables are `trajectories` and `groups`."
                raise StoreError(f"The query failed: {told}") from error
        return found

    def count(
        self,
        *,
        iteration: int | None = None,
        phase: PhaseName | None = None,
        step: int | None = None,
    ) -> int:
        """Return how many trajectories are stored, in all or of a place; reads footers only."""
        return sum(self._num_rows[file] for file in self._checked(iteration, phase, step))

    def rows(self, iteration: int, phase: PhaseName, step: int) -> pa.Table:
        """Return all columns of a step, in the order written; no rows when it is not there."""
        files = self._checked(iteration, phase, step)
        tables = [read_whole(file.path, SCHEMA) for file in files]
        return pa.concat_tables([SCHEMA.empty_table(), *tables])

    def stream(
        self,
        columns: Sequence[str] = SCHEMA.names,
        *,
        iteration: int | None = None,
        phase: PhaseName | None = None,
    ) -> Iterator[pa.Table]:
        """Yield all trajectories, or those of a place, in the order written, a part at a time."""
        for file in self._checked(iteration, phase):
            yield from read_groups(file.path, part_of_schema(columns))

    def pool(self, iterations: Iterable[int]) -> Pool:
        """Return what the explorations of the iterations sampled, for selection."""
        return Pool([file.path for i in iterations for file in self._checked(i, "explore")])

    def light(
        self,
        columns: Sequence[str],
        *,
        iteration: int | None = None,
        phase: PhaseName | None = None,
        step: int | None = None,
    ) -> Pool:
        """Return some columns of all trajectories, or of a place's, and access to the others."""
        return Pool([file.path for file in self._checked(iteration, phase, step)], columns)

    def drop_after(self, iteration: int, phase: PhaseName, step: int) -> list[Path]:
        """Set aside the files of later steps of a phase, which a resumed run writes again.

        They move to `trajectories/.superseded/`, never deleted; returns where they are now.
        """
        moved = []
        for file in self._files(iteration, phase):
            if file.step <= step:
                continue
            times = len(self._superseded(file.path))
            aside = self._root / SUPERSEDED / file.path.relative_to(self._root)
            aside.parent.mkdir(parents=True, exist_ok=True)
            moved.append(file.path.rename(aside.with_name(f"{aside.name}.{times + 1}")))
        return moved

    def superseded(
        self, columns: Sequence[str], iteration: int, phase: PhaseName, step: int
    ) -> pa.Table:
        """Return columns of what was last set aside of a step; no rows if nothing was."""
        wanted = part_of_schema(columns)
        found = self._superseded(self._step_file(iteration, phase, step))
        return read_whole(found[-1], wanted) if found else wanted.empty_table()

    def _superseded(self, path: Path) -> list[Path]:
        """Return what was set aside of a file, the latest last."""
        aside = self._root / SUPERSEDED / path.relative_to(self._root)
        found = aside.parent.glob(f"{aside.name}.*")
        return sorted(found, key=lambda path: int(path.suffix[1:]))

    def _step_file(self, iteration: int, phase: str, step: int, suffix: str = "") -> Path:
        return self._folder(iteration, phase) / f"step-{step:06d}{suffix}.parquet"

    def _folder(self, iteration: int, phase: str) -> Path:
        before = self._root / f"iteration={iteration}" / f"phase={phase}"
        return before if before.exists() else self._root / f"iteration-{iteration}/phase-{phase}"

    def _files(
        self, iteration: int | None = None, phase: str | None = None, step: int | None = None
    ) -> list[StepFile]:
        """Return the files of a place, sorted; no temporary and no superseded ones."""
        if not self._run_dir.is_dir():
            raise StoreError(f"{self._run_dir} is not a directory; name the folder of a run.")
        wanted = (iteration, phase, step)
        found = [
            file
            for file in list_step_files(self._root, follow_links=True)
            if all(w in (None, f) for w, f in zip(wanted, file.place, strict=True))
        ]
        return sorted(found, key=lambda file: file.path)

    def _checked(
        self, iteration: int | None = None, phase: str | None = None, step: int | None = None
    ) -> list[StepFile]:
        """Return `_files` after checking the footer of each that is new or changed."""
        files = self._files(iteration, phase, step)
        for file in files:
            if file not in self._num_rows:
                self._num_rows[file] = read_checked(file.path, SCHEMA, VERSION_KEY, OLDER).num_rows
        return files


def _in_a_name(part: str) -> str:
    """Return a part as a piece of a file's name: quoted, and a long one cut, with its hash."""
    name = quote(part, safe="")
    return name if len(name) <= PART_BYTES else f"{name[:PART_BYTES]}-{stable_hash(part):016x}"


def _dataset(files: Sequence[StepFile]) -> ds.FileSystemDataset:
    """Return the files as one table that knows by their names which rows they cannot hold."""
    local = pyarrow.fs.LocalFileSystem()
    fragments = [
        _CHECKED.make_fragment(
            str(file.path),
            local,
            partition_expression=(ds.field("iteration") == file.iteration)
            & (ds.field("phase") == file.phase)
            & (ds.field("step") == file.step),
        )
        for file in files
    ]
    return ds.FileSystemDataset(fragments, SCHEMA, _CHECKED, local)
