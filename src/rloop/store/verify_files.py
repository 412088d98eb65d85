"""The files of a run besides its trajectories: small ones, policies, and what is left over."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from rloop.errors import StoreError
from rloop.observe.run_log import read_lines
from rloop.store.expert import EXAMPLES, VERSION_KEY
from rloop.store.findings import Findings
from rloop.store.parquet import read_checked
from rloop.store.records import Record, check_logged, read_object, read_record

DAMAGED = ".damaged"
"""Folder of a run directory: what was set aside because it cannot be read."""
SMALL, POLICIES = "small files", "weight files of policies and states"


@dataclass(frozen=True, slots=True, kw_only=True)
class SmallFiles:
    """What a run recorded about itself; empty where a file is missing or damaged.

    Example: SmallFiles(config={"seed": 0}, manifest={"phases": {}}, metrics=[])
    """

    config: Record
    manifest: Record
    metrics: list[Record]

    @property
    def phases(self) -> dict[str, Any]:
        """Complete phases and what each produced."""
        return dict(self.manifest.get("phases", {}))

    @property
    def point(self) -> Record:
        """The saved point of the phase in progress."""
        return self.manifest.get("in_progress") or {}

    def explorations(self) -> Iterator[tuple[str, Record]]:
        """Yield complete explorations, and the one in progress up to its saved point."""
        for key, result in self.phases.items():
            if key.endswith("/explore"):
                yield key, result
        if str(self.point.get("key")).endswith("/explore"):
            yield self.point["key"], {**self.point, "steps": self.point["step"]}

    def lost(self, key: str) -> list[Record]:
        """Return what was set aside of an exploration for good: `step`, tokens, trajectories."""
        return [entry for entry in self.manifest.get("lost", ()) if entry["key"] == key]

    def is_lost(self, iteration: int, phase: str, step: int) -> bool:
        """Whether a file of this step was set aside for good."""
        found = self.lost(f"{iteration}/{phase}")
        return any(entry["step"] == step for entry in found)

    def lost_evaluation(self, iteration: int, step: int, policy: str) -> bool:
        """Whether a part of an evaluation was set aside for good."""
        found = self.lost(f"{iteration}/evaluate/{policy}")
        return any(entry["step"] == step for entry in found)

    def num_examples(self, run_dir: Path, iteration: int) -> int | None:
        """Return how many examples an expert set holds, by its footer; None where it is damaged."""
        path = run_dir / f"expert/iter-{iteration:03d}.parquet"
        try:
            return int(read_checked(path, EXAMPLES, VERSION_KEY).num_rows)
        except StoreError:
            return None


def read_small_files(run_dir: Path, findings: Findings) -> SmallFiles:
    """Read what a run recorded about itself; what is damaged is found."""

    def attempt(name: str, read: Callable[[Path], Any], nothing: Any) -> Any:  # noqa: ANN401
        path = run_dir / name
        if not path.exists():
            return nothing
        findings.count(SMALL)
        try:
            return read(path)
        except StoreError as error:
            said = str(error).removeprefix(str(path)).lstrip(" ,")
            findings.add(SMALL, name, said, is_damaged=name == "metrics.jsonl")
            return nothing

    manifest = attempt("manifest.json", read_record, {})
    config = attempt("config.json", read_object, {})
    attempt("environment.json", read_object, {})
    attempt("events.jsonl", read_lines, [])

    def logged(path: Path) -> list[Record]:
        check_logged(run_dir, manifest)
        return read_lines(path)

    return SmallFiles(
        config=config, manifest=manifest, metrics=attempt("metrics.jsonl", logged, [])
    )


def check_policies(run_dir: Path, small: SmallFiles, findings: Findings) -> None:
    """Check that every policy kept, and the saved state, has whole weights; no torch."""
    for key, result in small.phases.items():
        if not isinstance(result, dict) or "path" not in result or key == "0/evaluation":
            continue
        folder = run_dir / result["path"]
        if folder.is_dir():
            _check_weights(folder, str(result["path"]), findings)
        elif not _may_be_gone(key, small):
            findings.add(POLICIES, str(result["path"]), f"the policy of {key} is not there")
    state = small.point.get("state")
    if state is not None and not (run_dir / state).is_dir():
        findings.add(POLICIES, state, "the saved state that `rloop resume` needs is not there")
    elif state is not None:
        _check_weights(run_dir / state, state, findings)


def _may_be_gone(key: str, small: SmallFiles) -> bool:
    """Whether the recipe has the policy thrown away, or did when a later one was kept."""
    finetune = small.config.get("finetune")
    is_kept = small.config.get("keep_explored") or not finetune or finetune["init"] == "explored"
    iteration = int(key.partition("/")[0])
    later = any(int(other.partition("/")[0]) > iteration > 0 for other in small.phases)
    is_superseded = small.config.get("keep_policies") == "last" and later
    return is_superseded or (key.endswith("/explore") and not is_kept)


def _check_weights(folder: Path, name: str, findings: Findings) -> None:
    files = {path.name for path in folder.glob("*.safetensors")}
    index = folder / "model.safetensors.index.json"
    if index.exists():
        try:
            files |= set(read_object(index).get("weight_map", {}).values())
        except StoreError as error:
            findings.add(POLICIES, f"{name}/{index.name}", str(error))
    if not files and (folder / "config.json").exists():
        findings.add(POLICIES, name, "it has no weights (*.safetensors)")
    for file in sorted(files):
        findings.count(POLICIES)
        try:
            with safe_open(folder / file, framework="np") as weights:
                if not weights.keys():
                    findings.add(POLICIES, f"{name}/{file}", "it holds no weights")
        except (SafetensorError, OSError) as error:
            findings.add(POLICIES, f"{name}/{file}", f"it is torn or missing ({error})")


def check_leftovers(run_dir: Path, known: set[Path], findings: Findings) -> None:
    """List what nothing reads: strangers, what was set aside, and what a crash left behind."""
    root = run_dir / "trajectories"
    for path in sorted(root.glob("iteration=*/phase=*/*.parquet")):
        if path not in known:
            name = str(path.relative_to(run_dir))
            findings.add("trajectory files", name, "it is not named as rloop names its files")
    for folder, what in (
        (root / ".superseded", "sampled again after a resume, kept"),
        (run_dir / DAMAGED, "set aside as damaged"),
    ):
        files = [path for path in folder.rglob("*") if path.is_file()]
        if files:
            size = sum(path.stat().st_size for path in files)
            findings.leftovers.append(
                f"{folder.relative_to(run_dir)}: {len(files)} files, {size:,} bytes; {what}"
            )
    patterns = ("**/*.tmp", "**/.*.partial", "**/.*.old", ".export-*")
    for path in sorted({path for pattern in patterns for path in run_dir.glob(pattern)}):
        left = path.relative_to(run_dir)
        findings.leftovers.append(f"{left}: left by a crash; it can be deleted when nothing runs")
