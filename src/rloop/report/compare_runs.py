"""The runs that are compared, read, and grouped by method: the same resolved recipe but for name,
seed and what trains nothing.

A folder of `rloop eval` counts as a run with one policy; where that policy lies in a run, method
and seed are that run's.
"""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from rloop.errors import ConfigError, StoreError
from rloop.evaluation.checkpoints import Checkpoint
from rloop.observe.metric_keys import flatten
from rloop.recipe.config import Recipe
from rloop.recipe.keys import FREE, ROUNDING
from rloop.recipe.load import recipe_of_policy
from rloop.recipe.methods import METHODS, method_title
from rloop.report.held_out import HeldOut, read_held_out
from rloop.run_directory import Run, is_run, read_run
from rloop.store.trajectories import TrajectoryStore
from rloop.text import visible

DATED = ("prompt.date.",)
"""What matters only to a chat template that writes it; prompts that differ are warned of anyway."""
MEASURED = ("evaluate.", "tasks.evaluate.")
"""Beginnings of those that decide how a policy is measured."""
MAX_KEYS = 3
"""Of a recipe, in a label."""
MAX_VALUE = 24
"""Characters of a value there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskRun:
    """One held-out task of one run, at the policies that the method would hand over.

    Example: TaskRun(path=(base, iter_1, iter_2), has_reference=True)
    """

    path: tuple[Checkpoint, ...]
    """The reference policy first, then the policies kept; for plain RL each measured one."""
    has_reference: bool

    @property
    def final(self) -> Checkpoint:
        """The policy that the run ends with."""
        return self.path[-1]


@dataclass(frozen=True, slots=True, kw_only=True)
class ComparedRun:
    """One run, read.

    Example: ComparedRun(name="rl-seed-0", run=Run(...), method="Plain RL", policy="",
    recipe={...}, seed=0, tasks={"sums": TaskRun(...)}, versions={"template_version": {"1a2b"}})
    """

    name: str
    """Of its directory, safe to print."""
    run: Run
    method: str
    """The title of its method; empty for a policy that no run here trained."""
    policy: str
    """Which one was measured, in a folder of `rloop eval`; else empty: the last."""
    recipe: Mapping[str, Any]
    """Resolved, of what trained the policy; runs with the same one differ in the seed."""
    seed: int
    tasks: Mapping[str, TaskRun]
    versions: Mapping[str, frozenset[str]]
    """Of prompt templates and verifiers, as the store has them."""

    @property
    def title(self) -> str:
        """Return what to call what was measured: the method, the policy, or both."""
        return ", ".join(part for part in (self.method, self.policy) if part)

    @property
    def directory(self) -> Path:
        """Where it lies; two runs may have the same name."""
        return self.run.directory


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


def find_runs(paths: Sequence[Path]) -> list[Path]:
    """Return the run directories named, each once; a folder stands for the runs in it."""
    found: dict[Path, Path] = {}
    for path in paths:
        children = sorted(path.iterdir()) if path.is_dir() else []
        inside = [path] if is_run(path) else [p for p in children if p.is_dir() and is_run(p)]
        if not inside:
            raise StoreError(
                f"{path} is not a run directory and contains none. Name folders that `rloop run`, "
                "`rloop eval` or `rloop sweep` wrote."
            )
        for run in inside:
            found.setdefault(run.resolve(), run)
    return list(found.values())


def read_compared(path: Path) -> tuple[ComparedRun | None, str]:
    """Return a run that can be compared, or None and why it is left out."""
    run = read_run(path)
    if not run.config.get("explore"):
        return None, f"{visible(path.name)} has no config.json with a recipe"
    if not run.is_complete:
        return None, f"{visible(path.name)} is not complete"
    tasks = {held.task: _task_run(held, run) for held in read_held_out(run)}
    if not tasks:
        return None, f"{visible(path.name)} has no evaluation"
    origin, method, policy = _origin(run)
    recipe = _in_full(origin)
    return ComparedRun(
        name=visible(path.resolve().name),
        run=run,
        method=method,
        policy=visible(policy),
        recipe={key: value for key, value in recipe.items() if key not in ("name", "seed")},
        seed=int(recipe.get("seed", 0)),
        tasks=tasks,
        versions=_versions(TrajectoryStore(path)),
    ), ""


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
    raise ConfigError(f"--reference {wanted!r} matches no method; choose one of {known}.")


def recipe_rows(groups: Sequence[MethodGroup]) -> list[tuple[str, tuple[str, ...]]]:
    """Return the keys whose values differ between methods, with the value of each.

    A part that is null in one recipe (`expert`) is one row, not one for each key inside it.
    """
    flat = [recipe_keys(group.runs[0].recipe) for group in groups]
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


def recipe_keys(recipe: Mapping[str, Any]) -> dict[str, str]:
    """Return a recipe as dotted keys and JSON. Example: {"a": [{"b": None}]} -> a.0.b: null."""
    return {key: json.dumps(value) for key, value in flatten(recipe).items()}


def training_keys(recipe: Mapping[str, Any]) -> dict[str, str]:
    """Return the keys that decide what a policy learns.

    How it is measured does not, unless exploration ends early by what is measured.
    """
    flat = recipe_keys(recipe)
    is_free: tuple[str, ...] = (*(f"{key}." for key in FREE | ROUNDING), *DATED)
    if flat.get("explore.early_stop.pass_at_k_falls", "false") in ("false", "null", "0"):
        is_free = (*is_free, *MEASURED)
    return {key: value for key, value in flat.items() if not f"{key}.".startswith(is_free)}


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
        keys = [key for key in _differing([*map(recipe_keys, same)]) if key in decide]
        mine = recipe_keys(run.recipe)
        told = [f"{key}={_short(mine.get(key, 'absent'))}" for key in keys[:MAX_KEYS]]
        more = f", {len(keys) - MAX_KEYS} more keys" if len(keys) > MAX_KEYS else ""
        labels.append(f"{run.title} ({', '.join(told)}{more})")
    return [
        f"{label} #{labels[: index + 1].count(label)}" if labels.count(label) > 1 else label
        for index, label in enumerate(labels)
    ]


def _short(text: str) -> str:
    """Return the ends of a value: paths of one folder differ in their last part."""
    half = MAX_VALUE // 2
    return text if len(text) <= MAX_VALUE else f"{text[: half - 3]}...{text[-half:]}"


def _differing(recipes: Sequence[Mapping[str, str]]) -> list[str]:
    every = dict.fromkeys(key for recipe in recipes for key in recipe)
    return [key for key in every if len({recipe.get(key) for recipe in recipes}) > 1]


def _task_run(held: HeldOut, run: Run) -> TaskRun:
    """Return the path of a task; plain RL could have ended at each of its measured steps."""
    if run.is_plain_rl and held.has_reference:
        inside = [checkpoint for checkpoint in held.checkpoints if not checkpoint.is_kept]
        return TaskRun(path=(held.reference, *inside), has_reference=True)
    return TaskRun(path=held.line, has_reference=held.has_reference and len(held.line) > 1)


def _origin(run: Run) -> tuple[Mapping[str, Any], str, str]:
    """Return the recipe that trained the policy, its method, and the policy of an evaluation."""
    config = run.config
    if not run.is_evaluation:
        return config, method_title(config), ""
    path = str(run.phases.get("0/prepare", config["policy"])["path"])
    trained_by = recipe_of_policy(path)
    origin = config if trained_by is None else read_run(trained_by.parent).config
    temperature = _temperature(config)
    usual = 1.0 if trained_by is None else _temperature(origin)
    # A policy at another temperature is another thing to compare, not another seed.
    policy = Path(path).name + (f" at temperature {temperature:g}" if temperature != usual else "")
    return origin, "" if trained_by is None else method_title(origin), policy


def _temperature(config: Mapping[str, Any]) -> float:
    sampling = config.get("evaluate", {}).get("sampling") or {}
    return float(sampling.get("temperature", 1.0))


def _in_full(recipe: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return a recipe with the defaults of keys that came after it, so that it equals today's."""
    try:
        return Recipe.model_validate(recipe).model_dump(mode="json")
    except ValidationError:
        return recipe


def _versions(store: TrajectoryStore) -> dict[str, frozenset[str]]:
    names = ("template_version", "verifier_version")
    found = store.query(
        f"select distinct {', '.join(names)} from trajectories where phase = 'evaluate'"
    ).to_pylist()
    return {name: frozenset(str(row[name]) for row in found) for name in names}
