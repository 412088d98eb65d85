"""Policies measured at several temperatures: what sharpening alone gives, and what training adds to
it.

The folder has one evaluation per point, in the form that `rloop eval` writes:

    runs/temperatures-iter-002/
      plan.json        what is measured: policy, temperature, folder and recipe of each point
      base-t0.5/  base-t1/  iter-002-t0.5/  iter-002-t1/  ...
      scores.json      every number, when all are measured
      sharpening.json  whether each policy is more than a sharper base (evaluation/sharpening.py)

A policy is loaded once for all its temperatures. All points share problems, number of samples and
random streams, so only policy and temperature differ.
"""

import json
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext
from dataclasses import asdict, dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import Any

from rloop.disk import write_text
from rloop.errors import ConfigError, StoreError
from rloop.evaluation.sharpening import Curve, curve_k, gain_over_base, gain_sentence
from rloop.evaluation.tallies import tally_rows
from rloop.loop.context import Context, policy_from, policy_result
from rloop.loop.interrupt import Interrupt
from rloop.loop.manifest import Manifest, RunLock
from rloop.loop.phases import Phases
from rloop.observe.console import Console
from rloop.observe.run_log import RunLog
from rloop.policies.prompts import today
from rloop.recipe.config import Recipe
from rloop.recipe.load import recipe_of_policy
from rloop.run_directory import temperatures_folder
from rloop.session.environment import add_engine
from rloop.session.evaluate import scores_in
from rloop.session.process import (
    EngineBuilder,
    begin,
    check_same_problems,
    exit_code,
    make_directory,
    open_run,
)
from rloop.store.trajectories import TrajectoryStore
from rloop.types import PolicyRef

PLAN = "plan.json"
GAINS = "sharpening.json"
SCORES = "scores.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """A policy at a temperature.

    Example: Point(policy="iter-002", temperature=0.5, folder="iter-002-t0.5", is_base=False,
    recipe=Recipe(...))
    """

    policy: str
    """Its name in tables and charts."""
    temperature: float
    folder: str
    """Folder of its evaluation, inside the folder of all points."""
    is_base: bool
    """Whether it is the policy that entered a measured policy's loop: the curve to beat."""
    recipe: Recipe


Opener = Callable[[Point], AbstractContextManager[Context]]
"""Opens a context that holds the point's policy, in the point's directory or in another."""


def write_means(policies: Sequence[str], fractions: Sequence[float], folder: Path) -> list[str]:
    """Write means of each policy's weights and its base's into `folder/policies`; return their
    paths.

    A fraction is the policy's part, the rest is what the loop of its run began with. What is there
    is not written again. ConfigError for a policy that lies in no run with its base.
    """
    from rloop.policies.mean import mean_policy

    found = []
    for policy in policies:
        base, path = loop_start(policy), Path(policy).resolve()
        if base is None or not path.is_dir():
            raise ConfigError(
                f"{policy} is not in a run that has its base, so --mix has nothing to average it "
                "with. Name RUN/policies/NAME, or leave --mix out."
            )
        for fraction in fractions:
            name = f"{path.parts[-3]}-{path.name}-{fraction:g}"
            directory = folder / "policies" / name
            parts = (
                (PolicyRef(name="base", path=Path(base)), 1 - fraction),
                (PolicyRef(name=path.name, path=path), fraction),
            )
            if not directory.exists():
                make_directory(directory.parent)
                mean_policy(parts, directory, name, seed=0)
            found.append(str(directory))
    return found


def with_bases(policies: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return the policies that entered the loops of the runs, and the other policies, each once."""
    bases = list(
        {Path(path).resolve(): path for path in map(loop_start, policies) if path}.values()
    )
    known = {Path(path).resolve() for path in bases}
    others = {
        Path(policy).resolve() if Path(policy).exists() else policy: policy for policy in policies
    }
    return bases, [policy for where, policy in others.items() if where not in known]


def loop_start(policy: str) -> str | None:
    """Return the policy that entered the loop of a policy's run; None if there is none.

    That is the cold-started policy if there is one, else the base.
    """
    config = recipe_of_policy(policy)
    if config is None:
        return None
    run_dir = config.parent
    manifest = Manifest(run_dir)
    found = manifest.result("0/coldstart") or manifest.result("0/prepare")
    if found is None:
        return None
    path = policy_from(found, run_dir).path
    return str(path) if path.exists() else None  # `keep_policies: last` may have removed it


def plan_points(
    recipes: Sequence[Recipe],
    temperatures: Sequence[float],
    bases: Sequence[str],
    names: Sequence[str] = (),
) -> list[Point]:
    """Return every policy at every temperature; each recipe names one policy in `policy.path`.

    `bases` are the paths of the policies to beat. `names` are what tables call the policies; when
    absent, the names of their directories, and where those are equal, their run's name too.
    """
    names = names or _names([recipe.policy.path for recipe in recipes])
    points = []
    for name, recipe in zip(names, recipes, strict=True):
        for temperature in temperatures:
            sampling = recipe.evaluate.sampling.model_copy(update={"temperature": temperature})
            evaluate = recipe.evaluate.model_copy(update={"sampling": sampling})
            stem = re.sub(r"[^A-Za-z0-9._-]+", "-", name)[:80]
            points.append(
                Point(
                    policy=name,
                    temperature=temperature,
                    folder=f"{stem}-t{temperature:g}",
                    is_base=recipe.policy.path in bases,
                    recipe=recipe.model_copy(update={"evaluate": evaluate}).dated(today()),
                )
            )
    return points


def measure_points(points: Sequence[Point], folder: Path, build_engine: EngineBuilder) -> int:
    """Measure what is not complete yet, and write `scores.json`; return the exit code.

    The folder is new, or one that was begun with these very points; else ConfigError.
    """
    if is_planned(folder) and read_plan(folder) != list(points):
        raise ConfigError(
            f"{folder} was begun with other policies, temperatures or settings. Continue that with "
            f"`rloop resume {folder}`, or choose another --out."
        )
    console = Console()

    def measure(interrupt: Interrupt) -> None:
        @contextmanager
        def opened(point: Point) -> Iterator[Context]:
            home = folder / point.folder
            with _begun(home, point.recipe):
                run = open_run(point.recipe, home, build_engine, console, interrupt)
                with run as context:
                    yield context

        _measure_points(points, folder, opened)

    return exit_code(measure, folder, console, has_begun=lambda: True)


def read_points(folder: Path) -> list[dict[str, Any]]:
    """Return the numbers of a folder whose points are all measured, a row for each.

    Keys are policy, temperature, is_base and folder of the point, and the fields of a `Score`.
    """
    found: list[dict[str, Any]] = json.loads((folder / SCORES).read_text())
    return found


def measure_after_training(context: Context, base: PolicyRef, policy: PolicyRef) -> None:
    """Measure what a run began and ended with at `evaluate.temperatures`, on the run's engine.

    Into `temperatures/POLICY-nSAMPLES` of the run; what is complete there is read. Prints whether
    the policy is more than sharpening.
    """
    recipe = context.recipe
    temperatures = sorted(set(recipe.evaluate.temperatures))
    if not temperatures or not policy.path.exists():  # RL may have broken the policy
        return
    samples = recipe.evaluate.samples_per_temperature
    ks = tuple(k for k in recipe.evaluate.k if k <= samples)
    few = {"samples": samples, "k": ks if max(ks, default=1) > 1 else tuple({1, samples})}
    recipes = [
        recipe.model_copy(
            update={
                "policy": recipe.policy.model_copy(update={"path": str(one.path)}),
                "evaluate": recipe.evaluate.model_copy(update=few),
            }
        )
        for one in (base, policy)
    ]
    points = plan_points(recipes, temperatures, [str(base.path)], [base.name, policy.name])
    folder = temperatures_folder(context.run_dir, policy.name, samples)
    listed = ", ".join(f"{temperature:g}" for temperature in temperatures)
    context.console.say(
        f"More than sharpening? {base.name} and {policy.name} at temperatures {listed}, "
        f"{samples} completions per problem."
    )
    held_out = replace(context.problems, train=(), coldstart=())

    def opened(point: Point) -> AbstractContextManager[Context]:
        path = Path(point.recipe.policy.path).resolve()
        measured = PolicyRef(name=path.name, path=path)
        return nullcontext(replace(context, base=measured, problems=held_out))

    _measure_points(points, folder, opened)
    for gain in json.loads((folder / GAINS).read_text()):
        context.console.say(f"{gain_sentence(gain)}")


def _measure_points(points: Sequence[Point], folder: Path, opened: Opener) -> None:
    make_directory(folder)
    with RunLock(folder):
        if not (folder / PLAN).exists() and set(folder.iterdir()) - {
            folder / ".lock",
            folder / "policies",
        }:
            raise ConfigError(f"{folder} is not empty. Choose another --out.")
        plan = [asdict(p) | {"recipe": p.recipe.model_dump(mode="json")} for p in points]
        write_text(folder / PLAN, json.dumps(plan, indent=2) + "\n")
        for _, those in groupby(points, key=lambda point: point.policy):
            left = [point for point in those if scores_in(folder / point.folder) is None]
            if left:
                with opened(left[0]) as context:
                    for point in left:
                        _measure(point, folder / point.folder, context)
        write_text(folder / SCORES, json.dumps(_numbers(points, folder), indent=2) + "\n")
        gains = gains_over_base(points, folder)
        write_text(folder / GAINS, json.dumps(gains, indent=2) + "\n")


def _measure(point: Point, home: Path, context: Context) -> None:
    """Measure a point in its own directory, unless the context is open there."""
    if home == context.run_dir:
        return Phases(context).evaluate(context.base, iteration=0)
    context.console.header({"policy": point.policy, "temperature": f"{point.temperature:g}"})
    with _begun(home, point.recipe), closing(RunLog(home)) as log:
        manifest = Manifest(home)
        manifest.complete("0/prepare", policy_result(context.base, home))
        check_same_problems(manifest, context.problems)
        add_engine(home / "environment.json", context.engine.describe())
        store = TrajectoryStore(home)
        here = replace(
            context, recipe=point.recipe, run_dir=home, store=store, log=log, manifest=manifest
        )
        Phases(here).evaluate(context.base, iteration=0)


@contextmanager
def _begun(home: Path, recipe: Recipe) -> Iterator[None]:
    """Lock the directory of an evaluation; begin it if it is new."""
    make_directory(home)
    with RunLock(home):
        if not Manifest(home).recipes:
            begin(home, recipe, home, is_evaluation=True)
        yield


def gains_over_base(points: Sequence[Point], folder: Path) -> list[dict[str, Any]]:
    """Return how far each policy lies above the base's curve on each task: policy, task,
    temperature, k, value, low, high, verdict. Nothing where there is not one base.

    The temperature is the highest that was measured, chosen before anything is seen.
    """
    bases = [point for point in points if point.is_base]
    if len({point.policy for point in bases}) != 1:
        return []
    counts = {point.folder: _correct(point, folder) for point in points}
    found: list[dict[str, Any]] = []
    for name in dict.fromkeys(point.policy for point in points if not point.is_base):
        those = [point for point in points if point.policy == name]
        settings = those[0].recipe.evaluate
        for task in dict.fromkeys(task for point in those for task in counts[point.folder]):
            base, policy = (
                Curve.of(
                    [(p.temperature, counts[p.folder].get(task, {})) for p in side],
                    settings.samples,
                )
                for side in (bases, those)
            )
            gain = gain_over_base(
                base,
                policy,
                k=curve_k(settings.k, settings.samples),
                temperature=max(policy.temperatures),
                confidence=settings.confidence,
                seed=those[0].recipe.seed,
            )
            found.append({"policy": name, "task": task, **asdict(gain), "verdict": gain.verdict})
    return found


def _correct(point: Point, folder: Path) -> dict[str, dict[str, int]]:
    """Return the number of correct completions of each problem, by task."""
    found: dict[str, dict[str, int]] = {}
    for row in tally_rows(TrajectoryStore(folder / point.folder)):
        found.setdefault(row["task"], {})[row["problem_id"]] = row["correct"]
    return found


def is_planned(folder: Path) -> bool:
    """Whether a folder holds policies at several temperatures."""
    return (folder / PLAN).is_file()


def read_plan(folder: Path) -> list[Point]:
    """Return the points that a folder was started with."""
    try:
        rows: list[dict[str, Any]] = json.loads((folder / PLAN).read_text())
        return [Point(**row | {"recipe": Recipe.model_validate(row["recipe"])}) for row in rows]
    except (ValueError, TypeError, KeyError) as error:
        raise StoreError(
            f"{folder / PLAN} does not say what is measured; restore it from a backup, or start "
            "over with another --out."
        ) from error


def _numbers(points: Sequence[Point], folder: Path) -> list[dict[str, Any]]:
    """Return the rows of `scores.json`."""
    names = ("policy", "temperature", "is_base", "folder")
    return [
        {name: getattr(point, name) for name in names} | asdict(score)
        for point in points
        for score in scores_in(folder / point.folder) or ()
    ]


def _names(paths: Sequence[str]) -> list[str]:
    """Return the names of policies: the last part of the path, with the run's name if it
    repeats."""
    short = [Path(path).name for path in paths]
    times = Counter(short)
    return [
        name if times[name] == 1 else "/".join([*Path(path).resolve().parts[-3:-2], name])
        for name, path in zip(short, paths, strict=True)
    ]
