"""Evaluation outside a run: one policy on held-out tasks, with the sampler, template and verifier
of runs.

Writes a small run directory: `config.json`, `trajectories/`, `metrics.json`.
"""

import json
import sys
from collections.abc import Iterable
from contextlib import closing
from dataclasses import asdict, dataclass
from itertools import chain, count
from pathlib import Path

from rloop.config import Recipe
from rloop.engines.base import Engine
from rloop.engines.open import open_engine
from rloop.errors import TaskError
from rloop.evaluation.phase import Measurement, evaluate
from rloop.loop.state import write_whole
from rloop.observe.console import Console
from rloop.recipe import resolved_json
from rloop.store.trajectories import TrajectoryStore
from rloop.tasks.pool import VerifierPool
from rloop.tasks.references import check_references
from rloop.tasks.sources import load_task
from rloop.types import Place, PolicyRef, Problem


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """One metric of one task with its interval.

    Example: Score(task="gsm8k", metric="pass@8", value=0.41, low=0.38, high=0.44)
    """

    task: str
    metric: str
    value: float
    low: float
    high: float


def evaluate_policy(recipe: Recipe, run_root: Path = Path("runs")) -> list[Score]:
    """Measure `policy.path` on `tasks.evaluate` and return avg@n and pass@k of each task.

    Everything is kept in a directory that did not exist, `RUN_ROOT/eval-POLICY` or with a number.
    """
    folder = new_folder(run_root, f"eval-{Path(recipe.policy.path).name.replace(':', '-')}")
    write_whole(folder / "config.json", resolved_json(recipe))
    tasks = recipe.tasks
    with (
        VerifierPool(tasks.verifier_workers, tasks.verifier_timeout_s) as pool,
        closing(open_engine(recipe, pool)) as engine,
    ):
        problems = _load(recipe, pool)
        policy = engine.prepare(recipe.policy.path, folder / "policy", seed=recipe.seed)
        fitting = {name: _fit(engine, policy, found) for name, found in problems.items()}
        found = _measure(recipe, engine, policy, fitting, folder)
    scores = list(scores_of(found))
    write_whole(folder / "metrics.json", json.dumps([asdict(s) for s in scores], indent=2) + "\n")
    sys.stderr.write(f"Every completion is in {folder}.\n")
    return scores


def new_folder(root: Path, name: str) -> Path:
    """Make and return `root/name`, or `root/name-2`, `-3`, ... whichever is free."""
    for folder in chain([root / name], (root / f"{name}-{number}" for number in count(2))):
        try:
            folder.mkdir(parents=True)
        except FileExistsError:
            continue
        return folder
    raise AssertionError("count() does not end")


def _load(recipe: Recipe, pool: VerifierPool) -> dict[str, tuple[Problem, ...]]:
    """Return the held-out problems whose own references are judged correct, by task."""
    found = {}
    for config in recipe.tasks.evaluate:
        task = load_task(config, data_dir=recipe.tasks.data_dir)
        report = check_references(task.problems, pool, policy=recipe.tasks.bad_references)
        found[task.name] = report.kept
    return found


def _fit(engine: Engine, policy: PolicyRef, problems: Iterable[Problem]) -> tuple[Problem, ...]:
    report = engine.fit_prompts(policy, tuple(problems))
    if report.too_long:
        longest = max(length for _, length in report.too_long)
        sys.stderr.write(
            f"{len(report.too_long)} problems left out: their prompts have up to {longest} tokens, "
            "more than prompt.max_tokens.\n"
        )
    if not report.kept:
        raise TaskError("Every prompt is longer than prompt.max_tokens; raise it.")
    return report.kept


def _measure(
    recipe: Recipe,
    engine: Engine,
    policy: PolicyRef,
    tasks: dict[str, tuple[Problem, ...]],
    folder: Path,
) -> Measurement:
    place = Place(
        run=recipe.name, seed=recipe.seed, iteration=0, phase="evaluate", policy=policy.name
    )
    num_problems = sum(map(len, tasks.values()))
    finished = count(1)
    with Console().phase(0, "evaluate", num_problems, "problem") as bar:
        return evaluate(
            engine,
            policy,
            tasks,
            place,
            recipe.evaluate,
            store=TrajectoryStore(folder),
            on_group=lambda _: bar.advance(next(finished)),
        )


def scores_of(found: Measurement) -> Iterable[Score]:
    """Yield avg@n and pass@k of each task from the flat metrics."""
    for key, value in found.metrics.items():
        task, _, metric = key.rpartition("/")
        if "@" in metric and f"{key}_low" in found.metrics:
            low, high = found.metrics[f"{key}_low"], found.metrics[f"{key}_high"]
            yield Score(task=task, metric=metric, value=value, low=low, high=high)
