"""What a recipe will ask of a machine: batch arithmetic, disk and memory, each with its formula.

Upper bounds from the recipe and the model's files alone; no torch, nothing is sampled.
"""

import math
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rloop.config import Recipe
from rloop.model_size import ModelSize
from rloop.tables import format_value

TRAJECTORY_BYTES_PER_TOKEN = 12
"""Id, log-probability and text of a sampled token in the store, before compression."""
TRAJECTORY_BYTES = 1000
"""Everything else in a trajectory's row, its prompt too."""
MASTER_BYTES, GRADIENT_BYTES, ADAM_BYTES = 4, 4, 8
"""Float32 weights, gradients and the two moments, per parameter."""
LOGIT_COPIES = 3
"""Float32 logits of a chunk, their exponentials and their gradient."""
LOGIT_CHUNK_BYTES = {"cpu": 64 * 2**20, "cuda": 512 * 2**20}
"""What the learner's chunks are cut to."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Demand:
    """One number and how it came about.

    Example: Demand(section="batch", name="completions per step", value=128, unit="",
    formula="explore.prompts_per_step x group_size = 16 x 8")
    """

    section: str
    name: str
    value: float
    unit: str
    """`tokens`, `bytes`, or empty for a count."""
    formula: str


def batch_arithmetic(recipe: Recipe, num_train: int | None, num_evaluate: int) -> list[Demand]:
    """Return what the recipe's numbers multiply to, for so many problems.

    `num_train` is None where the training problems are out of reach.
    """
    explore = recipe.explore
    per_step = explore.prompts_per_step * explore.group_size
    length = explore.sampling.max_completion_tokens
    rounds = 1 + explore.refill_rounds
    return [
        _count("completions per step", per_step, "explore.prompts_per_step x explore.group_size"),
        _tokens(
            "sampled tokens per step, at most",
            per_step * rounds * length,
            "completions per step x explore.sampling.max_completion_tokens"
            + (" x (1 + explore.refill_rounds)" if rounds > 1 else ""),
        ),
        _tokens(
            "sampled tokens per iteration, at most",
            explored_tokens(recipe),
            "explore.steps x sampled tokens per step",
        ),
        _count("completions per update", per_step / explore.updates_per_step, "of an RL step"),
        _count("RL updates per iteration", _rl_updates(recipe), "explore.steps x updates_per_step"),
        *_passes(recipe, num_train),
        *_rft(recipe, num_train),
        _count(
            "evaluations",
            num_evaluations(recipe),
            "the base policy, each explored and each next one, and every evaluate.every RL steps",
        ),
        _count(
            "completions per evaluation",
            num_evaluate * recipe.evaluate.samples,
            f"{num_evaluate} held-out problems x evaluate.samples",
        ),
        _tokens(
            "sampled tokens of the run, at most",
            run_tokens(recipe, num_evaluate),
            "iterations x exploration + evaluations",
        ),
    ]


def _rl_updates(recipe: Recipe) -> int:
    frozen = recipe.explore.optimizer.learning_rate == 0
    return 0 if frozen else recipe.explore.steps * recipe.explore.updates_per_step


def _passes(recipe: Recipe, num_train: int | None) -> list[Demand]:
    if num_train is None:
        return []
    prompts = recipe.explore.steps * recipe.explore.prompts_per_step
    formula = f"per iteration: {prompts} prompts / {num_train} problems"
    return [_count("passes over the training problems", prompts / num_train, formula)]


def _rft(recipe: Recipe, num_train: int | None) -> list[Demand]:
    if recipe.expert is None or recipe.finetune is None:
        return []
    window = recipe.iterations if recipe.expert.window == "accumulated" else 1
    most = window * explored_completions(recipe)
    formula = "all completions of the window"
    cap = recipe.expert.per_problem_cap
    if cap is not None and num_train is not None and cap * num_train < most:
        most = cap * num_train
        formula = "expert.per_problem_cap x training problems"
    updates = recipe.finetune.epochs * math.ceil(most / recipe.finetune.batch_size)
    return [
        _count("expert set, at most", most, formula),
        _count("RFT updates per iteration, at most", updates, "epochs x expert set / batch_size"),
    ]


def explored_completions(recipe: Recipe) -> int:
    """Return the most completions that one iteration's exploration samples."""
    explore = recipe.explore
    rounds = 1 + explore.refill_rounds
    return explore.steps * explore.prompts_per_step * explore.group_size * rounds


def explored_tokens(recipe: Recipe) -> int:
    """Return the most tokens that one iteration's exploration samples."""
    return explored_completions(recipe) * recipe.explore.sampling.max_completion_tokens


def num_evaluations(recipe: Recipe) -> int:
    """Return how often the held-out problems are sampled, if no phase ends early."""
    every = recipe.evaluate.every
    steps = recipe.explore.steps
    inside = (steps - 1) // every if every else 0
    after = 1 if recipe.finetune is None else 2
    coldstart = 0 if recipe.coldstart is None else 1
    return 1 + coldstart + recipe.iterations * (inside + after)


def run_tokens(recipe: Recipe, num_evaluate: int) -> int:
    """Return the most tokens that the run samples."""
    evaluation = num_evaluate * recipe.evaluate.samples
    evaluation *= recipe.evaluate.sampling.max_completion_tokens
    return recipe.iterations * explored_tokens(recipe) + num_evaluations(recipe) * evaluation


def disk(recipe: Recipe, num_evaluate: int, model: ModelSize | None) -> list[Demand]:
    """Return what the run directory may grow to; without a model, its trajectories only."""
    completions = recipe.iterations * explored_completions(recipe)
    completions += num_evaluations(recipe) * num_evaluate * recipe.evaluate.samples
    stored = run_tokens(recipe, num_evaluate) * TRAJECTORY_BYTES_PER_TOKEN
    stored += completions * TRAJECTORY_BYTES
    rows = [
        _bytes(
            "disk",
            "trajectories, at most",
            stored,
            f"{TRAJECTORY_BYTES_PER_TOKEN} x sampled tokens + {TRAJECTORY_BYTES} x completions",
        )
    ]
    if model is not None:
        size, kept, width = model.parameters, _kept_policies(recipe), compute_bytes(recipe)
        state = 2 * (MASTER_BYTES + ADAM_BYTES) * size
        rows += [
            _bytes("disk", "policies", kept * width * size, f"{kept} x parameters x {width}"),
            _bytes("disk", "saved state", state, "2 x parameters x (4 weights + 8 Adam moments)"),
        ]
    return [*rows, _total("disk", rows)]


def compute_bytes(recipe: Recipe) -> int:
    """Return the size of a number in the forward pass, and in the policies that are saved.

    Where `engine.dtype: auto` is open, that of the larger one.
    """
    dtype, device = recipe.engine.dtype, recipe.engine.device
    if dtype == "auto":
        return 2 if device.startswith("cuda") else 4
    return 2 if dtype == "bfloat16" else 4


def disk_warnings(written: Sequence[Demand], folder: Path) -> list[str]:
    """Return a sentence when a run may outgrow what is free where `folder` is or will be.

    `written` is what `disk` says. What a run that goes on has written already counts as free.
    """
    existing = next(path for path in (folder, *folder.resolve().parents) if path.exists())
    files = (path for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
    free = shutil.disk_usage(existing).free + sum(path.stat().st_size for path in files)
    most, weights = written[-1].value, sum(row.value for row in written[1:-1])
    there = f"{existing} has {format_value(free, 'bytes')} for it"
    if weights > free:
        return [
            f"Policies and saved states alone take {format_value(weights, 'bytes')}, and {there}: "
            "the disk will be full. Choose another --out, or --set keep_policies=last."
        ]
    if most > free:
        return [
            f"The run may write {format_value(most, 'bytes')}, and {there}. A full disk stops it "
            "cleanly; `rloop resume` goes on when there is space."
        ]
    return []


def _kept_policies(recipe: Recipe) -> int:
    """Return how many policies lie on the disk at the same time, besides the base."""
    explored = recipe.keep_explored or recipe.finetune is None or recipe.finetune.init == "explored"
    tuned = recipe.finetune is not None
    iterations = recipe.iterations if recipe.keep_policies == "all" else min(2, recipe.iterations)
    return int(recipe.coldstart is not None) + iterations * (int(explored) + int(tuned))


def memory(recipe: Recipe, model: ModelSize, compute_bytes: int) -> list[Demand]:
    """Return what the model needs while it samples and learns, in bytes.

    `compute_bytes` is the size of a number in the forward pass: 2 for bfloat16, 4 for float32.
    Both states are counted at the same time, as the native engine holds them.
    """
    length = recipe.prompt.max_tokens + max(
        recipe.explore.sampling.max_completion_tokens,
        recipe.evaluate.sampling.max_completion_tokens,
    )
    cache = 2 * model.layers * model.kv_width * compute_bytes * recipe.engine.max_batch * length
    weights = model.parameters * compute_bytes if compute_bytes != MASTER_BYTES else 0
    states = MASTER_BYTES + GRADIENT_BYTES + ADAM_BYTES
    chunk = LOGIT_CHUNK_BYTES["cpu" if recipe.engine.device == "cpu" else "cuda"]
    logits = LOGIT_COPIES * min(chunk, recipe.engine.microbatch_tokens * model.vocabulary * 4)
    vllm = model.parameters * compute_bytes if recipe.explore.sampler == "vllm" else 0
    rows = [
        _bytes("memory", "weights to compute with", weights, f"parameters x {compute_bytes}"),
        _bytes("memory", "weights in vLLM", vllm, f"parameters x {compute_bytes}"),
        _bytes(
            "memory",
            "weights, gradients and Adam moments",
            model.parameters * states,
            "parameters x (4 + 4 + 8), float32"
            + (", in CPU memory" if recipe.engine.offload_optimizer else ""),
        ),
        _bytes(
            "memory",
            "key-value cache",
            cache,
            f"2 x layers x kv width x {compute_bytes} x engine.max_batch x {length} tokens",
        ),
        _bytes("memory", "activations", _activations(recipe, model, compute_bytes), _ACTIVATIONS),
        _bytes(
            "memory",
            "logits",
            logits,
            f"{LOGIT_COPIES} x (microbatch_tokens x vocabulary x 4, at most {chunk:,})",
        ),
    ]
    rows = [row for row in rows if row.value]
    return [*rows, _total("memory", rows)]


_ACTIVATIONS = "engine.microbatch_tokens x layers x (8 width + 4 inner width + 2 kv width) x bytes"


def _activations(recipe: Recipe, model: ModelSize, compute_bytes: int) -> int:
    """Return what the backward pass keeps of the forward pass (norms, attention, feed-forward)."""
    layer = 8 * model.width + 4 * model.inner_width + 2 * model.kv_width
    numbers = model.layers * layer
    if recipe.engine.gradient_checkpointing:
        numbers = model.layers * model.width + layer
    return recipe.engine.microbatch_tokens * numbers * compute_bytes


def _total(section: str, rows: Sequence[Demand]) -> Demand:
    return _bytes(section, "together", sum(row.value for row in rows), "the sum of these")


def _count(name: str, value: float, formula: str) -> Demand:
    return Demand(section="batch", name=name, value=value, unit="", formula=formula)


def _tokens(name: str, value: float, formula: str) -> Demand:
    return Demand(section="batch", name=name, value=value, unit="tokens", formula=formula)


def _bytes(section: str, name: str, value: float, formula: str) -> Demand:
    return Demand(section=section, name=name, value=value, unit="bytes", formula=formula)
