"""Damaged files put away, so that a run goes on without them: what is lost, what is done again.

They move to `RUN/.damaged/`, never deleted. What can be made again from what is left (an
evaluation of a policy that is kept, a selection) is forgotten by the manifest, so `rloop resume`
makes it again; what cannot (a step of RL) is recorded there as lost, so that counts stay true.
"""

import json
import zlib
from collections.abc import Iterator, Sequence
from itertools import accumulate
from pathlib import Path

from rloop.disk import write_text
from rloop.loop.state import RunLock
from rloop.observe.run_log import read_metrics
from rloop.store.findings import Finding
from rloop.store.index import StepFile, list_step_files
from rloop.store.records import LOGGED_KEY, Record, read_record, write_record
from rloop.store.verify_files import DAMAGED

STANDALONE = "0/evaluation"
"""Phase of a manifest that `rloop eval` wrote: one evaluation, of a policy that is elsewhere."""


def set_aside(run_dir: Path, found: Sequence[Finding]) -> list[str]:
    """Move the damaged files of a verification away; return a sentence for each.

    Files of other kinds (a manifest, weights) come back from a backup alone, and are left where
    they are.
    """
    damaged = {run_dir / finding.file for finding in found if finding.is_damaged}
    said = []
    with RunLock(run_dir):
        manifest = read_record(run_dir / "manifest.json")
        steps = {file.path: file for file in list_step_files(run_dir / "trajectories")}
        if run_dir / "metrics.jsonl" in damaged:
            said.append(_mend_log(run_dir, manifest))
        for path in sorted(damaged - {run_dir / "metrics.jsonl"}):
            if path in steps:
                said += _forget_step(run_dir, manifest, steps[path])
            elif path.parent.name == "expert":
                said.append(_forget_selection(manifest, path))
            else:
                continue
            _move(run_dir, path)
        # Last: what is forgotten is done again, whether or not its file had been moved by then.
        write_record(run_dir / "manifest.json", manifest)
    return said


def _forget_step(run_dir: Path, manifest: Record, file: StepFile) -> Iterator[str]:
    point = manifest["in_progress"] or {}
    name = file.path.relative_to(run_dir)
    is_ahead = point.get("key") == f"{file.iteration}/explore" and file.step > point["step"]
    if is_ahead or _is_in_progress(point, file):
        yield f"{name}: `rloop resume` samples it again."
        return
    if file.phase == "explore":
        key = f"{file.iteration}/explore"
        count = _lose(run_dir, manifest, key, file)
        yield (
            f"{name}: the {count:,} trajectories of step {file.step} are lost; the run goes on "
            "without them."
        )
        return
    key, policy = _evaluation(manifest, file)
    is_alone = STANDALONE in manifest["phases"]
    if is_alone or (file.step == 0 and policy is not None and (run_dir / policy).is_dir()):
        manifest["phases"].pop(key, None)
        yield f"{name}: `rloop resume` samples these problems again and measures {key} anew."
        return
    _lose(run_dir, manifest, key, file)
    yield (
        f"{name}: these samples are lost, their policy is not kept; metrics.jsonl has what was "
        "measured."
    )


def _is_in_progress(point: Record, file: StepFile) -> bool:
    """Whether the file belongs to an evaluation that has not ended."""
    prefix = f"{file.iteration}/evaluate/"
    policy = str(point.get("key")).removeprefix(prefix)
    is_evaluation = file.phase == "evaluate" and str(point.get("key")).startswith(prefix)
    return is_evaluation and file.part.startswith(f"{policy}-")


def _evaluation(manifest: Record, file: StepFile) -> tuple[str, str | None]:
    """Return the key of the evaluation that a file is part of, and where its policy lies.

    A file's part is `POLICY-TASK`, and both may hold hyphens.
    """
    phases = manifest["phases"]
    kept = {r["policy"]: r["path"] for r in phases.values() if {"policy", "path"} <= r.keys()}
    measured = [key.split("/", 2)[2] for key in phases if key.startswith("0/evaluate/")]
    names = [name for name in (*kept, *measured) if file.part.startswith(f"{name}-")]
    policy = max(names, key=len, default=file.part)
    return f"{file.iteration}/evaluate/{policy}", kept.get(policy)


def _lose(run_dir: Path, manifest: Record, key: str, file: StepFile) -> int:
    """Record a file as lost, with what the log says was in it; return its number of rows."""
    phase, _, policy = key.partition("/")[2].partition("/")
    line: Record = {}
    for row in read_metrics(run_dir):
        place = (row["iteration"], row["phase"], row["step"])
        if place == (file.iteration, phase, file.step) and policy in ("", row["policy"]):
            line = row
    count = int(line.get("explore/trajectories_count", 0))
    entry = {
        "key": key,
        "file": str(file.path.relative_to(run_dir)),
        "step": file.step,
        "sampled_tokens": int(line.get("explore/sampled_tokens_count", 0)),
        "trajectories": count,
    }
    manifest["lost"] = [*manifest.get("lost", ()), entry]
    return count


def _forget_selection(manifest: Record, path: Path) -> str:
    iteration = int(path.stem.removesuffix("-problems").removeprefix("iter-"))
    manifest["phases"].pop(f"{iteration}/select", None)
    return f"expert/{path.name}: `rloop resume` selects it again from the trajectories."


def _mend_log(run_dir: Path, manifest: Record) -> str:
    """Keep the lines that can be read; the manifest vouches for those from now on."""
    path = run_dir / "metrics.jsonl"
    lines = path.read_bytes().splitlines(keepends=True) if path.exists() else []
    kept = [line for line in lines if line.endswith(b"\n") and _is_object(line)]

    def still(position: int) -> int:
        """Return where a position in the old log is in the new one (bytes)."""
        ends = accumulate(map(len, lines))
        before = [line for line, end in zip(lines, ends, strict=True) if end <= position]
        return sum(map(len, (line for line in before if line in kept)))

    text = b"".join(kept)
    if manifest.get(LOGGED_KEY):
        size = still(manifest[LOGGED_KEY]["bytes"])
        manifest[LOGGED_KEY] = {"bytes": size, "crc32": zlib.crc32(text[:size])}
    if manifest["in_progress"]:
        point = manifest["in_progress"]
        manifest["in_progress"] = {**point, "metrics_position": still(point["metrics_position"])}
    if path.exists():
        _move(run_dir, path)
    write_text(path, text.decode())
    return (
        f"metrics.jsonl: {len(kept)} of the {len(lines)} lines that are left can be read and are "
        "kept; numbers in them may be wrong, and reports show no others."
    )


def _is_object(line: bytes) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except (ValueError, RecursionError):
        return False


def _move(run_dir: Path, path: Path) -> None:
    aside = run_dir / DAMAGED / path.relative_to(run_dir)
    aside.parent.mkdir(parents=True, exist_ok=True)
    times = len(list(aside.parent.glob(f"{path.name}.*")))
    path.rename(aside.with_name(f"{path.name}.{times + 1}"))
