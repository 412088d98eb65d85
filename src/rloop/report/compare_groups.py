"""Runs grouped by method: the same resolved recipe but for name, seed and what trains nothing."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rloop.errors import ConfigError
from rloop.methods import METHODS
from rloop.report.compare_runs import ComparedRun

UNTRAINED = (
    *("sinks.", "keep_explored.", "keep_policies.", "explore.checkpoint_every."),
    *("finetune.checkpoint_every.", "coldstart.checkpoint_every."),
    *("tasks.data_dir.", "tasks.verifier_workers."),
    *("engine.max_batch.", "engine.microbatch_tokens.", "engine.fused."),
    *("engine.gradient_checkpointing.", "engine.offload_optimizer."),
)
"""Beginnings of dotted keys that decide where things go, how fast, or the last bits of a number."""
DATED = ("prompt.date.",)
"""What matters only to a chat template that writes it; prompts that differ are warned of anyway."""
MEASURED = ("evaluate.", "tasks.evaluate.")
"""Beginnings of those that decide how a policy is measured."""
MAX_KEYS = 3
"""Of a recipe, in a label."""
MAX_VALUE = 24
"""Characters of a value there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MethodGroup:
    """The runs of one method, one a seed.

    Example: MethodGroup(label="Plain RL", runs=(rl_seed_0, rl_seed_1))
    """

    label: str
    """The method, with the keys that differ where two groups have the same method."""
    runs: tuple[ComparedRun, ...]

    @property
    def seeds(self) -> tuple[int, ...]:
        """Return the seeds, rising."""
        return tuple(run.seed for run in self.runs)


def group_runs(runs: Sequence[ComparedRun]) -> list[MethodGroup]:
    """Return the runs by method: in the order of `METHODS`, others after them as they came."""
    by_recipe: dict[str, list[ComparedRun]] = {}
    for run in runs:
        recipe = json.dumps([run.title, training_keys(run.recipe)], sort_keys=True)
        by_recipe.setdefault(recipe, []).append(run)
    order = [method.title for method in METHODS.values()]
    groups = sorted(
        by_recipe.values(),
        key=lambda group: order.index(group[0].method) if group[0].method in order else len(order),
    )
    labels = _labels([group[0] for group in groups])
    return [
        MethodGroup(label=label, runs=tuple(sorted(group, key=lambda run: (run.seed, run.name))))
        for label, group in zip(labels, groups, strict=True)
    ]


def choose_reference(groups: Sequence[MethodGroup], wanted: str | None) -> MethodGroup:
    """Return the group that others are compared with: as named, else plain RL, else the first.

    `wanted` is a label, a method's title or name, or a run's name. ConfigError where none fits.
    """
    if wanted is None:
        plain = [group for group in groups if group.runs[0].method == METHODS["rl"].title]
        return (plain or list(groups))[0]
    for group in groups:
        title = group.runs[0].method
        names = {group.label, title, *(run.name for run in group.runs)}
        names |= {method.name for method in METHODS.values() if method.title == title}
        if wanted.casefold() in {name.casefold() for name in names}:
            return group
    known = ", ".join(repr(group.label) for group in groups)
    raise ConfigError(f"--reference {wanted!r} is none of the methods here: {known}.")


def recipe_rows(groups: Sequence[MethodGroup]) -> list[tuple[str, tuple[str, ...]]]:
    """Return the keys whose values differ between methods, with the value of each.

    A part that is null in one recipe (`expert`) is one row, not one for each key inside it.
    """
    flat = [flatten_recipe(group.runs[0].recipe) for group in groups]
    nulls = {key for recipe in flat for key, value in recipe.items() if value == "null"}
    rows = []
    for key in _differing(flat):
        present = {recipe[key] for recipe in flat if key in recipe}
        is_inside = any(key.startswith(f"{null}.") for null in nulls)
        if len(present) > 1 or not is_inside:
            is_part = any(other.startswith(f"{key}.") for recipe in flat for other in recipe)
            absent = "given" if is_part else "--"
            rows.append((key, tuple(recipe.get(key, absent) for recipe in flat)))
    return rows


def training_keys(recipe: Mapping[str, Any]) -> dict[str, str]:
    """Return the keys of `flatten_recipe` that decide what a policy learns.

    How it is measured does not, unless exploration ends early by what is measured.
    """
    flat = flatten_recipe(recipe)
    is_free: tuple[str, ...] = (*UNTRAINED, *DATED)
    if flat.get("explore.early_stop.pass_at_k_falls", "false") in ("false", "null", "0"):
        is_free = (*is_free, *MEASURED)
    return {key: value for key, value in flat.items() if not f"{key}.".startswith(is_free)}


def flatten_recipe(tree: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Return nested values as dotted keys and JSON. Example: {"a": [{"b": None}]} -> a.0.b: null.

    A list of single values stays one.
    """
    flat: dict[str, str] = {}
    for name, value in tree.items():
        if isinstance(value, list) and any(isinstance(member, Mapping) for member in value):
            value = {str(index): member for index, member in enumerate(value)}
        if isinstance(value, Mapping) and value:
            flat |= flatten_recipe(value, f"{prefix}{name}.")
        else:
            flat[f"{prefix}{name}"] = json.dumps(value)
    return flat


def _labels(firsts: Sequence[ComparedRun]) -> list[str]:
    """Return each group's label: its title, told apart by recipe keys where titles repeat."""
    titles = Counter(run.title for run in firsts)
    labels = []
    for run in firsts:
        if titles[run.title] == 1:
            labels.append(run.title)
            continue
        same = [other.recipe for other in firsts if other.title == run.title]
        decide = {key for recipe in same for key in training_keys(recipe)}
        keys = [key for key in _differing([*map(flatten_recipe, same)]) if key in decide]
        mine = flatten_recipe(run.recipe)
        told = [f"{key}={_short(mine.get(key, 'absent'))}" for key in keys[:MAX_KEYS]]
        more = f", {len(keys) - MAX_KEYS} more keys" if len(keys) > MAX_KEYS else ""
        labels.append(f"{run.title} ({', '.join(told)}{more})")
    return [
        f"{label} #{labels[: index + 1].count(label)}" if labels.count(label) > 1 else label
        for index, label in enumerate(labels)
    ]


def _short(text: str) -> str:
    return text if len(text) <= MAX_VALUE else f"{text[: MAX_VALUE - 3]}..."


def _differing(recipes: Sequence[Mapping[str, str]]) -> list[str]:
    every = dict.fromkeys(key for recipe in recipes for key in recipe)
    return [key for key in every if len({recipe.get(key) for recipe in recipes}) > 1]
