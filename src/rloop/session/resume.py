"""What resuming a run does: which phases it skips, and whether it can continue with a changed
recipe.

A change is allowed if a run with the new values from the start would have reached the same state: a
larger budget, or keys that do not affect results.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from rloop.disk import write_text
from rloop.errors import ConfigError
from rloop.loop.manifest import Manifest
from rloop.recipe.config import Recipe
from rloop.recipe.keys import FREE, ROUNDING
from rloop.recipe.load import resolved_json
from rloop.recipe.methods import last_phase
from rloop.store.trajectories import TrajectoryStore

RAISED = frozenset({"iterations", "tasks.max_error_frac"})
"""Keys that only say where a run ends."""

CAN_CHANGE = (
    f"These can be increased: {', '.join(sorted(RAISED))}. These can be changed: "
    f"{', '.join(sorted(FREE | ROUNDING))}."
)

Differences = Mapping[str, tuple[Any, Any]]
"""Dotted key -> old and new value, for each difference."""


def recipe_in_force(
    run_dir: Path, written: Recipe, given: Recipe | None, manifest: Manifest
) -> tuple[Recipe, list[str]]:
    """Return the recipe to continue with, and sentences about what changed.

    `written` is the run's config.json, `given` what the command line asks for. An accepted change
    is recorded; a refused one raises ConfigError with the difference.
    """
    config = run_dir / "config.json"
    if not manifest.recipes:
        manifest.record_recipe(_data(written))
    *_, recipe = known = [Recipe.model_validate(data) for data in manifest.recipes]
    edited = differences(recipe, written)
    if edited and written in known:
        # The process that recorded a change was killed before it wrote config.json.
        write_text(config, resolved_json(recipe))
    elif edited:
        raise ConfigError(
            f"{config} was edited since the run began: {told(edited)}. Put it back, and make "
            f"changes on the command line, as in `rloop resume {run_dir} --set iterations=3`."
        )
    if given is not None and recipe.prompt.date:
        given = given.dated(recipe.prompt.date)
    found = differences(recipe, given or recipe)
    if given is None or not found:
        return recipe, []
    refused = {key: pair for key, pair in found.items() if not _is_allowed(key, *pair)}
    if refused:
        lines = "\n  " + told(refused, "\n  ")
        raise ConfigError(
            f"{run_dir} cannot continue with a changed recipe:{lines}\nThe steps already done used "
            "the old values. Start a new run with `rloop run RECIPE --out DIR`; to start it from "
            f"the last policy, add --set policy.path={_last_policy(run_dir, manifest)}.\n"
            f"{CAN_CHANGE}"
        )
    manifest.record_recipe(_data(given))
    write_text(config, resolved_json(given))
    notes = [f"The recipe changes from here on: {told(found)}."]
    if ROUNDING & found.keys():
        notes.append(
            "Sums are split differently from here on, so numbers equal those of a run without the "
            "change only up to rounding."
        )
    return given, notes


def _last_policy(run_dir: Path, manifest: Manifest) -> Path:
    """Return the newest policy of a run that is still there; its folder of policies without one."""
    made = [result.get("path") for result in manifest.phases.values() if "policy" in result]
    kept = [run_dir / path for path in made if path and (run_dir / path).is_dir()]
    return kept[-1] if kept else run_dir / "policies"


def _is_allowed(key: str, old: Any, new: Any) -> bool:  # noqa: ANN401 (JSON)
    return bool(new > old) if key in RAISED else key in FREE | ROUNDING


def differences(old: Recipe, new: Recipe) -> Differences:
    """Return the keys whose values differ, in the order of the recipe.

    A recipe without `prompt.date` has that of the other.
    """
    day = old.prompt.date or new.prompt.date
    if day:
        old, new = old.dated(day), new.dated(day)
    return dict(_differences(_data(old), _data(new), ""))


def told(found: Differences, separator: str = "; ") -> str:
    """Return differences in words. Example: `iterations: 2 -> 3; seed: 0 -> 1`."""
    pairs = found.items()
    return separator.join(f"{key}: {old!r:.60} -> {new!r:.60}" for key, (old, new) in pairs)


def _data(recipe: Recipe) -> dict[str, Any]:
    return recipe.model_dump(mode="json")


def _differences(old: Any, new: Any, key: str) -> Iterator[tuple[str, tuple[Any, Any]]]:  # noqa: ANN401 (JSON)
    """Yield the innermost keys, as `--set` has them, at which two values differ."""
    if isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        are_tasks = any(isinstance(entry, dict) for entry in old)
        old, new = (dict(enumerate(old)), dict(enumerate(new))) if are_tasks else (old, new)
    if isinstance(old, dict) and isinstance(new, dict):
        for name in old | new:
            inner = f"{key}.{name}" if key else str(name)
            yield from _differences(old.get(name), new.get(name), inner)
    elif old != new:
        yield key, (old, new)


def plan(manifest: Manifest, store: TrajectoryStore, recipe: Recipe) -> Iterator[str]:
    """Yield what is complete, where the run continues, and which steps are repeated."""
    is_complete = last_phase(recipe.model_dump(mode="json")) in manifest.phases
    phases: dict[str, list[str]] = {}
    for key in manifest.completed():
        iteration, _, name = key.partition("/")
        phases.setdefault(iteration, []).append(name.replace("/", " "))
    complete = [f"iteration {i} ({', '.join(names)})" for i, names in phases.items()]
    if is_complete:
        yield "The run is complete; to continue it, use `--set iterations=N`."
    else:
        yield f"Skipping what is complete: {', '.join(complete) or 'nothing'}."
    point = manifest.in_progress
    if point is None:
        return
    iteration, _, name = point["key"].partition("/")
    where = f"{name.replace('/', ' ')} of iteration {iteration}"
    if name == "explore":
        yield from _redone(where, int(iteration), point, store)
    elif name.startswith("evaluate"):
        yield f"Continuing with {where}; stored problems are not sampled again."
    elif point["step"]:
        yield f"Continuing with {where} after update {point['step']}."
    else:
        yield f"Starting {where} over."


def _redone(
    where: str, iteration: int, point: Mapping[str, Any], store: TrajectoryStore
) -> Iterator[str]:
    step = last = int(point["step"])
    while store.count(iteration=iteration, phase="explore", step=last + 1):
        last += 1
    saved = f"the saved point at step {step}" if step else "there is no saved point yet"
    yield f"Continuing with {where} after step {step}." if step else f"Starting {where} over."
    if last > step:
        steps = f"step {last}" if last == step + 1 else f"steps {step + 1} to {last}"
        reason = f"{saved} does not cover {'it' if last == step + 1 else 'them'}" if step else saved
        yield f"Redoing {steps}: {reason}. What was sampled is stored and not sampled again."
