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
