"""`rloop store rescore`: judge every trajectory of a run again, without sampling.

The result is a new run directory that the report, the comparison and the viewer read:

    RUN-rescored/
      trajectories/      as in the run, with new verdicts, answers and rewards
      metrics.jsonl      rewards, avg@n, pass@k and so on told anew; losses and times as they were
      changes.parquet    old and new verdict of every trajectory whose verdict or answer changed
      manifest.json      names the run, the verifier and its versions; policies stay in the run
      config.json  recipe.yaml  environment.json  events.jsonl  expert/    as in the run

The expert sets are those the run was trained on, by the old verdicts.
"""

import json
import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from rloop.disk import new_path
from rloop.errors import StoreError
from rloop.evaluation.recount import recount
from rloop.observe.run_log import read_metrics
from rloop.recipe.config import Recipe, RewardConfig
from rloop.session.process import read_resolved
from rloop.store.index import StepFile, list_step_files, read_step
from rloop.store.records import (
    LOGGED_KEY,
    RESCORED_KEY,
    check_logged,
    logged_mark,
    read_record,
    write_record,
)
from rloop.store.schema import SCHEMA, SCHEMA_VERSION
from rloop.store.trajectories import TrajectoryStore, open_store
from rloop.tasks.pool import VerifierPool
from rloop.tasks.rejudge import COLUMNS, Rejudge
from rloop.tasks.rewards import weighted_sum, weights_of
from rloop.tasks.verifiers.registry import check_verifier_name
from rloop.text import visible
from rloop.threads import allowed_cores
from rloop.types import Place, Verdict

CHANGES = "changes.parquet"
_SLICE = 4096
"""Trajectories judged at the same time."""
_COPIED = ("recipe.yaml", "environment.json", "events.jsonl", "expert")
_PLACE = ("iteration", "phase", "step", "policy", "task", "problem_id", "member")
_JUDGED = ("verdict", "answer", "reason", "verifier_version")
_CHANGES = pa.schema(
    [
        *(SCHEMA.field(name) for name in _PLACE),
        *(pa.field(f"{when}_{name}", pa.string()) for when in ("old", "new") for name in _JUDGED),
    ]
)


@dataclass(slots=True)
class Rescored:
    """The changes of a rescoring; filled in file by file."""

    directory: Path
    notes: list[str] = field(default_factory=list)
    num_changed: int = 0
    """Trajectories with another verdict or another answer."""
    confusion: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    """(task, old verdict, new verdict) -> trajectories."""

    def confusion_rows(self) -> list[tuple[object, ...]]:
        """Return task, old verdict and the counts of each new verdict."""
        kinds = sorted({(task, old) for task, old, _ in self.confusion})
        return [
            (task, old, *(self.confusion[task, old, new] for new in ("correct", "wrong", "error")))
            for task, old in kinds
        ]

    def as_json(self) -> dict[str, Any]:
        """Return everything as plain values."""
        columns = ("task", "old", "correct", "wrong", "error")
        return {
            "directory": str(self.directory),
            "trajectories": self.confusion.total(),
            "changed": self.num_changed,
            "confusion": [dict(zip(columns, row, strict=True)) for row in self.confusion_rows()],
            "notes": self.notes,
        }

    def lines(self) -> list[str]:
        """Return notes and the result, one line each."""
        turned = sum(n for (_, old, new), n in self.confusion.items() if old != new)
        end = (
            f"{turned:,} of {self.confusion.total():,} verdicts changed, and {self.num_changed:,} "
            f"trajectories have a new verdict or answer -> {self.directory} ({CHANGES} lists them; "
            "`rloop report` and `rloop compare` read the directory)."
        )
        return [*map(visible, self.notes), end]


def rescore(run_dir: Path, verifier: str | None = None, out: Path | None = None) -> Rescored:
    """Judge all trajectories of a run into a new run directory, written completely or not at all.

    `verifier` replaces those of the recipe. Raises ConfigError if the directory exists, and
    TaskError if the verifier rejects the problems' own references.
    """
    if verifier is not None:
        check_verifier_name(verifier)
    open_store(run_dir)
    recipe = read_resolved(run_dir / "config.json")
    manifest = read_record(run_dir / "manifest.json")
    check_logged(run_dir, manifest)
    target = out or run_dir.with_name(f"{run_dir.resolve().name}-rescored")
    _check_room(run_dir, target)
    found = Rescored(directory=target)
    workers = max(recipe.tasks.verifier_workers, allowed_cores())
    with (
        new_path(target) as folder,
        closing(VerifierPool(workers, recipe.tasks.verifier_timeout_s)) as pool,
    ):
        folder.mkdir()
        judge = Rejudge(recipe.tasks, verifier, pool)
        versions = _judge_all(run_dir, folder, judge, found, recipe)
        found.notes += judge.notes()
        told = recount(
            read_metrics(run_dir), TrajectoryStore(folder), recipe.evaluate, seed=recipe.seed
        )
        log = "".join(json.dumps(line, separators=(",", ":")) + "\n" for line in told)
        (folder / "metrics.jsonl").write_text(log)
        _write_record(run_dir, folder, recipe, verifier, versions)
    return found


def _check_room(run_dir: Path, target: Path) -> None:
    """Raise StoreError if there is too little space for a second copy of the trajectories."""
    size = sum(file.size for file in list_step_files(run_dir / "trajectories"))
    if target.parent.is_dir() and size > (free := shutil.disk_usage(target.parent).free):
        raise StoreError(
            f"{target} needs {size:,} bytes, and {target.parent} has {free:,} free. Free some "
            "space, or choose another --out."
        )


def _judge_all(
    run_dir: Path, folder: Path, judge: Rejudge, found: Rescored, recipe: Recipe
) -> list[str]:
    """Write every step with its new verdicts, and the changes; return the verifiers' versions."""
    store, versions = TrajectoryStore(folder), set()
    files = sorted(list_step_files(run_dir / "trajectories"), key=lambda file: file.in_time)
    if not files:
        raise StoreError(f"{run_dir} has no trajectories to judge.")
    with pq.ParquetWriter(folder / CHANGES, _CHANGES, compression="zstd") as writer:
        for file in files:
            old = read_step(file, SCHEMA.names)
            asked = old.select(COLUMNS)
            parts = (asked.slice(i, _SLICE).to_pylist() for i in range(0, len(old), _SLICE))
            verdicts = [verdict for part in parts for verdict in judge.verdicts(part)]
            new = _with_verdicts(old, verdicts, recipe.rewards)
            store.append_table(_place(file), new, part=file.part)
            changed = _changes(old, new)
            writer.write_table(changed)
            versions |= {verdict.verifier_version for verdict in verdicts}
            kinds = (column.to_pylist() for column in (old["task"], old["verdict"], new["verdict"]))
            found.confusion.update(zip(*kinds, strict=True))
            found.num_changed += len(changed)
    return sorted(versions)


def _place(file: StepFile) -> Place:
    phase: Any = file.phase
    return Place(run="", seed=0, iteration=file.iteration, phase=phase, step=file.step)


def _with_verdicts(
    rows: pa.Table, verdicts: Sequence[Verdict], rewards: Sequence[RewardConfig]
) -> pa.Table:
    """Return the rows with new verdicts; of the recipe's rewards only accuracy changes with
    them."""
    weights = weights_of(rewards)
    accuracy = {reward.label for reward in rewards if reward.function == "accuracy"}
    pairs = zip(rows["rewards"].to_pylist(), verdicts, strict=True)
    named = [_rejudged(old, verdict, accuracy) for old, verdict in pairs]
    columns = {
        "answer": [verdict.answer for verdict in verdicts],
        "correct": [verdict.is_correct for verdict in verdicts],
        "verdict": [verdict.kind for verdict in verdicts],
        "reason": [verdict.reason for verdict in verdicts],
        "reward": [
            verdict.reward
            if entries is None
            else weighted_sum({e["name"]: e["value"] or 0.0 for e in entries}, weights)
            for verdict, entries in zip(verdicts, named, strict=True)
        ],
        "score": [verdict.score for verdict in verdicts],
        "rewards": named,
        "schema_version": [SCHEMA_VERSION] * len(verdicts),
        "verifier_version": [verdict.verifier_version for verdict in verdicts],
    }
    for name, values in columns.items():
        kind = SCHEMA.field(name)
        rows = rows.set_column(SCHEMA.get_field_index(name), kind, pa.array(values, kind.type))
    return rows


def _rejudged(
    entries: list[dict[str, Any]] | None, verdict: Verdict, accuracy: set[str]
) -> list[dict[str, Any]] | None:
    """Return a row's rewards, with accuracy by the new verdict."""
    value = None if verdict.kind == "error" else verdict.reward
    new = {"value": value, "reason": verdict.reason}
    return entries and [e | new if e["name"] in accuracy else e for e in entries]


def _changes(old: pa.Table, new: pa.Table) -> pa.Table:
    """Return the rows whose verdict or answer changed, as `changes.parquet` has them."""
    is_other = pc.or_(_differs(old, new, "verdict"), _differs(old, new, "answer"))
    sides = {"old": old, "new": new}
    columns = {name: old[name] for name in _PLACE}
    columns |= {f"{when}_{name}": sides[when][name] for when in sides for name in _JUDGED}
    return pa.table(columns, schema=_CHANGES).filter(is_other)


def _differs(old: pa.Table, new: pa.Table, name: str) -> pa.ChunkedArray:
    """Return whether a column differs, row by row; two nulls are equal."""
    mark = "\x00"
    return pc.not_equal(pc.fill_null(old[name], mark), pc.fill_null(new[name], mark))


def _write_record(
    run_dir: Path, folder: Path, recipe: Recipe, verifier: str | None, versions: list[str]
) -> None:
    """Write the directory's own records: the run's, with new numbers."""
    for name in _COPIED:
        source = run_dir / name
        if source.is_dir():
            shutil.copytree(source, folder / name)
        elif source.exists():
            shutil.copyfile(source, folder / name)
    config = recipe.model_dump(mode="json")
    config["name"] = f"{recipe.name}-rescored"
    for kind in ("train", "evaluate") if verifier is not None else ():
        for task in config["tasks"][kind]:
            task["verifier"] = verifier
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    _write_manifest(run_dir, folder, {"verifier": verifier, "versions": versions})


def _write_manifest(run_dir: Path, folder: Path, facts: Mapping[str, Any]) -> None:
    manifest, log = read_record(run_dir / "manifest.json"), folder / "metrics.jsonl"
    lines = {(r["iteration"], r["policy"]): r for r in read_metrics(folder) if not r["step"]}
    phases: dict[str, Any] = {RESCORED_KEY: {"from": str(run_dir.resolve()), **facts}}
    for key, result in manifest["phases"].items():
        iteration, phase, *policy = key.split("/", 2)
        phases[key] = result
        if phase == "evaluate":
            line = lines[int(iteration), policy[0]]
            result["metrics"] = {name: line[f"evaluate/{name}"] for name in result["metrics"]}
        elif "path" in result:
            result["path"] = str((run_dir / result["path"]).resolve())
    manifest |= {"phases": phases, "in_progress": None, LOGGED_KEY: logged_mark(log)}
    write_record(folder / "manifest.json", manifest)
