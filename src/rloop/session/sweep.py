"""A sweep: methods x seeds of one recipe under one budget, each in its own run directory, one after
another or several at a time.

    DIR/rloop-seed-0  DIR/rloop-seed-1  DIR/rl-seed-0 ...   DIR/sweep.json: how each ended

The same arguments again skip complete runs, resume the one that was stopped and start the rest.
Runs share nothing: each measures the base and does its own cold start, so that each is complete by
itself.
"""

import json
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

from rloop.check.estimate import disk, run_completions, run_tokens
from rloop.disk import write_text
from rloop.errors import ConfigError, RLoopError
from rloop.loop.manifest import Manifest
from rloop.observe.console import Console, clock_time
from rloop.policies.model_files import measure_model
from rloop.policies.prompts import today
from rloop.recipe.config import Recipe
from rloop.recipe.methods import budget_warnings, find_methods, last_phase
from rloop.session.parallel import Call, run_side_by_side
from rloop.session.process import EngineBuilder, read_resolved, refuse_used, resume, start
from rloop.session.resume import differences, told
from rloop.tasks.load import load_coldstart, load_tasks
from rloop.text import format_value

INTERRUPTED = 130
State = Literal["new", "begun", "complete"]


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedRun:
    """One run of a sweep.

    Example: PlannedRun(method="raft", seed=1, directory=Path("runs/tiny-sweep/raft-seed-1"),
    recipe=Recipe(...))
    """

    method: str
    seed: int
    directory: Path
    recipe: Recipe

    def state(self) -> State:
        """Return the state of the run."""
        manifest = Manifest(self.directory)
        key = last_phase(self.recipe.model_dump(mode="json"))
        if manifest.result(key) is not None:
            return "complete"
        return "begun" if manifest.has_begun else "new"

    def refuse_others(self) -> None:
        """Raise ConfigError if the directory holds anything but this run."""
        config = self.directory / "config.json"
        if config.exists():
            found = differences(read_resolved(config), self.recipe)
            if found:
                raise ConfigError(
                    f"{self.directory} holds another recipe: {told(found)}. Use the arguments "
                    "that it was started with, or choose another --out."
                )
        elif self.directory.exists():
            refuse_used(self.directory)


def plan_sweep(recipe: Recipe, methods: str, seeds: str, directory: Path) -> list[PlannedRun]:
    """Return the runs, seed by seed so that methods can be compared early; nothing is written.

    `methods` and `seeds` are as on the command line. Raises ConfigError for unknown methods, for
    two methods that are the same recipe, and for directories that hold something else.
    """
    chosen = find_methods(methods)
    recipe = recipe.dated(_first_date(directory) or today())
    runs = []
    for seed in _seeds(seeds, first=recipe.seed):
        recipes: dict[str, str] = {}
        for method in chosen:
            data = method.of(recipe).model_dump(mode="json") | {"seed": seed}
            same = recipes.setdefault(json.dumps(data), method.name)
            if same != method.name:
                raise ConfigError(f"{same} and {method.name} are the same recipe here; drop one.")
            name = f"{method.name}-seed-{seed}"
            run = PlannedRun(
                method=method.name,
                seed=seed,
                directory=directory / name,
                recipe=Recipe.model_validate(data | {"name": f"{recipe.name}-{name}"}),
            )
            run.refuse_others()
            runs.append(run)
    return runs


def _first_date(directory: Path) -> str | None:
    """Return the date in the prompts of the sweep's first run; None if there is no run yet.

    Runs are compared problem by problem, so all must see the same prompts.
    """
    begun = sorted(directory.glob("*/config.json"), key=lambda path: path.stat().st_mtime_ns)
    return next((day for day in (read_resolved(c).prompt.date for c in begun) if day), None)


def announce_sweep(recipe: Recipe, runs: Sequence[PlannedRun]) -> None:
    """Show what the sweep will cost, and warnings.

    Loads the tasks; raises TaskError if that fails.
    """
    console = Console()
    lines, warnings = describe_sweep(recipe, runs)
    for line in lines:
        console.say(line)
    for warning in warnings:
        console.warn(warning)


def describe_sweep(recipe: Recipe, runs: Sequence[PlannedRun]) -> tuple[list[str], list[str]]:
    """Return the sentences and the warnings that `announce_sweep` shows."""
    tasks = load_tasks(recipe.tasks)
    held_out = [problem for problems in tasks.evaluate.values() for problem in problems]
    if recipe.coldstart is not None:
        load_coldstart(recipe.coldstart, held_out, data_dir=recipe.tasks.data_dir)
    left = [run for run in runs if run.state() != "complete"]
    model = measure_model(recipe.policy.path)
    tokens = sum(run_tokens(run.recipe, len(held_out)) for run in left)
    most = sum(disk(run.recipe, len(held_out), model)[-1].value for run in left)
    completions = run_completions(recipe)
    methods = ", ".join(dict.fromkeys(run.method for run in runs))
    lines = [
        f"{len(runs)} runs, {len(runs) - len(left)} of them complete: {methods}; seeds "
        f"{', '.join(str(seed) for seed in dict.fromkeys(run.seed for run in runs))}.",
        f"Each samples {completions:,} completions in RL"
        f"{' at most' if recipe.explore.refill_rounds else ''}; those that are left may sample "
        f"{tokens:,} tokens, evaluations included, and write {format_value(most, 'bytes')}"
        f"{'' if model else ' besides the policies'}.",
    ]
    warnings = budget_warnings(recipe, find_methods(methods))
    if len({run.seed for run in runs}) == 2:
        warnings.append(
            "Two seeds are too few to estimate seed-to-seed variation, so intervals will be very "
            "wide. Use three or more: --seeds 3."
        )
    folder = runs[0].directory.parent
    existing = next(path for path in (folder, *folder.resolve().parents) if path.exists())
    free = shutil.disk_usage(existing).free
    if most > free:
        warnings.append(f"{existing} has only {format_value(free, 'bytes')} free.")
    return lines, warnings


def run_sweep(
    runs: Sequence[PlannedRun],
    recipe_path: Path,
    build_engine: EngineBuilder,
    *,
    finish: Callable[[Path], object],
    again: str,
    jobs: int = 1,
) -> int:
    """Run what is not complete; return 0, 1 if any run failed, or 130 (interrupted).

    `finish` is called with the directory of each run that started and ended; `again` is the command
    that continues the sweep. A run's results go to standard error. With `jobs` above 1, that many
    runs go on at a time, in processes with their share of the cores; their output goes to
    `METHOD-seed-SEED.log` beside the run directory, and `build_engine` must be a module-level
    function.
    """
    console = Console()
    ended = {run.directory.name: "complete" for run in runs if run.state() == "complete"}
    go = _one_by_one if jobs == 1 else partial(_side_by_side, jobs=jobs)
    try:
        for run, code, reason in go(runs, recipe_path, build_engine, console):
            if code == INTERRUPTED:
                raise KeyboardInterrupt
            ended[run.directory.name] = reason or "complete"
            write_text(run.directory.parent / "sweep.json", json.dumps(ended, indent=2) + "\n")
            if run.state() != "new":
                finish(run.directory)
    except KeyboardInterrupt:
        console.say(
            f"The sweep stopped after {len(ended)} of {len(runs)} runs. Continue with: {again}"
        )
        return INTERRUPTED
    failed = {name: reason for name, reason in ended.items() if reason != "complete"}
    for name, reason in failed.items():
        console.warn(f"{name} failed: {reason}")
    if failed:
        console.say(f"{len(failed)} of {len(runs)} runs failed. To try them again: {again}")
    return 1 if failed else 0


Ended = Iterator[tuple[PlannedRun, int, str]]
"""Runs that have ended, each with its exit code and, if it failed, why."""


def _one_by_one(
    runs: Sequence[PlannedRun], recipe_path: Path, build_engine: EngineBuilder, console: Console
) -> Ended:
    for run, title in _announced(runs):
        console.say(title)
        if run.state() != "complete":
            with redirect_stdout(sys.stderr):
                code, reason = _run(run, recipe_path, build_engine)
            yield run, code, reason


def _side_by_side(
    runs: Sequence[PlannedRun],
    recipe_path: Path,
    build_engine: EngineBuilder,
    console: Console,
    *,
    jobs: int,
) -> Ended:
    titles, calls = {}, []
    for run, title in _announced(runs):
        if run.state() == "complete":
            console.say(title)
            continue
        name = run.directory.name
        titles[name] = (run, title)
        log = run.directory.parent / f"{name}.log"
        arguments = (run, recipe_path, build_engine)
        calls.append(Call(name=name, log=log, function=_run, arguments=arguments))
    began = {}

    def on_start(call: Call) -> None:
        began[call.name] = time.monotonic()
        console.say(titles[call.name][1])

    def on_stop() -> None:
        console.say("Stopping the runs after their steps; press Ctrl-C again to stop at once.")

    if calls:
        console.say(f"The output of each run goes to its log, such as {calls[0].log}")
    for call, found in run_side_by_side(calls, jobs, on_start=on_start, on_stop=on_stop):
        code, reason = found if isinstance(found, tuple) else (1, str(found))
        took = clock_time(time.monotonic() - began[call.name])
        console.say(f"{call.name} {'failed' if reason else 'ended'} after {took}")
        yield titles[call.name][0], code, reason


def _announced(runs: Sequence[PlannedRun]) -> Iterator[tuple[PlannedRun, str]]:
    words = {"new": "", "begun": ", goes on", "complete": " is complete already"}
    for number, run in enumerate(runs, start=1):
        title = f"Run {number} of {len(runs)}: {run.method}, seed {run.seed}"
        yield run, f"{title}{words[run.state()]} ({run.directory})"


def _run(run: PlannedRun, recipe_path: Path, build_engine: EngineBuilder) -> tuple[int, str]:
    """Start or resume a run; return its exit code and, if it failed, why."""
    try:
        if run.state() == "begun":
            code = resume(run.directory, build_engine)
        else:
            code = start(recipe_path, run.recipe, run.directory, build_engine)
    except RLoopError as error:
        return 1, str(error)
    except KeyboardInterrupt:
        return INTERRUPTED, ""
    return code, "stopped, there was nothing left to learn from" if code == 1 else ""


def _seeds(text: str, *, first: int) -> list[int]:
    """Return the seeds of `3` (three seeds, starting from `first`) or of `0,3,7` (these)."""
    parts = [part.strip() for part in text.split(",") if part.strip()]
    is_list = "," in text
    is_number = all(part.isdecimal() for part in parts)
    if not parts or not is_number or (not is_list and int(parts[0]) == 0):
        raise ConfigError(
            f"--seeds takes a count such as 3, or a list such as 0,3,7; got {text!r}."
        )
    if not is_list:
        return list(range(first, first + int(parts[0])))
    return list(dict.fromkeys(map(int, parts)))
