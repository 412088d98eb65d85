"""Damaged files moved away, so that a run can continue without them.

They move to `RUN/.damaged/` under their own names and are never deleted. What can be made again (an
evaluation of a policy that is kept, a selection) is removed from the manifest, so that `rloop
resume` makes it again. RL steps cannot be made again; the manifest counts what is left of them.
"""

import json
import zlib
from collections.abc import Sequence
from pathlib import Path

from rloop.disk import write_text
from rloop.loop.manifest import RunLock
from rloop.store.index import StepFile, list_step_files
from rloop.store.records import EVALUATION_KEY, LOGGED_KEY, Record, read_record, write_record
from rloop.store.trajectories import TrajectoryStore
from rloop.store.verify import DAMAGED, Issue


def quarantine(run_dir: Path, issues: Sequence[Issue]) -> list[str]:
    """Move the damaged files that a verification found; return a sentence for each.

    Other files (a manifest, weights) can only come from a backup, and stay where they are.
    """
    damaged = sorted({run_dir / issue.file for issue in issues if issue.is_damaged})
    messages = []
    with RunLock(run_dir):
        manifest = read_record(run_dir / "manifest.json")
        steps = {file.path: file for file in list_step_files(run_dir / "trajectories")}
        for path in damaged:
            if path.name == "metrics.jsonl":
                messages.append(_mend_log(run_dir, manifest))
                continue
            _move(run_dir, path)
            name = path.relative_to(run_dir)
            if path in steps:
                messages.append(f"{name}: {_forget_step(run_dir, manifest, steps[path])}")
            else:
                iteration = int(path.stem.removesuffix("-problems").removeprefix("iter-"))
                manifest["phases"].pop(f"{iteration}/select", None)
                messages.append(f"{name}: `rloop resume` selects it again.")
        write_record(run_dir / "manifest.json", manifest)
    return messages


def _forget_step(run_dir: Path, manifest: Record, file: StepFile) -> str:
    """Update the manifest after a file is gone; return what happens to its rows."""
    phases, point = manifest["phases"], manifest["in_progress"] or {}
    if file.phase == "explore":
        key = f"{file.iteration}/explore"
        facts = point if point.get("key") == key else phases.get(key)
        if facts is None or file.step > facts.get("step", file.step):
            return "`rloop resume` samples it again."
        store = TrajectoryStore(run_dir)
        last = int(facts["step"] if facts is point else facts["steps"])
        counts = [
            store.count(iteration=file.iteration, phase="explore", step=step)
            for step in range(1, last + 1)
        ]
        facts["trajectories"] = sum(counts)
        return "these trajectories are lost; the run continues without them."
    key = _evaluation(manifest, file)
    if (
        EVALUATION_KEY in phases
        or key == point.get("key")
        or _is_kept(run_dir, manifest, file, key)
    ):
        phases.pop(key, None)
        return "`rloop resume` samples these problems again."
    return (
        "these samples are lost (the policy was not kept, so they cannot be sampled again); "
        "metrics.jsonl has the results."
    )


def _evaluation(manifest: Record, file: StepFile) -> str:
    """Return the key of the evaluation that a file is part of; its part is `POLICY-TASK`."""
    keys = [*manifest["phases"], str((manifest["in_progress"] or {}).get("key"))]
    names = [key for key in keys if f"{file.iteration}/evaluate/{file.part}".startswith(f"{key}-")]
    return max(names, key=len, default="")


def _is_kept(run_dir: Path, manifest: Record, file: StepFile, key: str) -> bool:
    """Whether the policy of an evaluation still exists, so that it can be measured again."""
    policy = key.rpartition("/")[2]
    results = manifest["phases"].values()
    paths = [result["path"] for result in results if result.get("policy") == policy]
    return file.step == 0 and any((run_dir / path).is_dir() for path in paths if path)


def _mend_log(run_dir: Path, manifest: Record) -> str:
    """Keep the readable lines and record them in the manifest."""
    path = run_dir / "metrics.jsonl"
    data = path.read_bytes() if path.exists() else b""
    kept, point = _readable(data), manifest["in_progress"]
    if manifest.get(LOGGED_KEY):
        logged = _readable(data[: manifest[LOGGED_KEY]["bytes"]])
        manifest[LOGGED_KEY] = {"bytes": len(logged), "crc32": zlib.crc32(logged)}
    if point:
        point["metrics_position"] = len(_readable(data[: point["metrics_position"]]))
    if path.exists():
        _move(run_dir, path)
    write_text(path, kept.decode())
    num_lines = len(data.splitlines())
    return (
        f"metrics.jsonl: {len(kept.splitlines())} of {num_lines} lines can be read and are "
        "kept; numbers in them may be wrong, and reports show no others."
    )


def _readable(data: bytes) -> bytes:
    """Return the lines that are complete JSON objects."""

    def is_object(line: bytes) -> bool:
        try:
            return line.endswith(b"\n") and isinstance(json.loads(line), dict)
        except (ValueError, RecursionError):
            return False

    return b"".join(line for line in data.splitlines(keepends=True) if is_object(line))


def _move(run_dir: Path, path: Path) -> None:
    """Move a file below `.damaged`, with a number if the name is taken."""
    target = run_dir / DAMAGED / path.relative_to(run_dir)
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.exists():
        target.rename(target.with_name(f"{target.name}.{len(list(target.parent.iterdir()))}"))
    path.rename(target)
