"""Runs on a full disk: a file system of a few kilobytes, or a limit on what a file may hold."""

import os
import resource
import shutil
import subprocess
import sys
from pathlib import Path

from doubles_kill import files, go
from doubles_runs import BuildEngine

from rloop.errors import RLoopError
from rloop.recipe.config import Recipe


class SmallDisk:
    """A tmpfs of a chosen size; only root may mount one."""

    def __init__(self, folder: Path) -> None:
        """Mount at the folder; `is_there` tells whether that was allowed."""
        self.folder = folder
        folder.mkdir()
        self.is_there = self._mount("size=16k")

    def resize(self, kilobytes: int) -> None:
        """Make it larger or smaller, its files untouched."""
        assert self._mount(f"remount,size={kilobytes}k"), f"{self.folder} cannot be resized"

    def close(self) -> None:
        """Unmount it."""
        if self.is_there:
            subprocess.run(["umount", "--lazy", str(self.folder)], check=True)

    def _mount(self, options: str) -> bool:
        command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(self.folder)]
        is_allowed = shutil.which("mount") is not None and os.geteuid() == 0
        return (
            is_allowed and not subprocess.run(command, capture_output=True, check=False).returncode
        )


def go_limited(log: Path, recipe: Recipe, run_dir: Path, build: BuildEngine, limit: int) -> None:
    """Begin a run, or go on with it, in a process whose files may have so many bytes."""
    sys.stdout = sys.stderr = log.open("a", buffering=1)
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        # The log is a file too: what fails is told after the limit is lifted.
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
        code = go(recipe, run_dir, build)
    except RLoopError as error:
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
        sys.stderr.write(f"{error}\n")
        code = 1
    sys.exit(code)


def remains(run_dir: Path) -> list[str]:
    """Return the names of files that a write left half done."""
    return [name for name in files(run_dir) if name.endswith(".tmp") or ".partial" in name]
