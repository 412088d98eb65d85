"""Copies out of a run directory: a policy anyone can load, or the trajectories as one file."""

import shutil
from pathlib import Path

import duckdb

from rloop.errors import ConfigError, StoreError
from rloop.loop.state import Manifest
from rloop.store.trajectories import open_store

FORMATS = {".parquet": "parquet", ".csv": "csv", ".jsonl": "json"}


def export_policy(run_dir: Path, directory: Path, name: str | None = None) -> Path:
    """Copy the policy of that name to a new directory and return where it came from.

    Without a name it is the last one that the run finished.
    """
    policies = finished_policies(run_dir)
    if not policies:
        raise StoreError(f"{run_dir} has no finished policy to export.")
    if name is not None and name not in policies:
        raise ConfigError(f"{run_dir} has no policy {name!r}; it has {', '.join(policies)}.")
    if directory.exists() and not directory.is_dir():
        raise ConfigError(f"{directory} is a file. Choose another directory.")
    if directory.exists() and any(directory.iterdir()):
        raise ConfigError(f"{directory} is not empty. Choose another directory.")
    source = policies[name or list(policies)[-1]]
    try:
        shutil.copytree(source, directory, dirs_exist_ok=True)
    except OSError as error:
        # copytree gathers what failed as (source, target, reason).
        reason = error.args[0][0][-1] if isinstance(error, shutil.Error) else error.strerror
        raise StoreError(
            f"{source} could not be copied to {directory} ({reason}). Choose another directory."
        ) from error
    return source


def finished_policies(run_dir: Path) -> dict[str, Path]:
    """Return the policies that lie in the run's directory, by name, in the order they were made."""
    manifest = Manifest(run_dir)
    results = [manifest.result(key) or {} for key in manifest.completed()]
    named = {str(r["policy"]): run_dir / str(r["path"]) for r in results if "policy" in r}
    return {name: path for name, path in named.items() if path.is_dir()}


def export_trajectories(run_dir: Path, file: Path) -> int:
    """Write every trajectory to a new .parquet, .jsonl or .csv file; return how many."""
    if file.suffix not in FORMATS:
        raise ConfigError(f"{file} must end in one of {', '.join(FORMATS)}.")
    if file.exists():
        raise ConfigError(f"{file} exists. Choose another name.")
    rows = open_store(run_dir).query("select * from trajectories")
    target = str(file).replace("'", "''")
    with duckdb.connect() as connection:
        connection.register("rows", rows)
        try:
            connection.execute(f"copy rows to '{target}' (format {FORMATS[file.suffix]})")
        except duckdb.IOException as error:
            raise StoreError(f"{file} could not be written: {error}") from error
    return int(rows.num_rows)
