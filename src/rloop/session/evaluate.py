"""Evaluation outside a run: the sampler, template and verifier of runs, on any policy.

It has its own directory, in the form of a run's, so that everything that reads runs can read it:

    runs/eval-iter-002/
      config.json  environment.json  manifest.json  events.jsonl  trajectories/
      metrics.jsonl    one evaluate line, of iteration 0
      metrics.json     its numbers again, `TASK/METRIC`

`rloop resume` continues an interrupted evaluation and samples no stored problem again.
"""

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from itertools import chain, count, takewhile
from pathlib import Path

from rloop.disk import write_text
from rloop.engines.base import Engine
from rloop.engines.rollout import Rollout
from rloop.errors import ConfigError, EngineError
from rloop.evaluation.phase import Evaluator
from rloop.evaluation.tallies import stored_tallies
from rloop.loop.context import policy_result
from rloop.loop.interrupt import Interrupt, Interrupted
from rloop.loop.manifest import Manifest, RunLock
from rloop.loop.problems import RunProblems, load_held_out
from rloop.loop.stopping import check_verdicts
from rloop.observe.console import Console, warnings_shown
from rloop.observe.metric_keys import split_key
from rloop.observe.run_log import RunLog
from rloop.policies.prompts import today
from rloop.recipe.config import Recipe
from rloop.recipe.load import resolved_json
from rloop.session.environment import add_engine, environment
from rloop.session.process import (
    EngineBuilder,
    check_same_problems,
    make_directory,
    prepare_base,
    read_resolved,
    show_prompt,
)
from rloop.store.trajectories import TrajectoryStore
from rloop.tasks.pool import VerifierPool
from rloop.types import Group, Place, PolicyRef

BEGUN = "0/evaluation"
"""Key of the manifest that tells an evaluation's directory from a run's."""


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Tools:
    """The tools of an evaluation: an engine that loads the policy once, and the held-out
    problems."""

    rollout: Rollout
    problems: RunProblems
    console: Console
    resumable: Path
    """The folder that `rloop resume` continues after an interrupt."""


def evaluate_policy(recipe: Recipe, folder: Path, build_engine: EngineBuilder) -> list[Score]:
    """Measure `policy.path` on `tasks.evaluate`; return avg@n, pass@k and so on of each task.

    Everything is kept in `folder`, which must be new, empty, or a start that sampled nothing; else
    ConfigError. After Ctrl-C it says how to continue and raises KeyboardInterrupt.
    """
    refuse_used(folder)
    recipe = recipe.dated(today())
    with open_tools(recipe, folder, build_engine) as tools:
        return begin(recipe, folder, tools)


def resume_evaluation(folder: Path, build_engine: EngineBuilder) -> list[Score]:
    """Continue an interrupted evaluation; a complete one is only read."""
    recipe = read_resolved(folder / "config.json")
    with RunLock(folder):
        found = scores_in(folder)
        if found is not None:
            Console().say(f"{folder} is complete.")
            return found
        with open_tools(recipe, folder, build_engine) as tools:
            return work(recipe, folder, tools)


@contextmanager
def open_tools(recipe: Recipe, resumable: Path, build_engine: EngineBuilder) -> Iterator[Tools]:
    """Yield the engine of a recipe and its held-out problems; close the engine afterwards."""
    tasks = recipe.tasks
    with VerifierPool(tasks.verifier_workers, tasks.verifier_timeout_s) as pool:
        problems = load_held_out(recipe, pool)
        with closing(build_engine(recipe)) as engine:
            rollout = Rollout(engine=engine, verify=pool)
            yield Tools(rollout=rollout, problems=problems, console=Console(), resumable=resumable)


def begin(
    recipe: Recipe, folder: Path, tools: Tools, *, prepared: PolicyRef | None = None
) -> list[Score]:
    """Measure into an empty folder; `prepared` is the policy if it is prepared already."""
    make_directory(folder)
    with RunLock(folder):
        refuse_used(folder)
        (folder / "manifest.json").unlink(missing_ok=True)
        manifest = Manifest(folder)
        manifest.complete(BEGUN, {"policy": recipe.policy.path})
        if prepared is not None:
            manifest.complete("0/prepare", policy_result(prepared, folder))
        write_text(folder / "config.json", resolved_json(recipe))
        found = json.dumps(environment(folder, recipe), indent=2) + "\n"
        write_text(folder / "environment.json", found)
        return work(recipe, folder, tools, is_first=prepared is None)


def scores_in(folder: Path) -> list[Score] | None:
    """Return the results of a complete evaluation; None if it is not complete."""
    for key, result in Manifest(folder).phases.items():
        if key.startswith("0/evaluate/"):
            return list(scores_of(result["metrics"]))
    return None


def is_evaluation(folder: Path) -> bool:
    """Whether `rloop eval` wrote the directory, not `rloop run`."""
    return Manifest(folder).result(BEGUN) is not None


def free_folder(root: Path, recipe: Recipe, kind: str = "eval") -> Path:
    """Return `root/KIND-POLICY`, or with `-2`, `-3`, ... the first that does not exist."""
    return next(folder for folder in _folders(root, recipe, kind) if not folder.exists())


def unfinished(root: Path, recipe: Recipe) -> list[Path]:
    """Return the earlier folders of `free_folder` whose evaluations are incomplete."""
    named = takewhile(Path.exists, _folders(root, recipe))
    return [one for one in named if is_evaluation(one) and not (one / "metrics.json").exists()]


def _folders(root: Path, recipe: Recipe, kind: str = "eval") -> Iterator[Path]:
    name = f"{kind}-{re.sub(r'[^A-Za-z0-9._-]+', '-', _policy_name(recipe))[:80]}"
    return (root / one for one in chain([name], (f"{name}-{number}" for number in count(2))))


def scores_of(metrics: Mapping[str, float]) -> Iterator[Score]:
    """Yield the metrics of each task from the flat ones of an evaluation."""
    for key, value in metrics.items():
        found = split_key(key)
        if found is not None:
            low, high = metrics[f"{key}_low"], metrics[f"{key}_high"]
            yield Score(task=found[0], metric=found[1], value=value, low=low, high=high)


def refuse_used(folder: Path) -> None:
    """Raise ConfigError unless the directory is free, or holds a start that sampled nothing."""
    if not folder.exists() or set(folder.iterdir()) <= {folder / ".lock"}:
        return
    if not is_evaluation(folder) or (folder / "trajectories").exists():
        raise ConfigError(
            f"{folder} is not empty. Continue it with `rloop resume {folder}`, or choose another "
            "--out."
        )


def work(recipe: Recipe, folder: Path, tools: Tools, *, is_first: bool = True) -> list[Score]:
    """Sample what is not stored yet, in a locked folder; return the results.

    The console describes policy and problems only if `is_first`.
    """
    manifest, engine, console = Manifest(folder), tools.rollout.engine, tools.console
    prepare_base(recipe, folder, engine, manifest)
    problems = tools.problems.fitting(engine.renderer.report, recipe)
    check_same_problems(manifest, problems)
    add_engine(folder / "environment.json", engine.describe())
    if is_first:
        console.header(_facts(recipe, engine))
        for note in problems.notes:
            console.say(note)
        show_prompt(problems, console)
    else:
        temperature = f"{recipe.evaluate.sampling.temperature:g}"
        console.header({"policy": _policy_name(recipe), "temperature": temperature})
    try:
        metrics = _measure(recipe, tools.rollout, problems, folder, console)
    except (Interrupted, KeyboardInterrupt) as stop:
        stored = stored_tallies(TrajectoryStore(folder), evaluation_place(recipe))
        num_stored = sum(map(len, stored.values()))
        console.say(
            f"Interrupted; problems stored: {num_stored}. Continue: rloop resume {tools.resumable}"
        )
        raise KeyboardInterrupt from stop
    except EngineError as error:
        kept = f"What is stored is kept; continue with `rloop resume {tools.resumable}`."
        raise type(error)(f"{error} {kept}") from error
    write_text(folder / "metrics.json", json.dumps(metrics, indent=2) + "\n")
    check_verdicts(metrics, recipe.tasks.max_error_frac, folder)
    manifest.complete(f"0/evaluate/{_policy_name(recipe)}", {"metrics": metrics})
    if folder == tools.resumable:
        console.say(f"Every completion is in {folder}.")
    return list(scores_of(metrics))


def _measure(
    recipe: Recipe,
    rollout: Rollout,
    problems: RunProblems,
    folder: Path,
    console: Console,
) -> dict[str, float]:
    place = evaluation_place(recipe)
    evaluator = Evaluator(
        rollout=rollout,
        tasks=problems.evaluate,
        config=recipe.evaluate,
        store=TrajectoryStore(folder),
        max_batch=recipe.engine.max_batch,
    )
    interrupt = Interrupt(console.say)
    with ExitStack() as stack:
        stack.callback(interrupt.restore)
        stack.enter_context(warnings_shown(console))
        log = stack.enter_context(closing(RunLog(folder)))
        log.truncate(0)
        stack.enter_context(log.span("evaluate", place))
        bar = stack.enter_context(
            console.phase(
                None,
                "evaluate",
                evaluator.num_completions,
                "completion",
                together=evaluator.max_batch,
            ),
        )

        def skip(num_completions: int) -> None:
            if num_completions:
                bar.advance(num_completions)
                console.say(
                    f"Skipping {num_completions} of {bar.total} completions, which are stored."
                )

        def check(_: Group) -> None:
            interrupt.check()

        found = evaluator.evaluate(place, on_completion=bar.count, on_group=check, on_stored=skip)
        log.metrics(place, found.metrics)
    return dict(found.metrics)


def _facts(recipe: Recipe, engine: Engine) -> dict[str, str]:
    """Return what the console shows before an evaluation."""
    config = recipe.evaluate
    samples = f"{config.samples} per problem, temperature {config.sampling.temperature:g}"
    return {"policy": recipe.policy.path, "samples": samples, **engine.describe()}


def evaluation_place(recipe: Recipe) -> Place:
    """Return the place of an evaluation of `policy.path`."""
    name = _policy_name(recipe)
    return Place(run=recipe.name, seed=recipe.seed, iteration=0, phase="evaluate", policy=name)


def _policy_name(recipe: Recipe) -> str:
    return Path(recipe.policy.path).name
