"""What a recipe will ask of a machine: batch arithmetic, disk and memory, each number with its why.

Upper bounds from the recipe and the model's files alone; no torch, nothing is sampled.
docs/how-to/train-a-larger-model.md compares memory with what was measured.
"""

import ctypes
import math
import os
import platform
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from rloop.policies.model_files import ModelSize
from rloop.recipe.config import Recipe
from rloop.recipe.engine import EngineConfig
from rloop.text import format_value

MASTER_BYTES, GRADIENT_BYTES, MOMENT_BYTES = 4, 4, 8
"""Float32 weights and gradients, and both Adam moments, per number that trains."""
TRAJECTORY_BYTES_PER_TOKEN = 12
"""Id, log-probability and text of a sampled token in the store, before compression."""
TRAJECTORY_BYTES = 1000
"""Everything else in a trajectory's row, its prompt too."""
PROGRAM_BYTES = 450 * 10**6
"""Python, torch and transformers with their libraries (measured on Linux)."""
KERNEL_BYTES = 110 * 10**6
"""Machine code that oneDNN makes and keeps for the shapes of bfloat16 products (measured)."""
IN_CPU_MEMORY = ", in CPU memory"
PACK_TOKENS = 1024
"""What rows of other problems are joined up to on a CPU."""
LOGIT_CHUNK_BYTES = {"cpu": 24 * 2**20, "cuda": 512 * 2**20}
"""What the learner's float32 logits are cut to."""


@dataclass(frozen=True, slots=True)
class Demand:
    """One number and how it came about.

    Example: Demand("batch", "completions per step", 128, "", "explore.prompts_per_step x ...")
    """

    section: Literal["batch", "disk", "memory"]
    name: str
    value: float
    unit: Literal["", "tokens", "bytes"]
    formula: str


def batch_arithmetic(recipe: Recipe, num_train: int | None, num_evaluate: int) -> list[Demand]:
    """Return what the recipe's numbers multiply to, for so many problems.

    `num_train` is None where the training problems are out of reach.
    """
    explore, evaluated = recipe.explore, num_evaluate * recipe.evaluate.samples
    completions = explore.prompts_per_step * explore.group_size
    tokens = step_completions(recipe) * explore.sampling.max_completion_tokens
    learns = explore.optimizer.learning_rate > 0
    refill = " x (1 + explore.refill_rounds)" * (explore.refill_rounds > 0)

    def count(name: str, value: float, formula: str) -> Demand:
        return Demand("batch", name, value, "", formula)

    def most(name: str, value: float, formula: str) -> Demand:
        return Demand("batch", f"sampled tokens {name}, at most", value, "tokens", formula)

    per_step = f"completions per step x explore.sampling.max_completion_tokens{refill}"
    updates = explore.steps * explore.updates_per_step * learns
    rows = [
        count("completions per step", completions, "explore.prompts_per_step x explore.group_size"),
        most("per step", tokens, per_step),
        most("per iteration", explore.steps * tokens, "explore.steps x sampled tokens per step"),
        count("completions per update", completions / explore.updates_per_step, "of an RL step"),
        count("RL updates per iteration", updates, "explore.steps x updates_per_step"),
    ]
    if num_train is not None:
        prompts = explore.steps * explore.prompts_per_step
        formula = f"per iteration: {prompts} prompts / {num_train} problems"
        rows.append(count("passes over the training problems", prompts / num_train, formula))
    if recipe.expert is not None and recipe.finetune is not None:
        examples, formula = _expert_set(recipe, num_train)
        updates = recipe.finetune.epochs * math.ceil(examples / recipe.finetune.batch_size)
        name, why = "RFT updates per iteration, at most", "epochs x expert set / batch_size"
        rows += [count("expert set, at most", examples, formula), count(name, updates, why)]
    policies = "the base policy, each explored and each next one, and every evaluate.every RL steps"
    held_out = f"{num_evaluate} held-out problems x evaluate.samples"
    sampled, run = run_tokens(recipe, num_evaluate), "iterations x exploration + evaluations"
    return [
        *rows,
        count("evaluations", num_evaluations(recipe), policies),
        count("completions per evaluation", evaluated, held_out),
        most("of the run", sampled, run),
    ]


def _expert_set(recipe: Recipe, num_train: int | None) -> tuple[int, str]:
    """Return the most examples of an expert set, and what bounds them."""
    assert recipe.expert is not None, "asked only where there is one"
    most = run_completions(recipe)
    if recipe.expert.window == "iteration":
        most = recipe.explore.steps * step_completions(recipe)
    cap = recipe.expert.per_problem_cap
    if cap is not None and num_train is not None and cap * num_train < most:
        return cap * num_train, "expert.per_problem_cap x training problems"
    return most, "all completions of the window"


def step_completions(recipe: Recipe) -> int:
    """Return the most completions that an RL step samples."""
    explore = recipe.explore
    return explore.prompts_per_step * explore.group_size * (1 + explore.refill_rounds)


def run_completions(recipe: Recipe) -> int:
    """Return the most completions that all explorations sample."""
    return recipe.iterations * recipe.explore.steps * step_completions(recipe)


def num_evaluations(recipe: Recipe) -> int:
    """Return how often the held-out problems are sampled, if no phase ends early."""
    every = recipe.evaluate.every
    inside = recipe.iterations * ((recipe.explore.steps - 1) // every) if every else 0
    after = 2 if recipe.finetune is not None or recipe.mix is not None else 1
    return 1 + (recipe.coldstart is not None) + inside + recipe.iterations * after


def held_out_completions(recipe: Recipe, num_evaluate: int) -> int:
    """Return the most completions that all evaluations sample, the last check included."""
    evaluate = recipe.evaluate
    per_problem = num_evaluations(recipe) * evaluate.samples + evaluate.check_completions
    return num_evaluate * per_problem


def run_tokens(recipe: Recipe, num_evaluate: int) -> int:
    """Return the most tokens that the run samples."""
    explored = run_completions(recipe) * recipe.explore.sampling.max_completion_tokens
    evaluated = held_out_completions(recipe, num_evaluate)
    return explored + evaluated * recipe.evaluate.sampling.max_completion_tokens


def disk(recipe: Recipe, num_evaluate: int, model: ModelSize | None) -> list[Demand]:
    """Return what the run directory may grow to; without a model, its trajectories only."""
    completions = run_completions(recipe) + held_out_completions(recipe, num_evaluate)
    stored = run_tokens(recipe, num_evaluate) * TRAJECTORY_BYTES_PER_TOKEN
    stored += completions * TRAJECTORY_BYTES
    formula = f"{TRAJECTORY_BYTES_PER_TOKEN} x sampled tokens + {TRAJECTORY_BYTES} x completions"
    rows = [("trajectories, at most", stored, formula)]
    if model is not None:
        kept, width = _kept_policies(recipe), compute_bytes(recipe)
        numbers = trainable_numbers(recipe.engine, model)
        formula = f"2 x {numbers:,} trainable x ({MASTER_BYTES} + {MOMENT_BYTES} Adam moments)"
        state = 2 * numbers * (MASTER_BYTES + MOMENT_BYTES)
        rows.append(("policies", kept * width * model.parameters, f"{kept} x parameters x {width}"))
        rows.append(("saved state", state, formula))
    return _summed("disk", rows)


def _summed(
    section: Literal["disk", "memory"], rows: Sequence[tuple[str, float, str]]
) -> list[Demand]:
    """Return rows in bytes, those above zero, and what they are together."""
    total = ("together", sum(value for _, value, _ in rows), "the sum of these")
    return [
        Demand(section, name, value, "bytes", formula)
        for name, value, formula in (*(row for row in rows if row[1]), total)
    ]


def compute_bytes(recipe: Recipe) -> int:
    """Return the size of a number in the forward pass, and in the policies that are saved.

    Where `engine.dtype: auto` is open, that of the larger one.
    """
    dtype, device = recipe.engine.dtype, recipe.engine.device
    if dtype == "auto":
        return 2 if device.startswith("cuda") else 4
    return 2 if dtype == "bfloat16" else 4


def trainable_numbers(engine: EngineConfig, model: ModelSize) -> int:
    """Return how many numbers train: all weights, or those of the adapters."""
    if engine.lora is None:
        return model.parameters
    return engine.lora.rank * sum(ends for _, ends in _adapted(engine, model))


def _adapted(engine: EngineConfig, model: ModelSize) -> list[tuple[int, int]]:
    """Return entries and ends of the linear maps that get adapters; none without `engine.lora`."""
    wanted = engine.lora.target_modules if engine.lora else ()
    names = model.linears if wanted is None else wanted
    return [model.linears[name] for name in names if name in model.linears]


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
    tuned = recipe.finetune is not None
    explored = recipe.keep_explored or recipe.finetune is None or recipe.finetune.init == "explored"
    iterations = recipe.iterations if recipe.keep_policies == "all" else min(2, recipe.iterations)
    best = int(recipe.keep_policies == "best" and recipe.iterations > 2)
    return int(recipe.coldstart is not None) + iterations * (int(explored) + int(tuned)) + best


def memory(
    recipe: Recipe, model: ModelSize, compute_bytes: int, *, num_evaluate: int = 0
) -> list[Demand]:
    """Return what the model needs while it samples and learns, in bytes.

    `compute_bytes` is the size of a number in the forward pass: 2 for bfloat16, 4 for float32;
    `num_evaluate` how many held-out problems there are. What sampling and learning need is counted
    as if held at the same time: an allocator keeps the one for the other.
    """
    width, explore = compute_bytes, recipe.explore
    kernels = KERNEL_BYTES * (recipe.engine.device == "cpu" and width == 2)
    # the rows that decode together
    most = max(
        explore.prompts_per_step * explore.group_size, num_evaluate * recipe.evaluate.samples
    )
    rows, length = min(recipe.engine.max_batch, most), _longest(recipe)
    layer, tokens = _layer_numbers(model) * width, _microbatch_tokens(recipe)
    # what the backward pass keeps of the forward pass, and of its own in two layers
    kept, formula = model.layers * layer, f"layers x {layer:,}"
    if recipe.engine.gradient_checkpointing:
        kept, formula = model.layers * model.width * width, f"layers x width x {width}"
    found = [
        ("program", PROGRAM_BYTES + kernels, "Python, torch, transformers; oneDNN's kernels"),
        *_weights(recipe, model, width),
        (
            "key-value cache",
            2 * model.layers * model.kv_width * width * rows * length,
            f"2 x layers x kv width x {width} x {rows} rows x {length} tokens",
        ),
        (
            "activations",
            tokens * (kept + 2 * layer),
            f"{tokens:,} tokens x ({formula} + 2 x {layer:,})",
        ),
        _logits(recipe, model, width),
    ]
    held = _summed("memory", found)
    if recipe.engine.offload_optimizer and recipe.engine.device not in ("cpu", "mps"):
        on_gpu = [row.value for row in held[1:-1] if not row.formula.endswith(IN_CPU_MEMORY)]
        formula = "the sum of these but the program and what is in CPU memory"
        held.insert(-1, Demand("memory", "on the GPU", sum(on_gpu), "bytes", formula))
    return held


def _weights(recipe: Recipe, model: ModelSize, width: int) -> Iterator[tuple[str, int, str]]:
    """Yield the model, what trains, and copies."""
    engine, numbers = recipe.engine, trainable_numbers(recipe.engine, model)
    has_adapters, offload = engine.lora is not None, engine.offload_optimizer
    size, formula = model.parameters * width, f"parameters x {width}"
    if width != MASTER_BYTES or has_adapters or offload:
        yield "weights to compute with", size, formula  # else the masters are the weights
    if recipe.explore.sampler == "vllm":
        yield "weights in vLLM", size, formula
    if has_adapters:
        adapted = sum(entries for entries, _ in _adapted(engine, model))
        formula = f"adapted {adapted:,} x {width}" + IN_CPU_MEMORY * offload
        yield "start policy's weights", adapted * width, formula
    elif recipe.explore.kl_coef > 0:
        yield "reference policy", size, formula
    if offload and not has_adapters:
        formula = f"{numbers:,} trainable x {GRADIENT_BYTES}"
        yield "gradients of an update", numbers * GRADIENT_BYTES, formula
    yield (
        f"{'adapters' if has_adapters else 'weights'}, gradients and Adam moments",
        numbers * (MASTER_BYTES + GRADIENT_BYTES + MOMENT_BYTES),
        f"{numbers:,} trainable x ({MASTER_BYTES} + {GRADIENT_BYTES} + {MOMENT_BYTES})"
        + IN_CPU_MEMORY * (offload and not has_adapters),
    )


def _layer_numbers(model: ModelSize) -> int:
    """Return what autograd keeps of one token in one layer (`engines/native/lean_layers.py`).

    Inputs of norms and of the linear maps, rotated queries, keys and values, gate and up, and room
    for what the backward pass makes of them again.
    """
    heads = (model.query_width + model.kv_width) * (3 if model.has_head_norms else 2)
    return 4 * model.width + heads + 3 * model.inner_width


def _logits(recipe: Recipe, model: ModelSize, width: int) -> tuple[str, int, str]:
    """Return what the output embedding needs: chunks of logits, and its own gradient."""
    chunk = LOGIT_CHUNK_BYTES["cpu" if recipe.engine.device in ("cpu", "mps") else "cuda"]
    logits = min(chunk, _microbatch_tokens(recipe) * model.vocabulary * 4)
    half = "" if width == MASTER_BYTES else ".5"
    size, formula = 2 * logits + (logits // 2 if half else 0), f"2{half} x {logits:,}"
    if recipe.engine.lora is None:
        size += model.vocabulary * model.width * 2 * width
        formula += f" + vocabulary x width x 2 x {width}"
    return "logits", size, formula


def _longest(recipe: Recipe) -> int:
    """Return the tokens of the longest prompt with the longest completion."""
    explore, evaluate = recipe.explore.sampling, recipe.evaluate.sampling
    longest = max(explore.max_completion_tokens, evaluate.max_completion_tokens)
    return recipe.prompt.max_tokens + longest


def _microbatch_tokens(recipe: Recipe) -> int:
    """Return the tokens of the largest micro-batch: no more than an update has, nor fewer than a
    sequence.
    """
    explore, completion = recipe.explore, recipe.explore.sampling.max_completion_tokens
    longest = recipe.prompt.max_tokens + completion
    sizes = [explore.prompts_per_step * explore.group_size // explore.updates_per_step]
    sizes += [phase.batch_size for phase in (recipe.finetune, recipe.coldstart) if phase]
    most = min(recipe.engine.microbatch_tokens, max(sizes) * longest)
    if recipe.engine.device == "cpu":
        # A CPU's rows hold a whole group behind its prompt, and are joined up to PACK_TOKENS.
        cap = recipe.expert.per_problem_cap if recipe.expert else None
        tuned = recipe.finetune.batch_size if recipe.finetune else 1
        alike = max(explore.group_size, min(tuned, cap or tuned))
        most = min(most, max(PACK_TOKENS, recipe.prompt.max_tokens + alike * completion))
    return max(longest, most)


def cuda_memory() -> list[int]:
    """Return the bytes of each CUDA device that the driver shows this process; asks no torch."""
    try:
        cuda = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return []
    count, size = ctypes.c_int(0), ctypes.c_size_t(0)
    if cuda.cuInit(0) or cuda.cuDeviceGetCount(ctypes.byref(count)):
        return []
    found = []
    for index in range(count.value):
        cuda.cuDeviceTotalMem_v2(ctypes.byref(size), index)
        found.append(size.value)
    return found


def auto_device() -> str:
    """Return what `engine.device: auto` will be here; asks no torch."""
    is_apple = (platform.system(), platform.machine()) == ("Darwin", "arm64")
    return "cuda" if cuda_memory() else "mps" if is_apple else "cpu"


def main_memory() -> int:
    """Return the bytes of this machine's memory, which an Apple GPU shares."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
