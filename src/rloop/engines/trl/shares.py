"""How a step's completions and a batch's examples are shared by processes, and what would fit."""

from collections.abc import Callable

from rloop.config import ColdstartConfig, FinetuneConfig, Recipe
from rloop.errors import ConfigError


def completions_share(recipe: Recipe, size: int) -> int:
    """Return the completions of one process in one update; ConfigError names values that fit."""
    explore = recipe.explore
    prompts, group, parts = explore.prompts_per_step, explore.group_size, explore.updates_per_step
    share, rest = divmod(prompts * group, size * parts)
    if not rest:
        return share
    remedies = [
        f"--set explore.prompts_per_step={_nearest(prompts, lambda n: n * group % (size * parts))}",
        f"--set explore.group_size={_nearest(group, lambda n: prompts * n % (size * parts), 2)}",
    ]
    remedies += _fewer_processes(recipe, size)
    raise ConfigError(
        f"{prompts * group} completions a step (explore.prompts_per_step={prompts} x "
        f"explore.group_size={group}) cannot be shared by {_processes(size)} in "
        f"explore.updates_per_step={parts} equal parts. Use {', '.join(remedies[:-1])} or "
        f"{remedies[-1]}."
    )


def examples_share(recipe: Recipe, config: FinetuneConfig | ColdstartConfig, size: int) -> int:
    """Return the examples of one process in one update; ConfigError names a batch that fits."""
    share, rest = divmod(config.batch_size, size)
    if not rest:
        return share
    phase = phase_name(config)
    nearest = _nearest(config.batch_size, lambda n: n % size)
    remedies = [f"--set {phase}.batch_size={nearest}", *_fewer_processes(recipe, size)]
    raise ConfigError(
        f"{phase}.batch_size={config.batch_size} cannot be shared by {_processes(size)}. Use "
        f"{' or '.join(remedies)}."
    )


def phase_name(config: FinetuneConfig | ColdstartConfig) -> str:
    """Return the section of the recipe that a fine-tuning phase is."""
    return "coldstart" if isinstance(config, ColdstartConfig) else "finetune"


def tuned_phases(recipe: Recipe) -> list[FinetuneConfig | ColdstartConfig]:
    """Return the sections of the recipe's fine-tuning phases."""
    phases: tuple[FinetuneConfig | ColdstartConfig | None, ...] = (
        recipe.coldstart,
        recipe.finetune,
    )
    return [config for config in phases if config is not None]


def _nearest(value: int, rest: Callable[[int], int], least: int = 1) -> int:
    """Return the number nearest to `value` that leaves no rest, the larger of two as near."""
    distance = 0
    while True:
        for number in (value + distance, value - distance):
            if number >= least and not rest(number):
                return number
        distance += 1


def _fewer_processes(recipe: Recipe, size: int) -> list[str]:
    """Return the most processes below `size` that share every batch of the recipe, if there are."""
    explore, machines = recipe.explore, recipe.engine.trl.launch.machines
    batch = explore.prompts_per_step * explore.group_size
    found = [
        n
        for n in range(machines, size, machines)
        if not batch % (n * explore.updates_per_step)
        and not any(config.batch_size % n for config in tuned_phases(recipe))
    ]
    return [f"--set engine.trl.launch.processes={n}" for n in found[-1:]]


def _processes(size: int) -> str:
    return "1 process" if size == 1 else f"{size} processes"
