"""Evaluation outside a run: the sampler, template and verifier of runs, on any policy.

Writes a small run directory: `config.json`, `trajectories/`, `metrics.json`.
"""

import json
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing
from dataclasses import asdict, dataclass, replace
from itertools import chain, count
from pathlib import Path

from rloop.config import Recipe
from rloop.engines.base import Engine, Verify
from rloop.evaluation.phase import Evaluator
from rloop.loop.interrupt import Interrupt, Interrupted
from rloop.loop.problems import RunProblems
from rloop.loop.state import write_whole
from rloop.loop.watch import check_verdicts
from rloop.observe.console import Console
from rloop.recipe import resolved_json
from rloop.store.trajectories import TrajectoryStore
from rloop.tasks.pool import VerifierPool
from rloop.tasks.references import check_references
from rloop.tasks.sources import load_task
from rloop.types import Group, Place, PolicyRef


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


def evaluate_policy(
    recipe: Recipe, run_root: Path, build_engine: Callable[[Recipe, Verify], Engine]
) -> list[Score]:
    """Measure `policy.path` on `tasks.evaluate` and return avg@n and pass@k of each task.

    Everything is kept in a directory that did not exist, `RUN_ROOT/eval-POLICY` or with a number.
    """
    tasks = recipe.tasks
    with ExitStack() as stack:
        pool = VerifierPool(tasks.verifier_workers, tasks.verifier_timeout_s)
        problems = _load(recipe, stack.enter_context(pool))
        engine = stack.enter_context(closing(build_engine(recipe, pool)))
        folder = new_folder(run_root, f"eval-{Path(recipe.policy.path).name.replace(':', '-')}")
        write_whole(folder / "config.json", resolved_json(recipe))
        found = engine.prepare(recipe.policy.path, folder / "policy", seed=recipe.seed)
        policy = replace(found, name=Path(recipe.policy.path).name)
        problems = problems.fitting(lambda these: engine.fit_prompts(policy, these))
        sys.stderr.writelines(f"{note}\n" for note in problems.notes)
        try:
            metrics = _measure(recipe, engine, policy, problems, folder)
        except (Interrupted, KeyboardInterrupt) as stop:
            sys.stderr.write(f"Interrupted; the tasks that were measured are in {folder}.\n")
            raise KeyboardInterrupt from stop
    scores = list(scores_of(metrics))
    write_whole(folder / "metrics.json", json.dumps([asdict(s) for s in scores], indent=2) + "\n")
    sys.stderr.write(f"Every completion is in {folder}.\n")
    check_verdicts(metrics, tasks.max_error_frac, folder)
    return scores


def new_folder(root: Path, name: str) -> Path:
    """Make and return `root/name`, or `root/name-2`, `-3`, ... whichever is free."""
    names = chain([name], (f"{name}-{number}" for number in count(2)))
    folder = next(root / free for free in names if not (root / free).exists())
    folder.mkdir(parents=True)
    return folder


def _load(recipe: Recipe, pool: VerifierPool) -> RunProblems:
    """Return the held-out problems whose own references are judged correct."""
    found, notes = {}, []
    for index, config in enumerate(recipe.tasks.evaluate):
        key = f"tasks.evaluate.{index}"
        task = load_task(config, data_dir=recipe.tasks.data_dir, key=key, held_out=True)
        report = check_references(task.problems, pool, policy=recipe.tasks.bad_references)
        found[task.name] = report.kept
        notes += [task.summary(), report.summary()]
    return RunProblems(train=(), evaluate=found, coldstart=(), notes=tuple(notes))


def _measure(
    recipe: Recipe, engine: Engine, policy: PolicyRef, problems: RunProblems, folder: Path
) -> Mapping[str, float]:
    place = Place(
        run=recipe.name, seed=recipe.seed, iteration=0, phase="evaluate", policy=policy.name
    )
    store = TrajectoryStore(folder)
    evaluator = Evaluator(
        engine=engine, tasks=problems.evaluate, config=recipe.evaluate, store=store
    )
    console, finished = Console(), count(1)
    interrupt = Interrupt(console.say)
    with ExitStack() as stack:
        stack.callback(interrupt.restore)
        bar = stack.enter_context(
            console.phase(0, "evaluate", evaluator.num_problems, "problem"),
        )

        def advance(group: Group) -> None:
            del group
            bar.advance(next(finished))
            interrupt.check()

        found = evaluator.evaluate(policy, place, on_group=advance)
    return found.metrics


def scores_of(metrics: Mapping[str, float]) -> Iterator[Score]:
    """Yield avg@n and pass@k of each task from the flat metrics of an evaluation."""
    for key, value in metrics.items():
        task, _, metric = key.rpartition("/")
        if "@" in metric and f"{key}_low" in metrics:
            low, high = metrics[f"{key}_low"], metrics[f"{key}_high"]
            yield Score(task=task, metric=metric, value=value, low=low, high=high)
