"""A sweep: methods x seeds of one recipe under one budget, each in its own run directory, one after
another or several at a time.

    DIR/rloop-seed-0  DIR/rloop-seed-1  DIR/rl-seed-0 ...   DIR/sweep.json: how each ended

The same arguments again skip complete runs, resume the one that was stopped and start the rest.
Runs share nothing: each measures the base and does its own cold start, so that each is complete by
itself. Each is `rloop run` in a process of its own. Ctrl-C and SIGTERM reach only the sweep, which
passes them on and waits until all have saved; if it is killed, its runs end at their next line of
output.
"""

import json
import os
import shutil
import signal
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from subprocess import PIPE, STDOUT, Popen
from typing import Literal

from rloop.check.estimate import disk, run_completions, run_tokens
from rloop.disk import write_text
from rloop.errors import ConfigError
from rloop.loop.manifest import Manifest
from rloop.observe.console import Console
from rloop.policies.model_files import measure_model
from rloop.policies.prompts import today
from rloop.recipe.config import Recipe
from rloop.recipe.methods import budget_warnings, find_methods, last_phase
from rloop.session.process import read_resolved, refuse_used
from rloop.session.resume import differences, told
from rloop.tasks.load import load_coldstart, load_tasks
from rloop.text import format_value
from rloop.threads import allowed_cores

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

    @property
    def log(self) -> Path:
        """Where the output of its process goes."""
        return self.directory.with_name(f"{self.directory.name}.log")

    def command(self, recipe: Recipe, given: Sequence[str]) -> list[str]:
        """Return the arguments of `rloop` that start or resume it; `given` are those of
        `rloop run` that give `recipe`."""
        if self.state() == "begun":
            return ["resume", str(self.directory)]
        changed = {key: new for key, (_, new) in differences(recipe, self.recipe).items()}
        changed["prompt.date"] = self.recipe.prompt.date
        pairs = [("--set", f"{key}={json.dumps(new)}") for key, new in changed.items()]
        return ["run", *given, *chain.from_iterable(pairs), "--out", str(self.directory)]

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
    recipe: Recipe,
    given: Sequence[str],
    *,
    again: str,
    jobs: int = 1,
    rloop: Sequence[str] = (sys.executable, "-m", "rloop"),
) -> int:
    """Run what is not complete; return 0, 1 if any run failed, or 130 (interrupted).

    Each run is `rloop run` or `rloop resume` in a process of its own, `jobs` of them at a time with
    their share of the cores. `given` are the arguments of `rloop run` that give `recipe`; `again`
    is the command that continues the sweep. The output of a run goes to `METHOD-seed-SEED.log`
    beside its directory, and to standard error too if one runs at a time.
    """
    console, processes = Console(), Processes(jobs)
    ended: dict[str, str] = {}

    def go(run: PlannedRun, title: str) -> tuple[int, str]:
        console.say(title)
        return processes.run([*rloop, *run.command(recipe, given)], run.log)

    def go_all(pool: ThreadPoolExecutor) -> None:
        started = {}
        for run, title in _titled(runs):
            if run.state() == "complete":
                console.say(title)
                ended[run.directory.name] = "complete"
            else:
                started[pool.submit(go, run, title)] = run
        for future in as_completed(started):
            run, (code, reason) = started[future], future.result()
            if code == INTERRUPTED:
                raise KeyboardInterrupt
            ended[run.directory.name] = reason or "complete"
            write_text(run.directory.parent / "sweep.json", json.dumps(ended, indent=2) + "\n")
            console.say(f"{run.directory.name} {'failed' if reason else 'ended'}")

    try:
        processes.work(go_all, console)
    except KeyboardInterrupt:
        console.say(
            f"The sweep stopped after {len(ended)} of {len(runs)} runs. Continue with: {again}"
        )
        return INTERRUPTED
    return _tell_failures(ended, console, again)


def _tell_failures(ended: Mapping[str, str], console: Console, again: str) -> int:
    """Say which runs failed, and why; return the exit code."""
    failed = {name: reason for name, reason in ended.items() if reason != "complete"}
    for name, reason in failed.items():
        console.warn(f"{name} failed: {reason}")
    if failed:
        console.say(f"{len(failed)} of {len(ended)} runs failed. To try them again: {again}")
    return 1 if failed else 0


def _titled(runs: Sequence[PlannedRun]) -> Iterator[tuple[PlannedRun, str]]:
    words = {"new": "", "begun": ", goes on", "complete": " is complete already"}
    for number, run in enumerate(runs, start=1):
        title = f"Run {number} of {len(runs)}: {run.method}, seed {run.seed}"
        yield run, f"{title}{words[run.state()]} ({run.directory})"


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


class Processes:
    """Runs commands for the threads of a pool, `jobs` at a time."""

    def __init__(self, jobs: int) -> None:
        """Begin with none."""
        self._jobs = jobs
        self._running: set[Popen[str]] = set()
        self._is_stopping = False

    def run(self, command: Sequence[str], log: Path) -> tuple[int, str]:
        """Run a command to its end; return its exit code and, if it failed, why.

        Its output is appended to the log, and goes to standard error if it runs alone.
        """
        shared = {"OMP_NUM_THREADS": str(max(1, allowed_cores() // self._jobs))}
        variables = os.environ | (shared if self._jobs > 1 else {})
        log.parent.mkdir(parents=True, exist_ok=True)
        last = ""
        with (
            log.open("a", buffering=1) as file,
            # A process group of its own, because a terminal's Ctrl-C goes to the parent.
            Popen(
                command,
                stdout=PIPE,
                stderr=STDOUT,
                text=True,
                errors="replace",
                env=variables,
                process_group=0,
            ) as process,
        ):
            self._running.add(process)
            if self._is_stopping:
                process.send_signal(signal.SIGINT)
            assert process.stdout is not None, "it is a pipe"
            for line in process.stdout:
                file.write(line)
                if self._jobs == 1:
                    sys.stderr.write(line)
                if line.strip() and not line.startswith("Report: "):
                    last = line.strip()
        self._running.discard(process)
        code = process.returncode
        if code < 0:
            name = signal.Signals(-code).name
            return code, f"its process was killed by {name}; {log} has its output"
        return code, last if code else ""

    def work(self, do: Callable[[ThreadPoolExecutor], None], console: Console) -> None:
        """Do what starts commands in the threads of a pool.

        After Ctrl-C or SIGTERM, and after KeyboardInterrupt in it, all are asked to save and end,
        and KeyboardInterrupt is raised when they have; a second Ctrl-C stops them at once.
        """
        # SIGINT too: a shell starts background jobs with SIGINT ignored.
        previous = {
            number: signal.signal(number, signal.default_int_handler)
            for number in (signal.SIGINT, signal.SIGTERM)
        }
        pool = ThreadPoolExecutor(self._jobs)
        try:
            do(pool)
        except KeyboardInterrupt:
            console.say("Stopping the runs after their steps; press Ctrl-C again to stop at once.")
            self._is_stopping = True
            pool.shutdown(wait=False, cancel_futures=True)
            self._interrupt()
            try:
                pool.shutdown()
            except KeyboardInterrupt:
                self._interrupt()
            raise
        finally:
            pool.shutdown()
            for number, handler in previous.items():
                signal.signal(number, handler)

    def _interrupt(self) -> None:
        for process in list(self._running):
            process.send_signal(signal.SIGINT)
