"""A recipe as options of `GRPOConfig` and `SFTConfig`: what is translated, passed on, refused.

Torch-free. Every option that rloop sets names the recipe's key it comes from, so that a value in
two places is an error that names both. What TRL cannot do is an error here, or a warning.
"""

import difflib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rloop.config import ColdstartConfig, FinetuneConfig, OptimizerConfig, Recipe
from rloop.config_trl import LaunchConfig
from rloop.engines.trl.fields import option_names
from rloop.engines.trl.shares import completions_share, examples_share, phase_name, tuned_phases
from rloop.errors import ConfigError
from rloop.threads import allowed_cores
from rloop.types import Place, stable_hash

OWN = "set by rloop itself"
Options = dict[str, tuple[Any, str]]
"""An option of TRL -> its value, and the recipe's key that it comes from."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """Where the workers compute. Example: Site(size=2, is_cpu=True, is_bfloat16=False)."""

    size: int
    """Processes in all."""
    is_cpu: bool
    is_bfloat16: bool


def check_recipe(recipe: Recipe) -> list[str]:
    """Return warnings about what TRL does otherwise; ConfigError for what it cannot do at all."""
    explore, engine = recipe.explore, recipe.engine
    if explore.group_size < 2:
        raise ConfigError(
            f"engine.name=trl needs explore.group_size >= 2, got {explore.group_size}. "
            "Use --set explore.group_size=8, or --set engine.name=native."
        )
    if explore.sampling.temperature == 0:
        raise ConfigError(
            "engine.name=trl cannot explore at explore.sampling.temperature=0. Give a temperature "
            "above 0, or use --set engine.name=native."
        )
    if recipe.expert is not None and recipe.expert.weight != "uniform":
        raise ConfigError(
            f"TRL's SFTTrainer does not weight examples, got expert.weight={recipe.expert.weight}. "
            "Use --set expert.weight=uniform, or --set engine.name=native."
        )
    _refuse_native_keys(recipe)
    if explore.loss == "dapo" and explore.importance_cap <= 1 + explore.clip_high:
        raise ConfigError(
            "engine.name=trl needs explore.importance_cap above 1 + explore.clip_high="
            f"{1 + explore.clip_high:g}, got {explore.importance_cap:g}: beyond it TRL's tokens "
            "have no gradient. Raise it, or use --set engine.name=native."
        )
    check_launch(engine.trl.launch)
    if engine.device == "cpu":
        refuse_shards_on_cpu(engine.trl.launch)
    site = Site(size=engine.trl.launch.processes, is_cpu=True, is_bfloat16=False)
    place = Place(run=recipe.name, seed=recipe.seed, iteration=0, phase="explore")
    grpo_options(recipe, site, place, num_steps=explore.steps, longest_prompt=1)
    for config in tuned_phases(recipe):
        sft_options(recipe, config, site, place, longest=1, num_examples=1)
    return _warnings(recipe)


def _refuse_native_keys(recipe: Recipe) -> None:
    """Raise ConfigError for what the native engine alone can do."""
    if recipe.rewards:
        raise ConfigError(
            "rewards is the native engine's. Leave it out, or use --set engine.name=native."
        )
    for name in ("replay_per_group", "average_every", "mask_truncated"):
        if getattr(recipe.explore, name):
            raise ConfigError(
                f"explore.{name}={getattr(recipe.explore, name)} is the native engine's. Leave it "
                "out, or use --set engine.name=native."
            )
    if recipe.prompt.template_args and recipe.prompt.template is None:
        raise ConfigError(
            "prompt.template_args are the native engine's. Remove them, write the prompt in "
            "prompt.template, or use --set engine.name=native."
        )
    if recipe.engine.offload_optimizer:
        raise ConfigError(
            "engine.offload_optimizer is the native engine's. With engine.name=trl give "
            "engine.trl.launch.config_file an `accelerate config` that offloads."
        )


def check_launch(launch: LaunchConfig) -> None:
    """Raise ConfigError for machines that cannot meet or share, and for a file that is missing."""
    if launch.machine_rank >= launch.machines:
        raise ConfigError(
            f"engine.trl.launch.machine_rank={launch.machine_rank} is none of "
            f"{launch.machines} machines, which count from 0. Use --set "
            "engine.trl.launch.machines=N."
        )
    if launch.processes % launch.machines:
        raise ConfigError(
            f"engine.trl.launch.processes={launch.processes} cannot be shared by "
            f"{launch.machines} machines. Give the processes of all machines together."
        )
    if launch.machines > 1 and not launch.port:
        raise ConfigError(
            "engine.trl.launch.port is 0: several machines need one that all know. Use --set "
            "engine.trl.launch.port=29500."
        )
    if launch.machines > 1 and launch.address in ("localhost", "127.0.0.1", "::1"):
        raise ConfigError(
            f"engine.trl.launch.address={launch.address} is each machine's own: give the address "
            "of machine 0 as the others see it."
        )
    if launch.config_file is not None and not Path(launch.config_file).is_file():
        raise ConfigError(
            f"engine.trl.launch.config_file={launch.config_file} is not a file here. Make it with "
            "`accelerate config --config_file FILE`, or leave it out."
        )


def refuse_shards_on_cpu(launch: LaunchConfig) -> None:
    """Raise ConfigError for what accelerate would make replicas of without a word."""
    if launch.preset in ("fsdp2", "zero3") and launch.config_file is None:
        raise ConfigError(
            f"engine.trl.launch.preset={launch.preset} shards on GPUs only: on CPUs accelerate "
            "ignores it. Use --set engine.trl.launch.preset=cpu."
        )


def _warnings(recipe: Recipe) -> list[str]:
    explore, found = recipe.explore, _too_many(recipe)
    if explore.refill_rounds:
        found.append(
            f"explore.refill_rounds={explore.refill_rounds} is not done: TRL has no dynamic "
            "sampling. Groups without a signal stay in the step, and leave its denominator."
        )
    if explore.kl_coef:
        found.append(
            "explore.kl_coef: on TRL the divergence is a mean over all completions of a step, "
            "those of groups without a signal too."
        )
    if explore.entropy_coef:
        found.append(
            "explore.entropy_coef: on TRL the entropy is a mean over all completions of a step, "
            "those of groups without a signal too."
        )
    if explore.sampler == "vllm":
        found.append(
            "explore.sampler=vllm explores, and stored log-probabilities are the trainer's, not "
            "vLLM's; engine.name=trl evaluates with rloop's own sampler."
        )
    return found


def _too_many(recipe: Recipe) -> list[str]:
    """Return a warning where processes on CPUs would wait for each other's cores."""
    launch, cores = recipe.engine.trl.launch, allowed_cores()
    num_here = max(1, launch.processes // launch.machines)
    is_cpu = launch.preset == "cpu" or recipe.engine.device == "cpu"
    if not is_cpu or num_here <= cores:
        return []
    has = "1 core" if cores == 1 else f"{cores} cores"
    return [
        f"{num_here} processes on this machine, {has}: they wait for each other. Use --set "
        f"engine.trl.launch.processes={cores * launch.machines}."
    ]


def grpo_options(
    recipe: Recipe, site: Site, place: Place, *, num_steps: int, longest_prompt: int
) -> dict[str, Any]:
    """Return the options of an exploration's GRPOConfig, the recipe's pass-through among them."""
    explore = recipe.explore
    share = completions_share(recipe, site.size)
    longest = longest_prompt + explore.sampling.max_completion_tokens
    rows = _rows_per_pass(share, longest, recipe.engine.microbatch_tokens)
    budget, size = "engine.microbatch_tokens", "explore.prompts_per_step"
    sampling = explore.sampling
    options: Options = {
        "max_steps": (num_steps * explore.updates_per_step, "explore.steps"),
        "per_device_train_batch_size": (rows, budget),
        "gradient_accumulation_steps": (share // rows, budget),
        "steps_per_generation": (share // rows * explore.updates_per_step, size),
        "generation_batch_size": (None, size),
        "num_iterations": (1, OWN),
        "num_generations": (explore.group_size, "explore.group_size"),
        "max_completion_length": (
            sampling.max_completion_tokens,
            "explore.sampling.max_completion_tokens",
        ),
        "temperature": (sampling.temperature, "explore.sampling.temperature"),
        "top_p": (sampling.top_p, "explore.sampling.top_p"),
        "top_k": (sampling.top_k, "explore.sampling.top_k"),
        "use_vllm": (explore.sampler == "vllm", "explore.sampler"),
        "vllm_importance_sampling_mode": ("token_truncate", "explore.importance_cap"),
        "vllm_importance_sampling_clip_max": (explore.importance_cap, "explore.importance_cap"),
        "beta": (explore.kl_coef, "explore.kl_coef"),
        "entropy_coef": (explore.entropy_coef, "explore.entropy_coef"),
        "use_bias_correction_kl": (False, "explore.kl_coef"),
        # rloop's own advantages come in as rewards.
        "scale_rewards": ("none", "explore.advantage"),
        "multi_objective_aggregation": ("sum_then_normalize", "explore.advantage"),
        "reward_weights": (None, "explore.advantage"),
        "mask_truncated_completions": (False, OWN),
        "shuffle_dataset": (False, OWN),
        **_loss_options(recipe),
        **_common_options(recipe, explore.optimizer, site, place, key="explore.optimizer"),
    }
    return _merged(options, recipe.engine.trl.extra.grpo, "grpo")


def _loss_options(recipe: Recipe) -> Options:
    """Return the policy loss; TRL's GSPO is its sequence mean at the ratio of whole sequences."""
    explore = recipe.explore
    loss, level = {
        "dapo": ("dapo", "token"),
        "gspo": ("grpo", "sequence"),
        "cispo": ("cispo", "token"),
    }[explore.loss]
    # TRL cuts CISPO's weight at epsilon_high itself, the others' ratio at 1 + epsilon_high.
    high = explore.clip_high + (explore.loss == "cispo")
    cap = explore.importance_cap if explore.loss == "dapo" else None
    return {
        "loss_type": (loss, "explore.loss"),
        "importance_sampling_level": (level, "explore.loss"),
        "epsilon": (explore.clip_low, "explore.clip_low"),
        "epsilon_high": (high, "explore.clip_high"),
        "delta": (cap, "explore.importance_cap"),
    }


def sft_options(
    recipe: Recipe,
    config: FinetuneConfig | ColdstartConfig,
    site: Site,
    place: Place,
    *,
    longest: int,
    num_examples: int,
) -> dict[str, Any]:
    """Return the options of a phase's SFTConfig.

    `longest` is its longest example (tokens), `num_examples` counts those of all epochs. The batch
    is as much smaller than the recipe's as makes the last one nearly as large as the others.
    """
    phase, most = phase_name(config), examples_share(recipe, config, site.size)
    num_updates = math.ceil(num_examples / (most * site.size))
    share = math.ceil(num_examples / (num_updates * site.size))
    rows = _rows_per_pass(share, longest, recipe.engine.microbatch_tokens)
    options: Options = {
        # The epochs stand one after the other in the data, each in an order of its own.
        "num_train_epochs": (1, f"{phase}.epochs"),
        "per_device_train_batch_size": (rows, "engine.microbatch_tokens"),
        "gradient_accumulation_steps": (share // rows, "engine.microbatch_tokens"),
        "train_sampling_strategy": ("sequential", OWN),
        "shuffle_dataset": (False, OWN),
        "max_length": (None, OWN),
        "packing": (False, OWN),
        "completion_only_loss": (True, OWN),
        "loss_type": ("nll", OWN),
        **_common_options(recipe, config.optimizer, site, place, key=f"{phase}.optimizer"),
    }
    return _merged(options, recipe.engine.trl.extra.sft, "sft")


def _common_options(
    recipe: Recipe, config: OptimizerConfig, site: Site, place: Place, *, key: str
) -> Options:
    schedule = {"constant": "constant_with_warmup", "cosine": "cosine"}[config.schedule]
    seed = stable_hash(place.seed, place.iteration, place.phase, "trl") % 2**31
    optim = {32: "adamw_torch_fused", 8: "adamw_torch_8bit"}[recipe.engine.optimizer_bits]
    return {
        "learning_rate": (config.learning_rate, f"{key}.learning_rate"),
        "lr_scheduler_type": (schedule, f"{key}.schedule"),
        "warmup_steps": (_warmup(config.warmup_frac), f"{key}.warmup_frac"),
        "weight_decay": (config.weight_decay, f"{key}.weight_decay"),
        # Infinity does not clip, and the norm is still measured.
        "max_grad_norm": (config.grad_clip or math.inf, f"{key}.grad_clip"),
        "optim": (optim, "engine.optimizer_bits"),
        "gradient_checkpointing": (
            recipe.engine.gradient_checkpointing,
            "engine.gradient_checkpointing",
        ),
        "bf16": (site.is_bfloat16, "engine.dtype"),
        "fp16": (False, "engine.dtype"),
        "use_cpu": (site.is_cpu, "engine.device"),
        "trust_remote_code": (recipe.policy.trust_remote_code, "policy.trust_remote_code"),
        "seed": (seed, "seed"),
        "data_seed": (seed, "seed"),
        "logging_strategy": ("steps", OWN),
        "logging_steps": (1, OWN),
        "logging_first_step": (False, OWN),
        "save_strategy": ("no", "explore.checkpoint_every"),
        "eval_strategy": ("no", "evaluate.every"),
        "report_to": ("none", "sinks"),
        "disable_tqdm": (True, OWN),
        # Nothing is written there: a checkpoint's own place is set before it is written.
        "output_dir": (".", OWN),
    }


def _warmup(fraction: float) -> float:
    """Return `warmup_steps`, which counts steps from 1 on and is a fraction below it."""
    return min(fraction, math.nextafter(1.0, 0.0))


def _rows_per_pass(share: int, longest: int, budget: int) -> int:
    """Return how many sequences go into one pass: a divisor of the share, within the budget."""
    return max(
        n for n in range(1, share + 1) if not share % n and (n == 1 or n * longest <= budget)
    )


def _merged(options: Options, extra: Mapping[str, Any], section: str) -> dict[str, Any]:
    """Return the options' values and the pass-through; ConfigError names a value set twice."""
    twice: Sequence[str] = sorted(set(options) & set(extra))
    if twice:
        name, key = twice[0], options[twice[0]][1]
        remedy = "Leave it out." if key == OWN else f"Set {key} alone."
        own = f"comes from {key}" if key != OWN else f"is {OWN}"
        raise ConfigError(
            f"engine.trl.extra.{section}.{name}={extra[name]!r}: this option {own}. {remedy}"
        )
    _refuse_unknown(options, extra, section)
    return {name: value for name, (value, _) in options.items()} | dict(extra)


def _refuse_unknown(options: Options, extra: Mapping[str, Any], section: str) -> None:
    """Raise ConfigError for an option that TRL has not, where it is installed as it is known."""
    kind = {"grpo": "GRPOConfig", "sft": "SFTConfig"}[section]
    known = option_names(kind) if extra else frozenset()
    unknown = [name for name in extra if name not in known] if known else []
    if not unknown:
        return
    prefix = f"engine.trl.extra.{section}."
    guess = ""
    for name in difflib.get_close_matches(unknown[0], known, n=1, cutoff=0.6):
        # What rloop sets itself would be refused there in its turn.
        key = options[name][1] if name in options else prefix + name
        meant = f"{name}, which is {OWN}" if key == OWN else key
        guess = f" Did you mean {meant}?"
    raise ConfigError(
        f"{prefix}{unknown[0]} is not a known key: TRL's {kind} has no such option.{guess}"
    )
