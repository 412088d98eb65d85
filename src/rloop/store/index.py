"""The groups of a run, counted: enough to know where to look, without any text.

A group is one row however many completions it has, so a million trajectories are some ten thousand
rows in memory. Files are counted once, the newest first, some at each refresh; what is replaced,
set aside or new since is noticed at the next one. Links are never followed. Texts are read from the
one file where they are, by `read_step`.
"""

import os
import re
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from rloop.errors import StoreError
from rloop.store.parquet import read_checked, read_whole
from rloop.store.schema import OLDER, SCHEMA, VERSION_KEY, part_of_schema
from rloop.text import excerpt

_FOLDERS = (re.compile(r"iteration[-=](\d{1,9})"), re.compile(r"phase[-=]([a-z]+)"))
_FILE = re.compile(r"step-(\d{1,9})(?:-(.+))?\.parquet")
_AT_THE_END = 2**31 - 1
FILES_A_REFRESH = 32
"""New files counted at each refresh, so that a page comes at once whatever the size of a run."""
_COUNTED = (
    *("problem_id", "task", "policy", "verdict", "finish_reason", "completion_tokens", "reward"),
    *("question", "prompt_text"),
)
_GROUPS = pa.schema(
    {
        "file": pa.string(),
        "iteration": pa.int32(),
        "moment": pa.int32(),
        "phase": pa.string(),
        "step": pa.int32(),
        "policy": pa.string(),
        "task": pa.string(),
        "problem_id": pa.string(),
        "question": pa.string(),
        "size": pa.int64(),
        "num_correct": pa.int64(),
        "num_error": pa.int64(),
        "num_truncated": pa.int64(),
        "tokens": pa.int64(),
        "reward": pa.float64(),
        "is_mixed": pa.bool_(),
    }
)
"""The view `groups`: `file` is a `StepFile.key`, `moment` orders an iteration's files in time,
`question` is its end, `tokens` and `reward` are sums over the group, mixed means
correct and wrong ones, errors aside."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StepFile:
    """A file of the store as it was seen; a file that was replaced is another one.

    Example: StepFile(path=Path("runs/demo/trajectories/iteration-2/phase-explore/step-000004
    .parquet"), iteration=2, phase="explore", step=4, part="", mtime_ns=1, size=100)
    """

    path: Path
    iteration: int
    phase: str
    step: int
    part: str
    """Policy and task of an evaluation; empty for a step of RL."""
    mtime_ns: int
    size: int
    """Bytes."""

    @property
    def key(self) -> str:
        """Return its short name: `2/explore/4`, or `2/evaluate/4-explored-002-sums`."""
        part = f"-{self.part}" if self.part else ""
        return f"{self.iteration}/{self.phase}/{self.step}{part}"

    @property
    def place(self) -> tuple[int, str, int]:
        """Return iteration, phase and step."""
        return self.iteration, self.phase, self.step

    @property
    def moment(self) -> int:
        """Return when in its iteration: the RL step, or the end for a policy that was kept."""
        return self.step if self.step or self.phase != "evaluate" else _AT_THE_END

    @property
    def in_time(self) -> tuple[int, int, bool, str]:
        """Return what sorts files in the order of training."""
        return self.iteration, self.moment, self.phase == "evaluate", self.part


class GroupIndex:
    """What is counted so far of one run; safe to use from several threads."""

    def __init__(self, run_dir: Path) -> None:
        """Begin with nothing counted."""
        self._root = run_dir / "trajectories"
        self._lock = threading.Lock()
        self._counted: dict[StepFile, pa.Table] = {}
        self._groups = _GROUPS.empty_table()
        self.files: dict[str, StepFile] = {}
        """Every file by key, in the order of training."""
        self._damaged: dict[StepFile, str] = {}

    @property
    def num_waiting(self) -> int:
        """Return how many files are not counted yet."""
        return len(self.files) - len(self._counted) - len(self._damaged)

    @property
    def damaged(self) -> dict[str, str]:
        """Return what is wrong with the files that could not be counted, by key."""
        return {file.key: said for file, said in self._damaged.items()}

    def refresh(self, most: int = FILES_A_REFRESH) -> None:
        """List the files again and count those that are new, the newest first, `most` of them."""
        with self._lock:
            files = sorted(list_step_files(self._root), key=lambda file: file.in_time)
            present = set(files)
            gone = [file for file in self._counted if file not in present]
            for file in gone:
                del self._counted[file]
            self._damaged = {file: said for file, said in self._damaged.items() if file in present}
            known = self._counted.keys() | self._damaged.keys()
            new = [file for file in reversed(files) if file not in known][:most]
            for file in new:
                self._count(file)
            self.files = {file.key: file for file in files}
            if gone or new:
                parts = [self._counted[file] for file in files if file in self._counted]
                self._groups = pa.concat_tables([_GROUPS.empty_table(), *parts]).combine_chunks()

    def query(self, sql: str, parameters: Sequence[object] = ()) -> list[dict[str, Any]]:
        """Return the rows of a SELECT over the view `groups`, its `?` bound to the parameters.

        The connection reaches no file and no network.
        """
        with duckdb.connect(config={"enable_external_access": "false"}) as connection:
            connection.register("groups", self._groups)
            connection.execute("set lock_configuration = true")
            found = connection.sql(sql, params=list(parameters))
            rows: list[dict[str, Any]] = found.to_arrow_table().to_pylist()
        return rows

    def _count(self, file: StepFile) -> None:
        try:
            self._counted[file] = count_groups(file, read_step(file, _COUNTED))
        except StoreError as error:
            # A run may set a file aside while we look; then it is not damaged, it is gone.
            if file.path.exists():
                self._damaged[file] = str(error)


def list_step_files(root: Path, *, follow_links: bool = False) -> Iterator[StepFile]:
    """Yield the step files below a `trajectories` folder, in no order; no strangers."""
    if root.is_symlink() and not follow_links:
        return
    for iteration in _entries(root, _FOLDERS[0], follow_links=follow_links):
        for phase in _entries(Path(iteration[1]), _FOLDERS[1], follow_links=follow_links):
            for name, path in _entries(Path(phase[1]), _FILE, follow_links=follow_links):
                try:
                    status = os.stat(path, follow_symlinks=follow_links)
                except FileNotFoundError:
                    continue
                yield StepFile(
                    path=Path(path),
                    iteration=int(iteration[0][1]),
                    phase=phase[0][1],
                    step=int(name[1]),
                    part=unquote(name[2] or ""),
                    mtime_ns=status.st_mtime_ns,
                    size=status.st_size,
                )


def read_step(file: StepFile, columns: Sequence[str]) -> pa.Table:
    """Return columns of a file's rows; StoreError names a file that is damaged or not ours."""
    read_checked(file.path, SCHEMA, VERSION_KEY, OLDER)
    return read_whole(file.path, part_of_schema(columns))


def count_groups(file: StepFile, rows: pa.Table) -> pa.Table:
    """Return one row of `groups` for each problem of a policy in a file, in the order written."""
    marks = {
        "is_correct": pc.equal(rows["verdict"], "correct").cast(pa.int64()),
        "is_error": pc.equal(rows["verdict"], "error").cast(pa.int64()),
        "is_truncated": pc.equal(rows["finish_reason"], "length").cast(pa.int64()),
    }
    for name, values in marks.items():
        rows = rows.append_column(name, values)
    found = rows.group_by(["policy", "task", "problem_id"], use_threads=False).aggregate(
        [
            *((name, "sum") for name in (*marks, "completion_tokens", "reward")),
            ("reward", "count"),
            ("question", "first"),
            ("prompt_text", "first"),
        ]
    )
    constants = {
        "file": file.key,
        "iteration": file.iteration,
        "moment": file.moment,
        "phase": file.phase,
        "step": file.step,
    }
    columns = {name: [value] * found.num_rows for name, value in constants.items()}
    columns |= {name: found[name] for name in ("policy", "task", "problem_id")}
    columns |= {
        "question": [
            excerpt(asked)
            for asked in pc.coalesce(
                found["question_first"], found["prompt_text_first"]
            ).to_pylist()
        ],
        "size": found["reward_count"],
        "num_correct": found["is_correct_sum"],
        "num_error": found["is_error_sum"],
        "num_truncated": found["is_truncated_sum"],
        "tokens": found["completion_tokens_sum"],
        "reward": found["reward_sum"],
        "is_mixed": pc.and_(
            pc.greater(found["is_correct_sum"], 0),
            pc.less(pc.add(found["is_correct_sum"], found["is_error_sum"]), found["reward_count"]),
        ),
    }
    return pa.table(columns, schema=_GROUPS)


def _entries(
    folder: Path, pattern: re.Pattern[str], *, follow_links: bool
) -> list[tuple[re.Match[str], str]]:
    """Return the folder's files or folders whose whole name fits, with their paths."""
    is_wanted = os.DirEntry.is_file if pattern is _FILE else os.DirEntry.is_dir
    try:
        with os.scandir(folder) as entries:
            return [
                (found, entry.path)
                for entry in entries
                if (found := pattern.fullmatch(entry.name))
                and is_wanted(entry, follow_symlinks=follow_links)
            ]
    except (FileNotFoundError, NotADirectoryError):
        return []
