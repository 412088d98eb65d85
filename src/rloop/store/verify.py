"""`rloop store verify`: whether the files of a run can be read and hold as much as was recorded.

Every page is read against its checksum, rows are counted and compared with the manifest and the
log, and the headers of weights are parsed. Changes nothing; `loop.quarantine` moves damaged files.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
from safetensors import SafetensorError, safe_open

from rloop.errors import StoreError
from rloop.observe.run_log import read_lines
from rloop.store import expert
from rloop.store.index import list_step_files
from rloop.store.parquet import read_checked, read_groups
from rloop.store.records import Record, check_logged, read_object, read_record
from rloop.store.schema import OLDER, SCHEMA, VERSION_KEY
from rloop.store.trajectories import open_store
from rloop.text import visible

DAMAGED = ".damaged"
"""Folder of a run directory to which `loop.quarantine` moves files."""
SMALL, TRAJECTORIES, EXPERT = "small files", "trajectory files", "expert files"
ROWS, COUNTS, WEIGHTS = "rows", "recorded row counts", "weight files"
MAX_SHOWN = 30

StepKey = tuple[int, str, int]
"""(iteration, phase, step)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Issue:
    """One thing that is wrong.

    Example: Issue(kind="trajectory files", file="trajectories/iteration-1/phase-explore/step-
    000012.parquet", message="it is torn or not a parquet file (...)", is_damaged=True)
    """

    kind: str
    file: str
    """Relative to the run directory."""
    message: str
    is_damaged: bool = False
    """Whether the file cannot be read and may be moved away."""


@dataclass(slots=True)
class Verification:
    """What was checked, by kind, and all that is wrong; filled in by `verify_run`."""

    run_dir: Path
    checked: Counter[str] = field(default_factory=Counter)
    issues: list[Issue] = field(default_factory=list)
    leftovers: list[str] = field(default_factory=list)
    """Files that nothing reads, in words: what was replaced or moved away, what a crash left."""

    def add(self, kind: str, file: str, message: str, *, is_damaged: bool = False) -> None:
        """Say that something is wrong."""
        self.issues.append(Issue(kind=kind, file=file, message=message, is_damaged=is_damaged))

    def attempt(
        self, kind: str, path: Path, read: Callable[[Path], Any], *, is_damaged: bool = False
    ) -> Any:  # noqa: ANN401 (whatever is read)
        """Return what is read of a file; None, and an issue, where that raises StoreError."""
        self.checked[kind] += 1
        try:
            return read(path)
        except StoreError as error:
            message = str(error).replace(f"{path}", "it", 1).partition("; restore")[0]
            name = str(path.relative_to(self.run_dir))
            self.add(kind, name, message, is_damaged=is_damaged)
            return None

    @property
    def is_sound(self) -> bool:
        """Whether nothing is wrong."""
        return not self.issues

    def rows(self) -> list[tuple[str, int, int]]:
        """Return the table of a verification: kind, how many were checked, how many are wrong."""
        wrong = Counter(issue.kind for issue in self.issues)
        kinds = dict.fromkeys([*self.checked, *wrong])
        return [(kind, self.checked[kind], wrong[kind]) for kind in kinds]

    def lines(self) -> list[str]:
        """Return what is wrong, what is left over, and the outcome, a line each."""
        damaged = sum(issue.is_damaged for issue in self.issues)
        end = "Everything can be read." if self.is_sound else f"{len(self.issues)} issues."
        if damaged:
            end += f" --quarantine moves {damaged} damaged files away; use it without a backup."
        shown = self.issues[:MAX_SHOWN]
        wrong = [f"Wrong: {visible(f'{issue.file}: {issue.message}')}" for issue in shown]
        if len(self.issues) > MAX_SHOWN:
            wrong.append(f"and {len(self.issues) - MAX_SHOWN} more: --json has all.")
        return [*wrong, *(f"Left over: {left}" for left in self.leftovers), end]

    def as_json(self) -> dict[str, Any]:
        """Return all of it in plain values."""
        checks = [{"what": kind, "checked": n, "wrong": wrong} for kind, n, wrong in self.rows()]
        return {
            "is_sound": self.is_sound,
            "checks": checks,
            "issues": [asdict(issue) for issue in self.issues],
            "leftovers": self.leftovers,
        }


def verify_run(run_dir: Path) -> Verification:
    """Check a run directory, or one of `rloop eval`; StoreError when it is neither."""
    open_store(run_dir)
    result = Verification(run_dir)
    manifest = _read_small(result, "manifest.json", read_record) or {}
    for name in ("config.json", "environment.json"):
        _read_small(result, name, read_object)
    _read_small(result, "events.jsonl", read_lines)

    def read_log(path: Path) -> list[Record]:
        check_logged(run_dir, manifest)
        return read_lines(path)

    log = _read_small(result, "metrics.jsonl", read_log, is_damaged=True) or []
    stored = _read_trajectories(result)
    _read_expert_sets(result)
    _check_explorations(result, manifest, stored)
    _check_evaluations(result, log, stored)
    _check_weights(result)
    result.leftovers = list(_leftovers(run_dir))
    return result


def _read_small(
    result: Verification, name: str, read: Callable[[Path], Any], *, is_damaged: bool = False
) -> Any:  # noqa: ANN401 (JSON)
    path = result.run_dir / name
    return result.attempt(SMALL, path, read, is_damaged=is_damaged) if path.exists() else None


def _read_trajectories(result: Verification) -> Counter[tuple[StepKey, str, str]]:
    """Read every trajectory file; return the rows of each step, policy and task."""
    stored: Counter[tuple[StepKey, str, str]] = Counter()
    root = result.run_dir / "trajectories"
    files = {file.path: file for file in list_step_files(root)}
    for path in sorted(root.glob("iteration[-=]*/phase[-=]*/*.parquet")):
        file = files.get(path)
        if file is None:
            name = str(path.relative_to(result.run_dir))
            result.add(TRAJECTORIES, name, "its name is not one that rloop gives its files")
            continue

        def count(path: Path) -> list[pa.Table]:
            read_checked(path, SCHEMA, VERSION_KEY, OLDER)
            return [
                part.group_by(["policy", "task"]).aggregate([([], "count_all")])
                for part in read_groups(path)
            ]

        key = (file.iteration, file.phase, file.step)
        for part in result.attempt(TRAJECTORIES, path, count, is_damaged=True) or ():
            for row in part.to_pylist():
                stored[key, row["policy"], row["task"]] += row["count_all"]
                result.checked[ROWS] += row["count_all"]
    return stored


def _read_expert_sets(result: Verification) -> None:
    for path in sorted((result.run_dir / "expert").glob("iter-*.parquet")):
        is_report = path.stem.endswith("-problems")
        schema = expert.PROBLEMS if is_report else expert.EXAMPLES

        def read(path: Path, schema: pa.Schema = schema) -> None:
            read_checked(path, schema, expert.VERSION_KEY)
            for _ in read_groups(path):
                pass

        result.attempt(EXPERT, path, read, is_damaged=True)


def _check_explorations(
    result: Verification, manifest: Record, stored: Counter[tuple[StepKey, str, str]]
) -> None:
    """Compare rows with the manifest, which has them of complete phases and of the saved point."""
    recorded = {key: r for key, r in manifest.get("phases", {}).items() if key.endswith("/explore")}
    point = manifest.get("in_progress") or {}
    if str(point.get("key")).endswith("/explore"):
        recorded[point["key"]] = {**point, "steps": point["step"]}
    for key, facts in recorded.items():
        steps: Counter[int] = Counter()
        for ((iteration, phase, step), *_), count in stored.items():
            if f"{iteration}/{phase}" == key and step <= facts["steps"]:
                steps[step] += count
        result.checked[COUNTS] += 1
        if steps.total() != facts.get("trajectories", steps.total()):
            missing = sorted(set(range(1, facts["steps"] + 1)) - set(steps))
            message = f"{key}: {facts['trajectories']:,} trajectories, {steps.total():,} are stored"
            message += f"; steps without any: {', '.join(map(str, missing))}" if missing else ""
            result.add(COUNTS, "manifest.json", message)


def _check_evaluations(
    result: Verification, log: list[Record], stored: Counter[tuple[StepKey, str, str]]
) -> None:
    """Compare rows with the log, the last line of a step; what was moved away is not missed."""
    gone = {
        (file.iteration, file.phase, file.step)
        for file in list_step_files(result.run_dir / DAMAGED / "trajectories")
    }
    lines = {(line["iteration"], line["step"], line["policy"]): line for line in log}
    for (iteration, step, policy), line in lines.items():
        key = (iteration, "evaluate", step)
        for name, count in line.items():
            if not name.startswith("evaluate/") or not name.endswith("/samples_count"):
                continue
            task = name.removeprefix("evaluate/").removesuffix("/samples_count")
            result.checked[COUNTS] += 1
            found = stored[key, policy, task]
            if found != count and key not in gone:
                label = f"{policy} (iteration {iteration}, step {step}) on {task}"
                message = f"the evaluation of {label}: {count:,} samples, {found:,} are stored"
                result.add(COUNTS, "metrics.jsonl", message)


def _check_weights(result: Verification) -> None:
    """Parse the header of every weight file of policies and saved states; no torch."""
    for folder in ("policies", "state"):
        root = result.run_dir / folder
        files = set(root.rglob("*.safetensors"))
        for index in root.rglob("*.safetensors.index.json"):
            shards = result.attempt(WEIGHTS, index, read_object) or {}
            files |= {index.parent / name for name in shards.get("weight_map", {}).values()}
        for path in sorted(files):
            result.attempt(WEIGHTS, path, _parse_header)


def _parse_header(path: Path) -> None:
    try:
        with safe_open(path, framework="np") as weights:
            if not weights.keys():
                raise StoreError(f"{path} holds no weights")
    except (SafetensorError, OSError) as error:
        raise StoreError(f"{path} is torn or missing ({error})") from error


def _leftovers(run_dir: Path) -> Iterator[str]:
    for folder, what in (
        (run_dir / "trajectories/.superseded", "superseded by a resume"),
        (run_dir / DAMAGED, "moved away as damaged"),
    ):
        files = [path for path in folder.rglob("*") if path.is_file()]
        if files:
            size = sum(path.stat().st_size for path in files)
            yield f"{folder.relative_to(run_dir)}: {len(files)} files, {size:,} bytes; {what}"
    patterns = ("**/*.tmp", "**/.*.partial", "**/.*.old", ".export-*")
    for path in sorted({path for pattern in patterns for path in run_dir.glob(pattern)}):
        left = path.relative_to(run_dir)
        yield f"{left}: left by a crash; delete it when no run is active"
