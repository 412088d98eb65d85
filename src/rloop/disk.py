"""Files that are written whole or not at all, and what is said when there is no room for them.

A file is written under its name and `.tmp`, reaches the disk, and is renamed; then the folder
reaches the disk as well, so that the rename outlasts a power cut. Knows nothing of what is inside.
"""

import errno
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from rloop.errors import ConfigError, StoreError

FULL = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk quota is used up",
    errno.EFBIG: "no file may be that large here (`ulimit -f`, or the file system)",
}
"""Errors that more room mends, in words."""


@contextmanager
def written_whole(path: Path, run_dir: Path) -> Iterator[BinaryIO]:
    """Yield a file to write and read; it becomes `path` when the block ends well.

    An old file is replaced, a failure leaves it as it was. StoreError when there is no room: it
    tells how `run_dir` goes on.
    """
    temporary = path.with_name(f"{path.name}.tmp")
    try:
        with temporary.open("w+b") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        sync_folder(path.parent)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise_if_full(error, path, run_dir)
        raise


@contextmanager
def new_path(target: Path) -> Iterator[Path]:
    """Yield a path to write a file or a folder at; it becomes `target` when all went well."""
    if target.exists():
        raise ConfigError(f"{target} exists. Choose another name.")
    if not target.parent.is_dir():
        raise StoreError(f"{target} could not be written: there is no folder {target.parent}.")
    with tempfile.TemporaryDirectory(prefix=".export-", dir=target.parent) as folder:
        temporary = Path(folder) / target.name
        yield temporary
        temporary.rename(target)


def write_text(path: Path, text: str, run_dir: Path | None = None) -> None:
    """Write a small file as `written_whole` does; `run_dir` is its folder when absent."""
    with written_whole(path, run_dir or path.parent) as file:
        file.write(text.encode())


def raise_if_full(error: OSError, path: Path, run_dir: Path) -> None:
    """Raise StoreError when the error says that there is no room; else do nothing."""
    if error.errno in FULL:
        free = shutil.disk_usage(path.parent).free
        raise StoreError(
            f"{path} could not be written: {FULL[error.errno]} ({free:,} bytes free). Free some "
            f"space; `rloop resume {run_dir}` continues."
        ) from error


def sync_folder(folder: Path) -> None:
    """Make renames in a folder outlast a power cut."""
    number = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)
