"""`rloop store verify`: whether everything a run says about itself is so.

Every page of every file is read against its checksum, columns that follow from others are computed
again, and counts are compared with the manifest, the log and the expert sets. A step's rows are in
memory at a time. Changes nothing; `loop.set_aside` moves what is damaged.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any, cast

import pyarrow as pa
import pyarrow.compute as pc

from rloop.config_rewards import RewardConfig, weights_of
from rloop.errors import StoreError
from rloop.store.expert import EXAMPLES, PROBLEMS, VERSION_KEY, stream_examples
from rloop.store.findings import Findings
from rloop.store.index import StepFile, list_step_files
from rloop.store.parquet import read_checked, read_groups
from rloop.store.row_checks import StepPlace, check_rows
from rloop.store.schema import OLDER, SCHEMA
from rloop.store.schema import VERSION_KEY as TRAJECTORIES
from rloop.store.trajectories import open_store
from rloop.store.verify_counts import Tally, check_counts
from rloop.store.verify_files import check_leftovers, check_policies, read_small_files
from rloop.types import PhaseName

FILES, ROWS, TWICE = "trajectory files", "trajectories", "steps with every trajectory once"
EXPERT = "examples of expert sets that the store has"
_IDENTITY = ("policy", "task", "problem_id", "member")
_COUNTED = (
    *_IDENTITY,
    "correct",
    "reward",
    "verdict",
    "finish_reason",
    "completion_tokens",
    "completion_hash",
)
_EXAMPLE = ("problem_id", "member", "completion_hash")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Selected:
    """An expert set by where its examples were sampled."""

    file: str
    wanted: dict[tuple[int, int], set[tuple[Any, ...]]]
    """(iteration, step) -> identities."""


def verify_run(run_dir: Path) -> Findings:
    """Check a run directory, or one of `rloop eval`; StoreError when it is neither."""
    open_store(run_dir)
    findings = Findings()
    small = read_small_files(run_dir, findings)
    seed = small.config.get("seed")
    weights = weights_of([RewardConfig(**entry) for entry in small.config.get("rewards", ())])
    experts = list(_expert_sets(run_dir, findings))
    tallies: list[Tally] = []
    files = sorted(list_step_files(run_dir / "trajectories"), key=_step_key)
    for (iteration, phase, step), members in groupby(files, key=_step_key):
        place = StepPlace(
            iteration=iteration,
            phase=cast(PhaseName, phase),
            step=step,
            seed=seed,
            weights=weights,
        )
        rows = _read_step(run_dir, list(members), place, findings)
        if rows is None:
            continue
        _check_twice(rows, place, findings)
        tallies += _tally(rows, place)
        if phase == "explore":
            _find_examples(rows, place, experts, findings)
    for expert in experts:
        for (iteration, step), left in expert.wanted.items():
            if left and not small.is_lost(iteration, "explore", step):
                said = f"{len(left)} examples of iteration {iteration}, step {step} are not stored"
                findings.add(EXPERT, expert.file, said, number=len(left))
    check_counts(small, tallies, run_dir, findings)
    check_policies(run_dir, small, findings)
    check_leftovers(run_dir, {file.path for file in files}, findings)
    return findings


def _step_key(file: StepFile) -> tuple[int, str, int]:
    return file.iteration, file.phase, file.step


def _read_step(
    run_dir: Path, files: Sequence[StepFile], place: StepPlace, findings: Findings
) -> pa.Table | None:
    """Return what counting needs of a step's rows after checking them; None when nothing is left.

    A step with a damaged file is counted without it: the finding says why counts differ.
    """
    kept = []
    for file in files:
        name = str(file.path.relative_to(run_dir))
        findings.count(FILES)
        wrong: dict[str, tuple[int, str]] = {}
        parts = []
        try:
            read_checked(file.path, SCHEMA, TRAJECTORIES, OLDER)
            for rows in read_groups(file.path, SCHEMA):
                findings.count(ROWS, len(rows))
                for what, mask in check_rows(rows, place):
                    if mask.any():
                        first = rows.slice(int(mask.argmax()), 1).to_pylist()[0]
                        where = f"{first['problem_id']}, member {first['member']}"
                        count, where = wrong.get(what, (0, where))
                        wrong[what] = (count + int(mask.sum()), where)
                parts.append(rows.select(_COUNTED))
        except StoreError as error:
            findings.add(FILES, name, _without_name(error, file.path), is_damaged=True)
            continue
        for what, (count, where) in wrong.items():
            rows_fail = "row fails" if count == 1 else "rows fail"
            said = f"{count:,} {rows_fail}: {what} (first: {where})"
            findings.add(ROWS, name, said, number=count)
        kept += parts
    return pa.concat_tables(kept).combine_chunks() if kept else None


def _without_name(error: StoreError, path: Path) -> str:
    """Return what is wrong with a file, without its name and the remedy."""
    said = str(error).removeprefix(str(path)).strip()
    return f"it {said.partition('; restore')[0]}"


def _check_twice(rows: pa.Table, place: StepPlace, findings: Findings) -> None:
    findings.count(TWICE)
    counts = rows.group_by(list(_IDENTITY)).aggregate([([], "count_all")])
    twice = counts.filter(pc.greater(counts["count_all"], 1))
    if len(twice):
        first = twice.slice(0, 1).to_pylist()[0]
        said = (
            f"{len(twice):,} trajectories of iteration {place.iteration}, {place.phase}, step "
            f"{place.step} are stored more than once (first: {first['problem_id']}, member "
            f"{first['member']})"
        )
        findings.add(TWICE, _folder(place), said)


def _tally(rows: pa.Table, place: StepPlace) -> Iterator[Tally]:
    """Yield what a policy did on a task in a step."""
    marks = {
        "is_correct": rows["correct"],
        "is_error": pc.equal(rows["verdict"], "error"),
        "is_cut": pc.equal(rows["finish_reason"], "length"),
        "is_success": pc.and_(rows["correct"], pc.equal(rows["finish_reason"], "stop")),
    }
    for name, mask in marks.items():
        rows = rows.append_column(name, pc.cast(mask, pa.int64()))
    problems = rows.group_by(["policy", "task", "problem_id"], use_threads=False).aggregate(
        [
            ([], "count_all"),
            *((name, "sum") for name in ("completion_tokens", "reward", *marks)),
        ]
    )
    found = problems.group_by(["policy", "task"], use_threads=False).aggregate(
        [
            *(("count_all", how) for how in ("count", "sum", "min", "max")),
            *((f"{name}_sum", "sum") for name in ("completion_tokens", "reward", *marks)),
        ]
    )
    for row in found.to_pylist():
        yield Tally(
            iteration=place.iteration,
            phase=place.phase,
            step=place.step,
            policy=row["policy"],
            task=row["task"],
            num_problems=row["count_all_count"],
            num_rows=row["count_all_sum"],
            fewest_samples=row["count_all_min"],
            most_samples=row["count_all_max"],
            num_tokens=row["completion_tokens_sum_sum"],
            reward=row["reward_sum_sum"],
            num_correct=row["is_correct_sum_sum"],
            num_errors=row["is_error_sum_sum"],
            num_truncated=row["is_cut_sum_sum"],
            num_successes=row["is_success_sum_sum"],
        )


def _expert_sets(run_dir: Path, findings: Findings) -> Iterator[_Selected]:
    """Yield the expert sets, to be looked for in the store; both files of each are read."""
    for path in sorted((run_dir / "expert").glob("iter-*.parquet")):
        name = str(path.relative_to(run_dir))
        findings.count("expert files")
        try:
            if path.stem.endswith("-problems"):
                read_checked(path, PROBLEMS, VERSION_KEY)
                for _ in read_groups(path):
                    pass
                continue
            wanted: dict[tuple[int, int], set[tuple[Any, ...]]] = {}
            read_checked(path, EXAMPLES, VERSION_KEY)
            for part in stream_examples(run_dir, int(path.stem.removeprefix("iter-"))):
                findings.count(EXPERT, len(part))
                names = ("iteration", "step", *_EXAMPLE)
                for row in zip(*(part[name].to_pylist() for name in names), strict=True):
                    wanted.setdefault(row[:2], set()).add(row[2:])
        except StoreError as error:
            findings.add("expert files", name, _without_name(error, path), is_damaged=True)
            continue
        yield _Selected(file=name, wanted=wanted)


def _find_examples(
    rows: pa.Table, place: StepPlace, experts: Sequence[_Selected], findings: Findings
) -> None:
    wanted = [e.wanted.get((place.iteration, place.step)) for e in experts]
    if any(wanted):
        columns = (rows[name].to_pylist() for name in _EXAMPLE)
        stored = set(zip(*columns, strict=True))
        for left in filter(None, wanted):
            left -= stored


def _folder(place: StepPlace) -> str:
    return f"trajectories/iteration={place.iteration}/phase={place.phase}"
