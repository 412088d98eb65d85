"""Every key of a recipe in words, read from its models; nothing is written twice.

`rloop config` lists them; errors say by them what a value may be, and what an unknown key may mean.
"""

import difflib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt, MinLen
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from rloop.errors import ConfigError
from rloop.recipe.checks import BEST_BY
from rloop.recipe.config import Recipe
from rloop.recipe.defaults import COLDSTART, DEFAULTS

REQUIRED = "required"
PATTERNS = {
    r"^[A-Za-z0-9][A-Za-z0-9._-]*$": "of letters, digits, dots, underscores and hyphens, no spaces",
    r"^[A-Za-z0-9_]+$": "of letters, digits and underscores",
    BEST_BY: "such as avg, pass@8 or gsm8k/pass@8",
    r"^https?://[^/@\s]+(/[^@\s]*)?$": "that is an http address",
}
"""Patterns of texts, in words."""
MAX_MEANT = 3
"""Keys that an unknown one is taken for at most."""
FREE = frozenset(
    {
        *("explore.checkpoint_every", "finetune.checkpoint_every", "coldstart.checkpoint_every"),
        *("keep_explored", "keep_policies", "best_by", "sinks"),
        *("evaluate.temperatures", "evaluate.temperature_samples"),
        *("tasks.data_dir", "tasks.verifier_workers"),
        *("engine.tinker.base_url", "engine.tinker.max_in_flight", "engine.tinker.patience_s"),
    }
)
"""Keys that decide no result; whether the problems are the same is checked by themselves."""
ROUNDING = frozenset(
    {
        *("engine.max_batch", "engine.microbatch_tokens", "engine.fused"),
        *("engine.gradient_checkpointing", "engine.offload_optimizer"),
    }
)
"""Keys that decide how large sums are cut: memory, speed, and the last bits of every number."""
ELSEWHERE = {
    # TRL
    "beta": "explore.kl_coef",
    "epsilon": "explore.clip_low",
    "epsilon_high": "explore.clip_high",
    "gradient_accumulation_steps": "engine.microbatch_tokens",
    "loss_type": "explore.loss",
    "lr_scheduler_type": "explore.optimizer.schedule",
    "mask_truncated_completions": "explore.mask_truncated",
    "max_completion_length": "explore.sampling.max_completion_tokens",
    "max_grad_norm": "explore.optimizer.grad_clip",
    "max_prompt_length": "prompt.max_tokens",
    "max_steps": "explore.steps",
    "model_name_or_path": "policy.path",
    "num_generations": "explore.group_size",
    "num_iterations": "explore.updates_per_step",
    "num_train_epochs": "finetune.epochs",
    "per_device_train_batch_size": "explore.prompts_per_step",
    "report_to": "sinks",
    "reward_funcs": "rewards",
    "reward_weights": "rewards",
    "scale_rewards": "explore.advantage",
    "use_vllm": "explore.sampler",
    "warmup_ratio": "explore.optimizer.warmup_frac",
    # verl
    "adv_estimator": "explore.advantage",
    "clip_ratio_high": "explore.clip_high",
    "clip_ratio_low": "explore.clip_low",
    "entropy_coeff": "explore.entropy_coef",
    "kl_loss_coef": "explore.kl_coef",
    "lr": "explore.optimizer.learning_rate",
    "max_response_length": "explore.sampling.max_completion_tokens",
    "train_batch_size": "explore.prompts_per_step",
    # peft
    "lora_alpha": "engine.lora.alpha",
    "lora_r": "engine.lora.rank",
    "r": "engine.lora.rank",
}
"""Keys of TRL, verl and peft, and the nearest key here."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RecipeField:
    """One key; an entry of a list is N, `tasks.train.N.source`.

    Example: RecipeField(key="explore.steps", type="an integer >= 1", default="required",
    description="RL steps in each iteration.")
    """

    key: str
    type: str
    default: str
    """As JSON; `required` where a recipe must say it."""
    description: str


@cache
def recipe_fields() -> dict[str, RecipeField]:
    """Return every key of a recipe, parents before children, in the order of `config.py`."""
    return {field.key: field for field in _walk(Recipe, "")}


def fields_below(section: str | None) -> list[RecipeField]:
    """Return a key and those below it, or all keys; ConfigError for a key that no recipe has.

    Example: `explore.sampling`, `explore.sampling.top_p`, ... of `explore.sampling`
    """
    if section is None:
        return list(recipe_fields().values())
    key = general(section.split("."))
    found = [
        field
        for name, field in recipe_fields().items()
        if name == key or name.startswith(f"{key}.")
    ]
    if not found:
        raise ConfigError(explain_unknown(section.split(".")))
    return found


def general(path: Sequence[int | str]) -> str:
    """Return the key of a path. Example: `tasks.train.N.source` of tasks, train, 0, source."""
    return ".".join("N" if str(part).isdecimal() else str(part) for part in path)


def describe(path: Sequence[int | str]) -> str | None:
    """Return what the value at `path` may be, such as `an integer >= 1`; None for free values."""
    fields, key = recipe_fields(), general(path)
    if key in fields:
        return fields[key].type
    parent = fields.get(key.rpartition(".")[0])
    return parent.type.partition("each ")[2] or None if parent else None


def is_text(path: Sequence[str]) -> bool:
    """Return whether the value at `path` (list indexes as digits) is text."""
    return (describe(path) or "").startswith("text")


def keys_with_value(value: object, *, but: str) -> list[str]:
    """Return the keys whose choices have this value. Example: explore.advantage has `grpo`."""
    fields = (field for field in recipe_fields().values() if field.key != but)
    return [
        field.key
        for field in fields
        if str(value) in field.type.removeprefix("one of ").split(", ") and ", " in field.type
    ]


def explain_unknown(path: Sequence[int | str]) -> str:
    """Return a sentence on a key that no recipe has, with what it may mean and what there is."""
    *parents, unknown = path
    key, home = ".".join(map(str, path)), f"{general(parents)}." if parents else ""
    below = [name for name in recipe_fields() if name.startswith(home)]
    valid = [name[len(home) :] for name in below if "." not in name[len(home) :]]
    place = "".join(f"{part}." for part in parents)
    meant = [name for name in below if name.rpartition(".")[2] == unknown]
    if unknown in ELSEWHERE:
        said = f" The nearest key here is {ELSEWHERE[unknown]}."
    elif 0 < len(meant) <= MAX_MEANT:
        said = f" Did you mean {' or '.join(meant)}?"
    else:
        near = difflib.get_close_matches(str(unknown), valid, n=1, cutoff=0.6)
        said = f" Did you mean {place}{near[0]}?" if near else ""
    return (
        f"{key} is not a known key.{said} Keys of {place[:-1] or 'a recipe'}: {', '.join(valid)}."
    )


def _walk(model: type[BaseModel], prefix: str) -> Iterator[RecipeField]:
    for name, info in model.model_fields.items():
        yield RecipeField(
            key=prefix + name,
            type=_words(info.annotation, info.metadata),
            default=_default(info, prefix + name),
            description=" ".join((info.description or "").split()),
        )
        # a section, one that may be null, or a list of them
        for kind in (info.annotation, *get_args(info.annotation)):
            if isinstance(kind, type) and issubclass(kind, BaseModel):
                entry = "N." if get_origin(info.annotation) is tuple else ""
                yield from _walk(kind, f"{prefix}{name}.{entry}")


def _default(info: FieldInfo, key: str) -> str:
    if info.is_required():
        found: Any = {**DEFAULTS, "coldstart": COLDSTART}
        for part in key.split("."):
            found = found.get(part) if isinstance(found, Mapping) else None
        is_section = isinstance(found, Mapping)
        return "see below" if is_section else REQUIRED if found is None else json.dumps(found)
    return "see below" if isinstance(info.default, BaseModel) else json.dumps(info.default)


_PLAIN = {
    bool: "true or false",
    int: "an integer",
    float: "a number",
    str: "text",
    NoneType: "null",
}
_SIGNS = ((Ge, "ge", ">="), (Gt, "gt", ">"), (Le, "le", "<="), (Lt, "lt", "<"))


def _words(annotation: Any, constraints: Sequence[Any] = ()) -> str:  # noqa: ANN401 (a type)
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _words(arguments[0], arguments[1:])
    if origin in (Union, UnionType):
        return " or ".join(_words(argument) for argument in arguments)
    if origin is Literal:
        return "one of " + ", ".join(map(str, arguments)) if len(arguments) > 1 else arguments[0]
    flat = [
        inner
        for item in constraints
        for inner in (item.metadata if isinstance(item, FieldInfo) else [item])
    ]
    if origin is tuple:
        filled = "non-empty " if any(isinstance(item, MinLen) for item in flat) else ""
        return f"a {filled}list, each {_words(arguments[0])}"
    if origin is dict and arguments[1] is not Any:
        return f"a mapping, each {_words(arguments[1])}"
    return _PLAIN[annotation] + _limits(flat) if annotation in _PLAIN else "a mapping"


def _limits(constraints: Sequence[Any]) -> str:
    limits = [
        f"{sign} {getattr(item, name):g}"
        for item in constraints
        for kind, name, sign in _SIGNS
        if isinstance(item, kind)
    ]
    limits += [
        PATTERNS.get(item.pattern, f"matching {item.pattern}")
        for item in constraints
        if hasattr(item, "pattern")
    ]
    return " " + " and ".join(limits) if limits else ""
