"""The runs below a folder, found by name, read only: nothing outside it is reached, no link is
followed. What was read is kept until the files change.
"""

import hashlib
import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from rloop.errors import StoreError
from rloop.report.charts import Figure
from rloop.report.held_out import read_held_out
from rloop.report.sections import run_figures
from rloop.report.tables import task_tables
from rloop.run_directory import FILES, Run, is_run, read_run
from rloop.store.index import GroupIndex
from rloop.store.trajectories import TrajectoryStore

MAX_DEPTH = 3
"""Folders between the folder given and a run: `runs/sweep/NAME`."""
SMALL_FILES = (*FILES, "environment.json", "events.jsonl", "expert")
MARKS = ("config.json", "manifest.json", "trajectories")
"""Any of them makes a folder a run directory."""
HEADINGS = {
    "learning": "Learning",
    "exploration": "Exploration",
    "pass_curves": "pass@k",
    "forgetting": "Forgetting",
    "selection": "Expert set and fine-tuning",
    "cost": "Cost",
}
"""Sections of the report's charts, what changes most first."""

Sections = Sequence[tuple[str, list[Figure]]]
"""Figures under their headings."""


class ViewedRun:
    """A run directory under its name in the folder."""

    def __init__(self, name: str, path: Path) -> None:
        """View a run; nothing is read yet."""
        self.name = name
        self.path = path
        self.index = GroupIndex(path)
        self._lock = threading.Lock()
        self._drawing = threading.Lock()
        self._read: tuple[str, Run, str] | None = None
        self._drawn: tuple[str, Sections, str] | None = None

    @property
    def changed_s(self) -> float:
        """Return when the run last wrote, in seconds since 1970."""
        paths = [self.path / name for name in (*SMALL_FILES, "trajectories")]
        return max(_stat(path)[0] for path in paths) / 1e9

    def read(self) -> tuple[Run, str]:
        """Return the run as it is now, and what of it cannot be read; nothing is raised."""
        with self._lock:
            signature = self._signature()
            if self._read is None or self._read[0] != signature:
                self._read = (signature, *self._open())
            return self._read[1:]

    def charts(self) -> tuple[Sections, str]:
        """Return the report's charts of the run, and why some are missing."""
        # The other pages do not wait for charts, which take their time.
        with self._drawing:
            signature = self._signature()
            run, problem = self.read()
            if self._drawn is None or self._drawn[0] != signature:
                sections: Sections = ()
                try:
                    if (link := self._find_link()) is not None:
                        raise StoreError(
                            f"{link.name} is a symbolic link, and links are not followed."
                        )
                    sections = _sections(run)
                except StoreError as error:
                    problem = str(error)
                self._drawn = (signature, sections, problem)
            return self._drawn[1:]

    def _signature(self) -> str:
        """Return what changes when a small file does: their sizes and times of change."""
        text = "\n".join(str(_stat(self.path / name)) for name in SMALL_FILES)
        return hashlib.blake2b(text.encode(), digest_size=12).hexdigest()

    def _open(self) -> tuple[Run, str]:
        empty = Run(directory=self.path)
        links = [name for name in SMALL_FILES if (self.path / name).is_symlink()]
        if links:
            return empty, f"{links[0]} is a symbolic link, and links are not followed."
        try:
            return read_run(self.path), ""
        except (StoreError, OSError) as error:
            if (self.path / "trajectories").exists() and not is_run(self.path):
                return empty, "There are trajectories, but no config.json that says what ran."
            return empty, str(error)

    def _find_link(self) -> Path | None:
        """Return a link in the run, which readers of whole folders would follow; None without."""
        folders = [self.path / "trajectories", self.path / "expert"]
        for folder in folders:
            for place, names, files in os.walk(folder):
                for name in (*names, *files):
                    if os.path.islink(os.path.join(place, name)):
                        return Path(place, name)
        return next((folder for folder in folders if folder.is_symlink()), None)


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
        return _is_marked(self.root)

    def runs(self) -> Mapping[str, ViewedRun]:
        """Return the runs there are by name, the one that wrote last comes first."""
        with self._lock:
            found = dict(self._find())
            kept = {name: run for name, run in self._runs.items() if found.get(name) == run.path}
            new = {name: ViewedRun(name, path) for name, path in found.items() if name not in kept}
            self._runs = kept | new
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
                if _is_marked(entry):
                    yield entry.relative_to(self.root).as_posix(), entry
                elif depth + 1 < MAX_DEPTH:
                    folders.append((entry, depth + 1))


def _sections(run: Run) -> Sections:
    store, tasks = TrajectoryStore(run.directory), read_held_out(run)
    found = run_figures(run, store, task_tables(run), tasks, {})
    return [(title, found[name]) for name, title in HEADINGS.items() if found[name]]


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


def _is_marked(folder: Path) -> bool:
    return any((folder / name).exists() for name in MARKS)


def _stat(path: Path) -> tuple[int, int]:
    """Return a file's time of change (ns) and size; zeros for one that is not there."""
    try:
        status = os.stat(path, follow_symlinks=False)
    except OSError:
        return 0, 0
    return status.st_mtime_ns, status.st_size
