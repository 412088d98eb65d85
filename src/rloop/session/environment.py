"""What a run ran on: versions, hardware, and the commit of the recipe's repository."""

import json
import os
import platform
import subprocess
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from rloop.disk import write_text
from rloop.recipe.config import Recipe
from rloop.store.records import read_object
from rloop.threads import allowed_cores

PACKAGES = (
    "rloop-rl",
    "torch",
    "transformers",
    "tokenizers",
    "safetensors",
    "mpmath",
    "reasoning-gym",
    "pyarrow",
    "duckdb",
    "numpy",
)


def environment(recipe_path: Path, recipe: Recipe | None = None) -> dict[str, Any]:
    """Return the content of `environment.json`; without a recipe, all installed packages count.

    The commit is that of the repository that contains `recipe_path`.
    """
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "machine": platform.machine(),
        "cores": allowed_cores(),
        "threads": os.environ.get("OMP_NUM_THREADS"),
        "packages": _versions(recipe),
        "git_commit": _git_commit(recipe_path.resolve().parent),
    }


def add_engine(path: Path, facts: Mapping[str, str]) -> None:
    """Write the engine's own facts (device, precision) into a run's `environment.json`."""
    found = read_object(path) if path.exists() else {}
    write_text(path, json.dumps(found | {"engine": dict(facts)}, indent=2) + "\n")


def _versions(recipe: Recipe | None) -> dict[str, str | None]:
    """Return rloop's packages, missing ones as null, and those that the engine adds."""
    added = ["vllm"] if recipe is None or recipe.explore.sampler != "native" else []
    found = {name: _version(name) for name in (*PACKAGES, *added)}
    return {name: known for name, known in found.items() if known or name in PACKAGES}


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _git_commit(folder: Path) -> str | None:
    """Return the commit of the recipe's folder, with `-dirty` if files differ from it."""
    try:
        found = subprocess.run(
            ["git", "-C", str(folder), "describe", "--always", "--dirty", "--abbrev=12"],
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return found.stdout.strip() or None
