"""Builds the engine that a recipe names; nothing heavy is imported before this call."""

import os
from collections.abc import Sequence

from rloop.engines.base import Engine
from rloop.errors import ConfigError
from rloop.recipe.config import Recipe


def build_engine(recipe: Recipe) -> Engine:
    """Return the recipe's engine, for all processes if a launcher started several."""
    if recipe.engine.name == "tinker":
        from rloop.engines.tinker.engine import TinkerEngine

        return TinkerEngine(recipe)
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        from rloop.engines.native.parallel import ParallelEngine

        return ParallelEngine(recipe)
    from rloop.engines.native.engine import NativeEngine

    return NativeEngine(recipe)


def follows(arguments: Sequence[str]) -> bool:
    """Whether a launcher (torchrun) started this process with a rank above 0. If so, serve rank 0
    to the end, for a command that may build an engine.

    Raises ConfigError for `rloop sweep`, which starts its own processes.
    """
    command = next(iter(arguments), "")
    if command == "sweep" and int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise ConfigError(
            "rloop sweep starts a process for each run. Start it without torchrun, or each run "
            "with it: torchrun --nproc-per-node N -m rloop run RECIPE."
        )
    if int(os.environ.get("RANK", "0")) == 0:
        return False
    if command in ("run", "resume", "eval"):
        from rloop.engines.native.parallel import follow

        follow()
    return True
