"""What must fit together in a recipe: errors, and warnings about values that are rarely meant.

`config.py` has the values themselves and calls this; a check only reads.
"""

import re
from collections import Counter
from collections.abc import Collection
from datetime import date
from typing import TYPE_CHECKING, Any

from rloop.errors import ConfigError

if TYPE_CHECKING:
    from rloop.recipe.config import Recipe, RewardConfig

BEST_BY = r"^(.+/)?(avg|pass@[1-9]\d*)$"
"""Form of `best_by`: a measure, perhaps behind a task."""
BUILT_IN_REWARDS = ("accuracy", "format", "length")


def check_date(text: str) -> str:
    """Return a date in its usual form; ValueError for what is none."""
    try:
        return date.fromisoformat(text).isoformat()
    except ValueError as error:
        raise ValueError(f"{text!r} is not a date. Give one such as 2026-11-30.") from error


def check_device(name: str) -> str:
    """Return the name of a device; ValueError for another."""
    if not re.fullmatch(r"auto|cpu|mps|cuda(:\d+)?", name):
        raise ValueError(f"{name!r} is not a device. Give auto, cpu, cuda, cuda:N or mps.")
    return name


def check_template_args(values: dict[str, Any]) -> dict[str, Any]:
    """Return arguments of a chat template; ValueError for those that it cannot get."""
    taken = sorted({"messages", "add_generation_prompt"} & set(values))
    if taken:
        raise ValueError(f"{taken[0]} is set by rloop itself. Remove it.")
    odd = [name for name in values if not name.isidentifier()]
    if odd:
        raise ValueError(f"{odd[0]!r} is not a valid name of a template variable. Correct it.")
    return values


def check_recipe(recipe: "Recipe") -> None:
    """Raise ValueError for values that do not fit together."""
    _check_across_fields(recipe)
    _check_steps(recipe)
    _check_replay(recipe)
    _check_rewards(recipe)
    _check_mix(recipe)
    _check_maxrl(recipe)
    _check_tinker(recipe)


def check_best_by(recipe: "Recipe", tasks: Collection[str]) -> None:
    """Raise ConfigError unless evaluations on the held-out tasks give the measure of `best_by`."""
    task, _, metric = recipe.best_by.rpartition("/")
    given = ["avg", *(f"pass@{k}" for k in recipe.evaluate.k)]
    if (task and task not in tasks) or metric not in given:
        raise ConfigError(
            f"best_by is {recipe.best_by!r}, but evaluations give {', '.join(given)}, of all tasks "
            f"or of one: {', '.join(f'{name}/avg' for name in tasks)}. Name one of these."
        )


def recipe_warnings(recipe: "Recipe") -> tuple[str, ...]:
    """Sentences about values that are allowed and probably not meant."""
    found = []
    sampling = recipe.explore.sampling
    is_cut = sampling.top_p < 1 or sampling.top_k > 0
    if is_cut and recipe.explore.optimizer.learning_rate > 0:
        found.append(
            f"explore.sampling cuts the distribution (top_p={sampling.top_p:g}, top_k="
            f"{sampling.top_k}) while log-probabilities are over the whole vocabulary, so the "
            "ratios of the policy loss are biased. Explore with top_p=1 and top_k=0."
        )
    template = recipe.prompt.template
    if recipe.prompt.system and template is not None and "{system}" not in template:
        found.append("prompt.system is not used: prompt.template has no {system} in it.")
    if recipe.prompt.template_args and template is not None:
        found.append("prompt.template_args are not used: prompt.template replaces the model's.")
    if recipe.rewards and all(reward.function != "accuracy" for reward in recipe.rewards):
        found.append(
            "rewards has no accuracy, so being correct earns nothing; groups are trained on "
            "only where some completions are correct and some wrong."
        )
    return tuple(found)


def _check_across_fields(recipe: "Recipe") -> None:
    too_large = [k for k in recipe.evaluate.k if k > recipe.evaluate.samples]
    if too_large:
        raise ValueError(
            f"evaluate.k: pass@{too_large[0]} needs at least {too_large[0]} samples per "
            f"problem, got evaluate.samples={recipe.evaluate.samples}. Raise evaluate.samples or "
            "drop that k."
        )
    if recipe.explore.group_size < 2 and recipe.explore.optimizer.learning_rate > 0:
        raise ValueError(
            "explore.group_size must be >= 2 so that rewards can be compared, got "
            f"{recipe.explore.group_size}. Use --set explore.group_size=8."
        )
    if recipe.explore.sampling.temperature == 0 and recipe.explore.group_size > 1:
        raise ValueError(
            "explore.sampling.temperature=0 makes the completions of a group equal, so there is "
            "nothing to compare. Use 1, or another temperature above 0."
        )
    if (recipe.expert is None) != (recipe.finetune is None):
        raise ValueError(
            "expert and finetune go together: give both for RLoop, or set both to null for "
            "plain RL."
        )
    template = recipe.prompt.template
    if template is not None and "{problem}" not in template:
        raise ValueError(f"prompt.template must contain {{problem}}, got {template!r:.60}.")
    if recipe.explore.early_stop.pass_at_k_falls and not recipe.evaluate.every:
        raise ValueError(
            "explore.early_stop.pass_at_k_falls needs evaluations inside exploration, got "
            "evaluate.every=0. Use --set evaluate.every=10."
        )


def _check_steps(recipe: "Recipe") -> None:
    explore, rules = recipe.explore, recipe.explore.early_stop
    if explore.updates_per_step > explore.prompts_per_step:
        raise ValueError(
            f"explore.updates_per_step={explore.updates_per_step} is more than explore."
            f"prompts_per_step={explore.prompts_per_step}: an update needs a group. Lower it."
        )
    if rules.min_steps > explore.steps:
        raise ValueError(
            f"explore.early_stop.min_steps={rules.min_steps} is more than explore.steps="
            f"{explore.steps}, so no rule could end an exploration. Lower it."
        )


def _check_replay(recipe: "Recipe") -> None:
    count = recipe.explore.replay_per_group
    if not count:
        return
    asked = f"explore.replay_per_group={count}"
    if recipe.finetune is not None or recipe.explore.optimizer.learning_rate == 0:
        raise ValueError(
            f"{asked} works only in plain RL with a learning rate above 0: set expert and "
            "finetune to null, or set it to 0."
        )
    if recipe.iterations < 2:
        raise ValueError(f"{asked} replays earlier iterations, got iterations=1. Set 2.")


def _check_rewards(recipe: "Recipe") -> None:
    for index, reward in enumerate(recipe.rewards):
        _check_reward(f"rewards.{index}", reward)
    counts = Counter(reward.label for reward in recipe.rewards)
    twice = [label for label, count in counts.items() if count > 1]
    if twice:
        raise ValueError(f"rewards: two are named {twice[0]!r}. Give one of them a `name`.")


def _check_reward(key: str, reward: "RewardConfig") -> None:
    function, pattern = reward.function, reward.pattern
    if function not in BUILT_IN_REWARDS and not function.startswith("python:"):
        raise ValueError(
            f"{key}: function {function!r} is unknown. Choose {', '.join(BUILT_IN_REWARDS)} or "
            "python:package.module:function."
        )
    if (function == "format") != (pattern is not None):
        raise ValueError(
            f"{key}: function {function} {'has no' if pattern else 'needs a'} pattern: the "
            "regular expression is for `format`, as in pattern: '<think>.*</think>.*'."
        )
    try:
        re.compile(pattern or "")
    except re.error as error:
        raise ValueError(
            f"{key}: pattern {pattern!r} is not a regular expression: {error}. In YAML write it "
            "in single quotes."
        ) from error


def _check_mix(recipe: "Recipe") -> None:
    mix = recipe.mix
    if mix is None:
        return
    total = mix.base + mix.start + mix.explored + mix.finetuned
    if abs(total - 1.0) > 1e-9:
        raise ValueError(f"the weights of mix must sum to 1, got {total:g}.")
    if mix.finetuned and recipe.finetune is None:
        raise ValueError(
            f"mix.finetuned={mix.finetuned:g} weighs a policy that finetune=null does not make. "
            "Set it to 0."
        )


def _check_maxrl(recipe: "Recipe") -> None:
    if recipe.explore.advantage != "maxrl":
        return
    divides = "explore.advantage=maxrl divides by the mean reward of a group, which must not be"
    if recipe.explore.overlong_buffer_tokens:
        raise ValueError(
            f"{divides} negative; the overlong penalty can make it so. Set "
            "explore.overlong_buffer_tokens=0."
        )
    for reward in recipe.rewards:
        if reward.weight < 0:
            raise ValueError(
                f"{divides} negative; rewards: {reward.label} has the weight {reward.weight:g}."
                " Make it positive, or choose another explore.advantage."
            )


def _check_tinker(recipe: "Recipe") -> None:
    """Check what the Tinker protocol can be asked for."""
    if recipe.engine.name != "tinker":
        return
    if recipe.engine.tinker is None:
        raise ValueError(
            "engine.name=tinker needs the server's address: "
            "--set engine.tinker='{base_url: http://127.0.0.1:8000}'."
        )
    explore = recipe.explore
    for is_asked, asked, why in (
        (recipe.engine.lora, "engine.lora", "engine.tinker.rank sets the adapters' rank"),
        (explore.sampler == "vllm", "explore.sampler=vllm", "the server samples"),
        (recipe.mix, "mix", "weights cannot be uploaded to a server"),
        (
            explore.sampling.temperature != 1.0,
            f"explore.sampling.temperature={explore.sampling.temperature:g}",
            "the server scores and trains at temperature 1",
        ),
        (
            explore.entropy_coef,
            f"explore.entropy_coef={explore.entropy_coef:g}",
            "the server returns log-probabilities of sampled tokens only",
        ),
    ):
        if is_asked:
            raise ValueError(
                f"{asked} does not go with engine.name=tinker: {why}. Leave it at its default."
            )
