"""A recipe given to a run that has begun: what differs, and whether the run may go on with it.

It may where a run that had the new values from its very start would have come to where this one is:
more of the budget, and what decides no result.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from rloop.config import OptimizerConfig, Recipe
from rloop.errors import ConfigError
from rloop.loop.state import Manifest, write_whole
from rloop.recipe import resolved_json

FREE = frozenset(
    {
        *("explore.checkpoint_every", "keep_explored", "sinks"),
        *("tasks.data_dir", "tasks.verifier_workers"),
    }
)
"""Keys that decide no result; whether the problems are the same is checked by themselves."""
ROUNDING = frozenset(
    {
        *("engine.max_batch", "engine.microbatch_tokens"),
        *("engine.gradient_checkpointing", "engine.offload_optimizer"),
    }
)
"""Keys that decide how large sums are cut: memory, speed, and the last bits of every number."""
RAISED = frozenset({"iterations", "tasks.max_error_frac"})
"""Keys that only say where a run ends. So does `explore.steps`, at times."""

CAN_CHANGE = (
    f"What a run can change: {', '.join(sorted(RAISED))}, to more; explore.steps, to more, while "
    "the learning rate is constant and the first exploration is not through; "
    f"{', '.join(sorted(FREE | ROUNDING))}."
)

Differences = Mapping[str, tuple[object, object]]
"""Dotted key -> old and new value, where the two differ."""


def recipe_in_force(
    run_dir: Path, written: Recipe, given: Recipe | None, manifest: Manifest
) -> tuple[Recipe, list[str]]:
    """Return the recipe to go on with, and sentences about what changed.

    `written` is the run's config.json, `given` what the command line asks for. A change that is
    accepted is recorded; ConfigError shows the difference where it must not be.
    """
    config = run_dir / "config.json"
    if not manifest.recipes:
        manifest.record_recipe(_data(written))
    *_, recipe = known = [Recipe.model_validate(data) for data in manifest.recipes]
    edited = differences(recipe, written)
    if edited and written in known:
        # The process that recorded a change was killed before it wrote config.json.
        write_whole(config, resolved_json(recipe))
    elif edited:
        raise ConfigError(
            f"{config} was edited since the run began: {told(edited)}. Put it back; what may "
            f"change is asked for with the command, as in `rloop resume {run_dir} --set iterations=3`."
        )
    found = differences(recipe, given or recipe)
    if given is None or not found:
        return recipe, []
    refused = {k: pair for k, pair in found.items() if not _is_allowed(k, recipe, given, manifest)}
    if refused:
        raise ConfigError(
            f"{run_dir} cannot go on with another recipe: {told(refused)}. What is done would have "
            f"come out otherwise; begin a new run: `rloop run RECIPE --out DIR`. {CAN_CHANGE}"
        )
    manifest.record_recipe(_data(given))
    write_whole(config, resolved_json(given))
    notes = [f"The recipe is changed from here on: {told(found)}."]
    if ROUNDING & found.keys():
        notes.append(
            "Sums are cut in other ways from here on: numbers equal those of a run without the "
            "change up to rounding, not to the bit."
        )
    return given, notes


def _is_allowed(key: str, old: Recipe, new: Recipe, manifest: Manifest) -> bool:
    if key == "explore.steps":
        return new.explore.steps > old.explore.steps and _steps_may_grow(old, manifest)
    if key in RAISED:
        before, after = (dict(_leaves(_data(recipe)))[key] for recipe in (old, new))
        return bool(after > before)
    return key in FREE | ROUNDING


def _steps_may_grow(recipe: Recipe, manifest: Manifest) -> bool:
    """Whether no exploration has come to its last step, or was steered by their number."""
    point = manifest.in_progress
    is_exploring = point is not None and point["key"] == "1/explore"
    optimizer: OptimizerConfig = recipe.explore.optimizer
    is_steered = optimizer.schedule != "constant" or optimizer.warmup_frac > 0
    if point is not None and is_exploring:
        return not is_steered and point["step"] < recipe.explore.steps
    return manifest.result("1/explore") is None


def differences(old: Recipe, new: Recipe) -> Differences:
    """Return the keys whose values differ, in the order of the recipe."""
    before, after = (dict(_leaves(_data(recipe))) for recipe in (old, new))
    keys = [key for key in before | after if before.get(key) != after.get(key)]
    return {key: (before.get(key), after.get(key)) for key in keys}


def told(found: Differences) -> str:
    """Return differences in words. Example: `iterations: 2 -> 3; seed: 0 -> 1`."""
    return "; ".join(f"{key}: {old!r} -> {new!r}" for key, (old, new) in found.items())


def _data(recipe: Recipe) -> dict[str, Any]:
    return recipe.model_dump(mode="json")


def _leaves(tree: object, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield values under dotted keys as `--set` has them; a list of plain values is one."""
    if isinstance(tree, list) and any(isinstance(entry, dict) for entry in tree):
        tree = dict(enumerate(tree))
    if not isinstance(tree, dict) or not tree:
        yield prefix, tree
        return
    for name, value in tree.items():
        yield from _leaves(value, f"{prefix}.{name}" if prefix else str(name))
