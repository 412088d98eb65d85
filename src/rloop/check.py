"""`rloop check`: the recipe's problems loaded and judged, and what the run will ask of the machine.

Samples nothing and imports no torch.
"""

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from rloop.config import Recipe
from rloop.estimate import Demand, batch_arithmetic, disk, memory
from rloop.model_size import measure_model
from rloop.tables import format_value
from rloop.tasks.collection import load_tasks
from rloop.tasks.pool import VerifierPool
from rloop.tasks.references import check_references
from rloop.tasks.sources import load_task
from rloop.types import Problem


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckReport:
    """What is known before a run starts.

    Example: CheckReport(problems=("gsm8k/train: 7473 read, 7473 taken",), demands=(...),
    warnings=("The disk has 2 GB free, the run may write 3 GB.",))
    """

    problems: tuple[str, ...]
    demands: tuple[Demand, ...]
    warnings: tuple[str, ...]


def check_recipe(recipe: Recipe, run_root: Path) -> CheckReport:
    """Load and judge all problems and multiply out the recipe; runs would be under `run_root`.

    Raises ConfigError or TaskError where a run would stop at its start.
    """
    tasks = load_tasks(recipe.tasks)
    lines = tasks.summary()
    held_out = [problem for problems in tasks.evaluate.values() for problem in problems]
    judged = [*tasks.train, *held_out]
    if recipe.coldstart is not None:
        coldstart = load_task(recipe.coldstart.task, data_dir=recipe.tasks.data_dir)
        lines.append(f"cold start: {coldstart.summary()}")
        judged += coldstart.problems
    kept = _judge(recipe, judged, lines)
    num_evaluate = sum(problem.problem_id in kept for problem in held_out)
    num_train = sum(problem.problem_id in kept for problem in tasks.train)
    model = measure_model(recipe.policy.path)
    written = disk(recipe, num_evaluate, model)
    demands = [*batch_arithmetic(recipe, num_train, num_evaluate), *written]
    warnings = [*_disk_warnings(written, run_root)]
    if model is None:
        warnings.append(_unknown_size(recipe.policy.path))
    else:
        held = memory(recipe, model, _compute_bytes(recipe))
        demands += held
        warnings += _memory_warnings(recipe, held)
    return CheckReport(problems=tuple(lines), demands=tuple(demands), warnings=tuple(warnings))


def _judge(recipe: Recipe, problems: list[Problem], lines: list[str]) -> set[str]:
    """Judge every reference answer; return the ids of the problems that stay."""
    tasks = recipe.tasks
    with VerifierPool(tasks.verifier_workers, tasks.verifier_timeout_s) as pool:
        report = check_references(problems, pool, policy=tasks.bad_references)
    lines.append(report.summary())
    return {problem.problem_id for problem in report.kept}


def _compute_bytes(recipe: Recipe) -> int:
    """Return the size of a number in the forward pass; where `auto` is open, the larger one."""
    dtype, device = recipe.engine.dtype, recipe.engine.device
    if dtype == "auto":
        return 2 if device.startswith("cuda") else 4
    return 2 if dtype == "bfloat16" else 4


def _disk_warnings(written: list[Demand], run_root: Path) -> list[str]:
    existing = next(folder for folder in (run_root, *run_root.resolve().parents) if folder.exists())
    free = shutil.disk_usage(existing).free
    most = written[-1].value
    if most <= free:
        return []
    return [
        f"The run may write {format_value(most, 'bytes')} and {existing} has "
        f"{format_value(free, 'bytes')} free."
    ]


def _memory_warnings(recipe: Recipe, held: list[Demand]) -> list[str]:
    present = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if recipe.engine.device != "cpu" or held[-1].value <= present:
        return []
    return [
        f"The run may hold {format_value(held[-1].value, 'bytes')} and this machine has "
        f"{format_value(present, 'bytes')}: lower engine.microbatch_tokens or engine.max_batch."
    ]


def _unknown_size(source: str) -> str:
    if source.startswith("random:"):
        return f"{source} is tiny and made at the start; its memory is not estimated."
    return (
        f"The size of {source} cannot be told from files on this machine; no memory estimate. "
        "Name a local directory: --set policy.path=DIR."
    )
