"""A run as a process: start or resume a directory, build its tools, run the loop, close them,
return an exit code.
"""

import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

from pydantic import ValidationError

from rloop.check.estimate import disk, disk_warnings, run_completions
from rloop.disk import write_text
from rloop.engines.base import Engine
from rloop.engines.rollout import Rollout
from rloop.errors import ConfigError, DegenerateRun, EngineError, StoreError, TaskError
from rloop.evaluation.divergence import Divergence
from rloop.loop.context import Context, policy_from, policy_result
from rloop.loop.heartbeat import Heartbeat
from rloop.loop.interrupt import Interrupt, Interrupted
from rloop.loop.manifest import Manifest, RunLock
from rloop.loop.phases import Phases
from rloop.loop.problems import RunProblems, load_held_out, load_problems
from rloop.loop.run import run_loop
from rloop.observe.console import Console, warnings_shown
from rloop.observe.run_log import RunLog, final_rows
from rloop.policies.model_files import measure_model
from rloop.policies.prompts import shown, today
from rloop.recipe.checks import recipe_warnings
from rloop.recipe.config import Recipe
from rloop.recipe.load import load_recipe, resolved_json
from rloop.recipe.methods import method_title
from rloop.session.environment import add_engine, environment
from rloop.session.evaluate import policy_name
from rloop.session.resume import plan, recipe_in_force
from rloop.store.records import EVALUATION_KEY, RESCORED_KEY
from rloop.store.trajectories import TrajectoryStore
from rloop.tasks.pool import VerifierPool
from rloop.types import PolicyRef

EngineBuilder = Callable[[Recipe], Engine]
"""Builds the engine that a recipe names; passed in by the caller, because the loop knows only the
engine protocol."""
STARTED = {".lock", "manifest.json", "environment.json", "recipe.yaml", "config.json"}
"""Files that a start may have written if it was killed before it opened the logs."""


def start(
    recipe_path: Path,
    recipe: Recipe,
    run_dir: Path,
    build_engine: EngineBuilder,
    *,
    text: str | None = None,
    is_evaluation: bool = False,
) -> int:
    """Begin a run in a new or empty directory; return its exit code.

    `text` is the recipe as given, if there is no file at `recipe_path`. An evaluation only measures
    `policy.path` on the held-out problems.
    """
    console = Console()
    recipe = recipe.dated(today())
    make_directory(run_dir)
    refuse_used(run_dir)
    is_again = any(run_dir.iterdir())
    with RunLock(run_dir):
        if is_again:
            console.say(f"{run_dir} was started but saved nothing; starting over.")
        begin(run_dir, recipe, recipe_path, text=text, is_evaluation=is_evaluation)
        return work(recipe, run_dir, build_engine, console)


def begin(
    run_dir: Path,
    recipe: Recipe,
    recipe_path: Path,
    *,
    text: str | None = None,
    is_evaluation: bool = False,
) -> None:
    """Write what a locked directory begins with: on what it runs, its recipe, its manifest."""
    refuse_used(run_dir)
    (run_dir / "manifest.json").unlink(missing_ok=True)
    manifest = Manifest(run_dir)
    if is_evaluation:
        manifest.complete(EVALUATION_KEY, {"policy": recipe.policy.path})
    else:
        write_text(run_dir / "recipe.yaml", recipe_path.read_text() if text is None else text)
    facts = json.dumps(environment(recipe_path, recipe), indent=2) + "\n"
    write_text(run_dir / "environment.json", facts)
    # Written last: a directory that has it can be resumed.
    write_text(run_dir / "config.json", resolved_json(recipe))
    manifest.record_recipe(recipe.model_dump(mode="json"))


def make_directory(run_dir: Path) -> None:
    """Make the run directory; raise ConfigError if that fails."""
    try:
        run_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(
            f"The run directory {run_dir} cannot be created ({error.strerror}). Choose another "
            "--out."
        ) from error


def refuse_used(run_dir: Path) -> None:
    """Raise ConfigError unless the directory is new, empty, or a start that saved nothing."""
    names = {path.name.removesuffix(".tmp") for path in run_dir.iterdir()}
    is_torn_start = ".lock" in names and names <= STARTED
    is_start = "config.json" in names and "trajectories" not in names
    if names and not is_torn_start and not (is_start and not Manifest(run_dir).has_begun):
        raise ConfigError(
            f"{run_dir} is not empty. Continue it with `rloop resume {run_dir}`, or choose another "
            "--out."
        )


def resume(
    run_dir: Path,
    build_engine: EngineBuilder,
    recipe_path: Path | None = None,
    overrides: Sequence[str] = (),
) -> int:
    """Continue an interrupted run from its last saved point; return its exit code.

    A recipe or `a.b=value` overrides can extend its budget; see `session.resume`.
    """
    config = run_dir / "config.json"
    if not config.exists():
        raise StoreError(
            f"{run_dir} is not a run directory (no config.json). Start a run with `rloop run`."
        )
    written = read_resolved(config)
    console = Console()
    with RunLock(run_dir):
        manifest = Manifest(run_dir)
        if (run_dir / "trajectories").exists() and not manifest.has_begun:
            raise StoreError(
                f"{run_dir} has trajectories but no manifest.json that says what is complete. "
                "Restore it from a backup, or begin a new run."
            )
        rescored = manifest.result(RESCORED_KEY)
        if rescored is not None:
            raise StoreError(
                f"{run_dir} holds the trajectories of {rescored['from']}, judged again, so it "
                f"cannot be resumed. Continue the run itself: `rloop resume {rescored['from']}`."
            )
        manifest.check_logged()
        store = TrajectoryStore(run_dir)
        store.count()  # a torn file is reported before anything is loaded
        is_given = recipe_path is not None or bool(overrides)
        given = load_recipe(recipe_path or config, overrides) if is_given else None
        recipe, notes = recipe_in_force(run_dir, written, given, manifest)
        for note in (*notes, *plan(manifest, store, recipe)):
            console.say(note)
        return work(recipe, run_dir, build_engine, console)


def read_resolved(config: Path) -> Recipe:
    """Return the recipe of a run's `config.json`; StoreError says what is wrong with it."""
    try:
        return Recipe.model_validate_json(config.read_text())
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        reason = f"{where}: {first['msg']}" if where else first["msg"]
    except ValueError as error:
        reason = str(error)
    raise StoreError(
        f"{config} is not a recipe that this version of rloop can read ({reason}); restore it "
        "from a backup."
    )


def work(recipe: Recipe, run_dir: Path, build_engine: EngineBuilder, console: Console) -> int:
    """Run every phase that is not complete; return 0, 1 (degenerate) or 130 (interrupted)."""
    from rloop.session.temperatures import measure_after_training  # it opens directories like this

    is_evaluation = Manifest(run_dir).is_evaluation

    def run(interrupt: Interrupt) -> None:
        with open_run(recipe, run_dir, build_engine, console, interrupt) as context:
            phases = Phases(context)
            if is_evaluation:
                phases.evaluate(phases.base, iteration=0)
            else:
                policy = run_loop(phases)  # a cold start changes the base
                measure_after_training(context, phases.base, policy)

    code = exit_code(run, run_dir, console, has_begun=lambda: Manifest(run_dir).has_begun)
    if not code and is_evaluation:
        console.say(f"Every completion is in {run_dir}.")
    elif not code:
        console.final_table(final_rows(run_dir))
    return code


def exit_code(
    do: Callable[[Interrupt], None],
    run_dir: Path,
    console: Console,
    *,
    has_begun: Callable[[], bool],
) -> int:
    """Do the work on a directory; return 0, 1 (degenerate) or 130 (interrupted).

    What stops it is shown with how to go on; so is an error, which is raised again.
    """
    interrupt = Interrupt(console.say)
    try:
        do(interrupt)
    except (Interrupted, KeyboardInterrupt):
        saved = (
            "; what was done is saved. Continue" if has_begun() else " before a first result. Begin"
        )
        console.say(f"Interrupted{saved}: rloop resume {run_dir}")
        return 130
    except DegenerateRun as error:
        console.stop(f"{error} Everything so far is kept in {run_dir}.")
        return 1
    except (ConfigError, TaskError, EngineError) as error:
        if "rloop resume" in str(error) or not has_begun():
            raise
        kept = f"What was done is kept; continue with `rloop resume {run_dir}`."
        raise type(error)(f"{str(error).rstrip('.')}. {kept}") from error
    finally:
        interrupt.restore()
    return 0


@contextmanager
def open_run(
    recipe: Recipe,
    run_dir: Path,
    build_engine: EngineBuilder,
    console: Console,
    interrupt: Interrupt,
) -> Iterator[Context]:
    """Build the tools of a locked directory, yield them as a context, and close them afterwards."""
    with ExitStack() as stack:
        stack.enter_context(warnings_shown(console))
        heartbeat = stack.enter_context(Heartbeat(run_dir, console.warn))
        pool = stack.enter_context(
            VerifierPool(recipe.tasks.verifier_workers, recipe.tasks.verifier_timeout_s)
        )
        manifest = Manifest(run_dir)
        is_evaluation = manifest.is_evaluation
        problems = (load_held_out if is_evaluation else load_problems)(recipe, pool)
        run_log = RunLog(run_dir, () if is_evaluation else recipe.sinks)
        stack.callback(run_log.close)
        engine = build_engine(recipe)
        stack.callback(engine.close)
        add_engine(run_dir / "environment.json", engine.describe())
        drop_orphans(run_dir, manifest)
        base = prepare_base(recipe, run_dir, engine, manifest)
        problems = problems.fitting(engine.renderer.report, recipe)
        check_same_problems(manifest, problems)
        console.header((measured if is_evaluation else facts)(recipe, problems, engine))
        show_problems(problems, console)
        if not is_evaluation:
            num_held_out = sum(map(len, problems.evaluate.values()))
            written = disk(recipe, num_held_out, measure_model(str(base.path)))
            for warning in (*recipe_warnings(recipe), *disk_warnings(written, run_dir)):
                console.warn(warning)
        store = TrajectoryStore(run_dir)
        yield Context(
            recipe=recipe,
            run_dir=run_dir,
            rollout=Rollout(engine=engine, verify=heartbeat.watching(pool), rewards=recipe.rewards),
            base=base,
            problems=problems,
            store=store,
            divergence=Divergence(engine, store, confidence=recipe.evaluate.confidence),
            log=run_log,
            console=console,
            manifest=manifest,
            interrupt=interrupt,
            heartbeat=heartbeat,
        )


def show_problems(problems: RunProblems, console: Console) -> None:
    """Show what was loaded and left out, the first prompt as the policy gets it, and warnings."""
    for note in problems.notes:
        console.say(note)
    if problems.first_prompt:
        console.say(f"First prompt:\n{shown(problems.first_prompt)}")
    for warning in problems.warnings:
        console.warn(warning)


def drop_orphans(run_dir: Path, manifest: Manifest) -> None:
    """Remove saved states of a killed process that the manifest does not point at."""
    point = manifest.in_progress
    kept = point and point["state"]
    for state in (run_dir / "state").glob("*"):
        if str(state.relative_to(run_dir)) != kept:
            shutil.rmtree(state, ignore_errors=True)


def measured(recipe: Recipe, problems: RunProblems, engine: Engine) -> dict[str, str]:
    """Return what the console shows before an evaluation."""
    config, held_out = recipe.evaluate, _held_out(problems)
    samples = f"{config.samples} per problem, temperature {config.sampling.temperature:g}"
    policy = {"policy": recipe.policy.path, "held out": held_out, "samples": samples}
    return {**policy, **engine.describe()}


def _held_out(problems: RunProblems) -> str:
    return ", ".join(f"{name} ({len(those)})" for name, those in problems.evaluate.items())


def _weighted(recipe: Recipe) -> str:
    return " + ".join(f"{reward.weight:g} {reward.label}" for reward in recipe.rewards)


def facts(recipe: Recipe, problems: RunProblems, engine: Engine) -> dict[str, str]:
    """Return what the console shows before a run: model, tasks, method, budget, machine."""
    explore = recipe.explore
    tokens = run_completions(recipe) * explore.sampling.max_completion_tokens
    method = method_title(recipe.model_dump(mode="json"))
    turns = f"{recipe.iterations} x {explore.steps} RL steps"
    return {
        "run": f"{recipe.name}, seed {recipe.seed}",
        "model": recipe.policy.path,
        "train": f"{len(problems.train)} problems",
        "held out": _held_out(problems),
        "method": f"{method}, {turns}, {explore.loss} loss",
        **({"reward": _weighted(recipe)} if recipe.rewards else {}),
        "budget": f"{explore.prompts_per_step} prompts x {explore.group_size} completions per "
        f"step, at most {tokens:,} tokens",
        **engine.describe(),
    }


def prepare_base(recipe: Recipe, run_dir: Path, engine: Engine, manifest: Manifest) -> PolicyRef:
    """Return the recipe's base policy as a Hugging Face directory, prepared once, and load it.

    In an evaluation it has the name of `policy.path`.
    """
    found = manifest.result("0/prepare")
    if found is not None:
        policy = policy_from(found, run_dir)
        engine.load(policy)
    else:
        directory = run_dir / "policies" / "base"
        policy = engine.prepare(recipe.policy.path, directory, seed=recipe.seed)
        manifest.complete("0/prepare", policy_result(policy, run_dir))
    return replace(policy, name=policy_name(recipe)) if manifest.is_evaluation else policy


def check_same_problems(manifest: Manifest, problems: RunProblems) -> None:
    """Record the problems of a new run; refuse to resume a run with other problems."""
    found, digest = manifest.result("0/problems"), problems.digest()
    if found is None:
        counts = {"train": len(problems.train), "coldstart": len(problems.coldstart)}
        counts |= {name: len(those) for name, those in problems.evaluate.items()}
        manifest.complete("0/problems", {"digest": digest, "counts": counts})
    elif found["digest"] != digest:
        raise StoreError(
            f"The problems differ from those the run started with ({found['counts']}). Restore "
            "the files it had then (tasks.data_dir, RLOOP_DATA), or start a new run."
        )
