"""A run as a process: a fresh or resumed run directory, its tools built, used and closed, its exit code."""

import json
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from importlib import metadata
from pathlib import Path
from typing import Any

from rloop.config import Recipe
from rloop.engines.base import Engine, Verify
from rloop.errors import ConfigError, DegenerateRun, EngineUnavailable, StoreError
from rloop.loop.context import Context
from rloop.loop.interrupt import Interrupt, Interrupted
from rloop.loop.phases import Phases
from rloop.loop.run import run_loop
from rloop.loop.state import Manifest, RunLock, write_whole
from rloop.observe.console import Console
from rloop.observe.run_log import RunLog
from rloop.recipe import load_recipe, resolved_json
from rloop.store.trajectories import TrajectoryStore
from rloop.tasks.pool import VerifierPool
from rloop.tasks.tasks import Tasks, load_tasks
from rloop.types import stable_hash

PACKAGES = ("rloop-rl", "torch", "transformers", "safetensors", "tokenizers", "math-verify")
PACKAGES += ("reasoning-gym", "pyarrow", "duckdb", "numpy")


def start(recipe_path: Path, recipe: Recipe, run_dir: Path) -> int:
    """Begin a run in an empty or new directory; return its exit code."""
    if run_dir.exists() and any(run_dir.iterdir()):
        raise ConfigError(
            f"{run_dir} is not empty. Continue it with `rloop resume {run_dir}`, or choose another --out."
        )
    run_dir.mkdir(parents=True, exist_ok=True)
    write_whole(run_dir / "config.json", resolved_json(recipe))
    shutil.copyfile(recipe_path, run_dir / "recipe.yaml")
    write_whole(run_dir / "environment.json", json.dumps(environment(), indent=2) + "\n")
    return _work(recipe, run_dir, Console())


def resume(run_dir: Path) -> int:
    """Continue an interrupted run from its last saved point; return its exit code."""
    config = run_dir / "config.json"
    if not config.exists():
        raise StoreError(f"{run_dir} holds no run (no config.json). Begin one with `rloop run`.")
    recipe = Recipe.model_validate_json(config.read_text())
    console = Console()
    manifest = Manifest(run_dir)
    console.say(f"Skipping what is complete: {', '.join(manifest.completed()) or 'nothing'}.")
    point = manifest.in_progress
    if point is not None:
        console.say(f"Continuing {point['key']} after step {point['step']}.")
    return _work(recipe, run_dir, console)


def _work(recipe: Recipe, run_dir: Path, console: Console) -> int:
    with ExitStack() as stack:
        lock = RunLock(run_dir)
        stack.callback(lock.release)
        interrupt = Interrupt(console.say)
        stack.callback(interrupt.restore)
        try:
            with _context(recipe, run_dir, console, interrupt) as context:
                run_loop(Phases(context))
        except (Interrupted, KeyboardInterrupt):
            console.say(f"Interrupted; all is saved. Continue with `rloop resume {run_dir}`.")
            return 130
        except DegenerateRun as error:
            console.warn(str(error))
            console.say(f"Everything is kept in {run_dir}.")
            return 1
    return 0
