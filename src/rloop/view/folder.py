"""The runs below a folder, found by name, read only: nothing outside it is reached, no link is
followed.
"""

import hashlib
import os
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rloop.errors import StoreError
from rloop.run_directory import FILES, Run, read_run
from rloop.store.index import GroupIndex
from rloop.view.questions import Questions

MAX_DEPTH = 3
"""Folders between the folder given and a run: `runs/sweep/NAME`."""
SMALL_FILES = (*FILES, "environment.json", "events.jsonl", "metrics.json", "expert")
MARKS = ("config.json", "manifest.json", "trajectories")
"""Any of them makes a folder a run directory."""


@dataclass(frozen=True, slots=True)
class Reading:
    """The small files of a run as they were at one moment; `problem` says what could not be read.

    Example: Reading(Run(...), "")
    """

    record: Run
    problem: str


class ViewedRun:
    """A run directory under its name in the folder; what was read is kept until files change."""

    def __init__(self, name: str, path: Path) -> None:
        """View a run; nothing is read yet."""
        self.name = name
        self.path = path
        self.index = GroupIndex(path)
        self.questions = Questions()
        self._lock = threading.Lock()
        self._seen: tuple[str, Reading] | None = None

    @property
    def signature(self) -> str:
        """Return what changes when a small file does: their sizes and times of change."""
        return _digest(_stat(self.path / name) for name in SMALL_FILES)

    @property
    def content(self) -> str:
        """Return what changes when anything that a page shows does, as far as it is known."""
        files = (f"{file.key} {file.mtime_ns} {file.size}" for file in self.index.files.values())
        return _digest([self.signature, str(self.index.num_waiting), *files])

    @property
    def changed_s(self) -> float:
        """Return when the run last wrote, in seconds since 1970."""
        paths = [self.path / name for name in (*SMALL_FILES, "trajectories")]
        times = [_stat(path)[0] for path in paths]
        return max(times, default=0) / 1e9

    def find_link(self) -> Path | None:
        """Return a link in the run, which readers of whole folders would follow; None without."""
        folders = [self.path / "trajectories", self.path / "expert"]
        for folder in folders:
            for place, names, files in os.walk(folder):
                for name in (*names, *files):
                    if os.path.islink(os.path.join(place, name)):
                        return Path(place, name)
        return next((folder for folder in folders if folder.is_symlink()), None)

    def read(self) -> Reading:
        """Return the run's small files; what is damaged is said, not raised."""
        with self._lock:
            signature = self.signature
            if self._seen is None or self._seen[0] != signature:
                self._seen = (signature, self._read())
            return self._seen[1]

    def _read(self) -> Reading:
        empty = Run(directory=self.path)
        links = [name for name in SMALL_FILES if (self.path / name).is_symlink()]
        if links:
            return Reading(empty, f"{links[0]} is a link, and links are not followed.")
        try:
            return Reading(read_run(self.path), "")
        except (StoreError, OSError) as error:
            if (self.path / "trajectories").exists() and not _has(self.path, FILES):
                return Reading(empty, "There are trajectories, but nothing that says what ran.")
            return Reading(empty, str(error))


class Folder:
    """The folder that was given, and the runs that are in it now."""

    def __init__(self, root: Path) -> None:
        """View a folder; StoreError where there is none."""
        if not root.is_dir():
            raise StoreError(f"{root} is not a directory; name a run, or a folder of runs.")
        self.root = root.resolve()
        self._runs: dict[str, ViewedRun] = {}
        self._lock = threading.Lock()

    @property
    def is_run(self) -> bool:
        """Whether the folder itself is a run directory."""
        return _has(self.root, MARKS)

    def runs(self) -> dict[str, ViewedRun]:
        """Return the runs there are by name, the one that wrote last comes first."""
        with self._lock:
            found = dict(self._find())
            kept = {name: run for name, run in self._runs.items() if found.get(name) == run.path}
            self._runs = kept | {
                name: ViewedRun(name, path) for name, path in found.items() if name not in kept
            }
            runs = sorted(self._runs.values(), key=lambda run: run.changed_s, reverse=True)
        return {run.name: run for run in runs}

    def _find(self) -> Iterator[tuple[str, Path]]:
        if self.is_run:
            yield self.root.name, self.root
            return
        folders = [(self.root, 0)]
        while folders:
            folder, depth = folders.pop()
            for entry in _folders_in(folder):
                if _has(entry, MARKS):
                    yield entry.relative_to(self.root).as_posix(), entry
                elif depth + 1 < MAX_DEPTH:
                    folders.append((entry, depth + 1))


def _folders_in(folder: Path) -> list[Path]:
    """Return the folders in a folder that are no links and not hidden."""
    try:
        with os.scandir(folder) as entries:
            return [
                Path(entry.path)
                for entry in entries
                if entry.is_dir(follow_symlinks=False) and not entry.name.startswith(".")
            ]
    except OSError:
        # Gone since, or not ours to read: then there is no run to show.
        return []


def _has(folder: Path, names: tuple[str, ...]) -> bool:
    return any((folder / name).exists() for name in names)


def _stat(path: Path) -> tuple[int, int]:
    """Return a file's time of change (ns) and size; zeros for one that is not there."""
    try:
        status = os.stat(path, follow_symlinks=False)
    except OSError:
        return 0, 0
    return status.st_mtime_ns, status.st_size


def _digest(parts: Iterator[Any] | list[str]) -> str:
    text = "\n".join(map(str, parts))
    return hashlib.blake2b(text.encode(), digest_size=12).hexdigest()
