"""The manifest: which phases are complete and what each produced, replaced atomically.

A phase is complete when the manifest has its key (`2/finetune`) with its result. A resumed run
looks here first and redoes nothing. The resolved recipe is here too, so that a change is noticed. A
lock keeps a second process out of the run directory.
"""

import fcntl
import os
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any, Self

from rloop.errors import StoreError
from rloop.store.records import (
    EVALUATION_KEY,
    LOGGED_KEY,
    check_logged,
    read_record,
    write_record,
)

VERSION = 1
PREPARATION = ("0/prepare", "0/problems", EVALUATION_KEY)
"""The keys of what a run does before it computes anything."""


class Manifest:
    """Results of complete phases and the saved point of the one in progress."""

    def __init__(self, run_dir: Path) -> None:
        """Read `manifest.json` if there is one."""
        self._path = run_dir / "manifest.json"
        self._data: dict[str, Any] = {
            "version": VERSION,
            "recipes": [],
            "phases": {},
            "in_progress": None,
        }
        if self._path.exists():
            self._data = _read_manifest(self._path)

    def result(self, key: str) -> Mapping[str, Any] | None:
        """Return what the phase produced; None if it is not complete."""
        found: Mapping[str, Any] | None = self._data["phases"].get(key)
        return found

    def complete(
        self, key: str, result: Mapping[str, Any], *, logged: Mapping[str, int] | None = None
    ) -> None:
        """Record a phase as complete; nothing is in progress any more.

        `logged` is the mark of metrics.jsonl (`store.records.logged_mark`); nothing before it is
        removed any more.
        """
        self._data["phases"][key] = dict(result)
        self._data["in_progress"] = None
        if logged is not None:
            self._data[LOGGED_KEY] = dict(logged)
        self._write()

    def check_logged(self) -> None:
        """Raise StoreError unless metrics.jsonl holds what the complete phases wrote to it."""
        check_logged(self._path.parent, self._data)

    @property
    def phases(self) -> Mapping[str, Mapping[str, Any]]:
        """What each complete phase produced, by key."""
        phases: Mapping[str, Mapping[str, Any]] = self._data["phases"]
        return phases

    def completed(self) -> list[str]:
        """Return the keys of complete phases in the order in which they ended."""
        return list(self._data["phases"])

    @property
    def in_progress(self) -> Mapping[str, Any] | None:
        """The saved point inside a phase: `key`, `step`, `state`, `metrics_position`."""
        point: Mapping[str, Any] | None = self._data["in_progress"]
        return point

    @property
    def has_begun(self) -> bool:
        """Whether the run has got beyond its preparation, so that there is something to keep."""
        return self.in_progress is not None or any(k not in PREPARATION for k in self.completed())

    @property
    def is_evaluation(self) -> bool:
        """Whether `rloop eval` began the directory, not `rloop run`."""
        return EVALUATION_KEY in self.phases

    @property
    def recipes(self) -> list[dict[str, Any]]:
        """Every resolved recipe that the run has had, the current one last."""
        return [entry["recipe"] for entry in self._data.get("recipes", ())]

    def record_recipe(self, recipe: Mapping[str, Any]) -> None:
        """Change the current recipe, and record after which phase."""
        entry = {"after": next(reversed(self.completed()), None), "recipe": dict(recipe)}
        self._data["recipes"] = [*self._data.get("recipes", ()), entry]
        self._write()

    def save_point(self, point: Mapping[str, Any]) -> None:
        """Record a point inside a phase that a resumed run continues from."""
        self._data["in_progress"] = dict(point)
        self._write()

    def _write(self) -> None:
        write_record(self._path, self._data)


def _read_manifest(path: Path) -> dict[str, Any]:
    data = read_record(path)
    if data.get("version") != VERSION:
        raise StoreError(
            f"{path} has version {data.get('version')}, this rloop reads version {VERSION}. "
            "Resume with the rloop that began the run."
        )
    if not isinstance(data.get("phases"), dict) or "in_progress" not in data:
        raise StoreError(f"{path} lacks its phases; restore it from a backup.")
    return data


class RunLock:
    """Holds a run directory for this process; the kernel frees it when the process ends.

    So there is no stale lock: the file stays, and a dead process holds nothing.
    """

    def __init__(self, run_dir: Path) -> None:
        """Take the lock, or raise StoreError naming the process that holds it."""
        self._file: IO[str] = (run_dir / ".lock").open("a+")
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            self._file.seek(0)
            holder = self._file.read().strip() or "unknown"
            self._file.close()
            raise StoreError(
                f"{run_dir} is in use by process {holder}. Wait for it, or stop it first."
            ) from error
        self._file.truncate(0)
        self._file.write(str(os.getpid()))
        self._file.flush()

    def release(self) -> None:
        """Release the directory."""
        self._file.close()

    def __enter__(self) -> Self:
        """Return the lock, which is already held."""
        return self

    def __exit__(self, *_: object) -> None:
        """Give the directory free."""
        self.release()
