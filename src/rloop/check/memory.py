"""What a run holds in memory while it samples and learns: an upper bound of each part, its formula.

From the recipe and the model's files alone, no torch. docs/how-to/train-a-larger-model.md compares
it with what was measured.
"""

from collections.abc import Iterator

from rloop.check.estimate import (
    MOMENT_BYTES,
    Demand,
    adapted_linears,
    trainable_numbers,
)
from rloop.policies.model_size import ModelSize
from rloop.recipe.config import Recipe

MASTER_BYTES, GRADIENT_BYTES = 4, 4
"""Float32 weights and gradients, per number that trains."""
PROGRAM_BYTES = 450 * 10**6
"""Python, torch and transformers with their libraries (measured on Linux)."""
KERNEL_BYTES = 110 * 10**6
"""Machine code that oneDNN makes and keeps for the shapes of bfloat16 products (measured)."""
IN_CPU_MEMORY = ", in CPU memory"
LOGIT_CHUNK_BYTES = {"cpu": 24 * 2**20, "cuda": 512 * 2**20}
"""What the learner's float32 logits are cut to."""


def memory(
    recipe: Recipe, model: ModelSize, compute_bytes: int, *, num_evaluate: int = 0
) -> list[Demand]:
    """Return what the model needs while it samples and learns, in bytes.

    `compute_bytes` is the size of a number in the forward pass: 2 for bfloat16, 4 for float32;
    `num_evaluate` how many held-out problems there are. What
    sampling and learning need is counted as if held at the same time: an allocator keeps the one
    for the other.
    """
    kernels = KERNEL_BYTES * (recipe.engine.device == "cpu" and compute_bytes == 2)
    rows = [
        _bytes("program", PROGRAM_BYTES + kernels, "Python, torch, transformers; oneDNN's kernels"),
        *_weights(recipe, model, compute_bytes),
        _cache(recipe, model, compute_bytes, num_evaluate),
        _activations(recipe, model, compute_bytes),
        _logits(recipe, model, compute_bytes),
    ]
    rows = [row for row in rows if row.value]
    together = [_bytes("together", sum(row.value for row in rows), "the sum of these")]
    if recipe.engine.offload_optimizer and recipe.engine.device != "cpu":
        on_gpu = [row.value for row in rows[1:] if not row.formula.endswith(IN_CPU_MEMORY)]
        formula = "the sum of these but the program and what is in CPU memory"
        together.insert(0, _bytes("on the GPU", sum(on_gpu), formula))
    return [*rows, *together]


def _weights(recipe: Recipe, model: ModelSize, compute_bytes: int) -> Iterator[Demand]:
    """Yield the model, what trains, and copies."""
    engine, numbers = recipe.engine, trainable_numbers(recipe.engine, model)
    has_adapters, offload = engine.lora is not None, engine.offload_optimizer
    is_shared = compute_bytes == MASTER_BYTES and not (has_adapters or engine.offload_optimizer)
    size, formula = model.parameters * compute_bytes, f"parameters x {compute_bytes}"
    if not is_shared:  # else the masters are the weights
        yield _bytes("weights to compute with", size, formula)
    if recipe.explore.sampler == "vllm":
        yield _bytes("weights in vLLM", size, formula)
    if has_adapters:
        adapted = sum(linears.numbers for linears in adapted_linears(engine, model))
        yield _bytes(
            "start policy's weights",
            adapted * compute_bytes,
            f"adapted {adapted:,} x {compute_bytes}" + IN_CPU_MEMORY * offload,
        )
    elif recipe.explore.kl_coef > 0:
        yield _bytes("reference policy", size, formula)
    if offload and not has_adapters:
        size, formula = numbers * GRADIENT_BYTES, f"{numbers:,} trainable x {GRADIENT_BYTES}"
        yield _bytes("gradients of an update", size, formula)
    yield _bytes(
        "adapters, gradients and Adam moments"
        if has_adapters
        else "weights, gradients and Adam moments",
        numbers * (MASTER_BYTES + GRADIENT_BYTES + MOMENT_BYTES),
        f"{numbers:,} trainable x ({MASTER_BYTES} + {GRADIENT_BYTES} + {MOMENT_BYTES})"
        + IN_CPU_MEMORY * (offload and not has_adapters),
    )


def _cache(recipe: Recipe, model: ModelSize, compute_bytes: int, num_evaluate: int) -> Demand:
    """Return what the rows that decode together keep: `engine.max_batch`, or all there are."""
    explore, evaluated = recipe.explore, num_evaluate * recipe.evaluate.samples
    rows = min(
        recipe.engine.max_batch, max(explore.prompts_per_step * explore.group_size, evaluated)
    )
    length = _longest(recipe)
    size = 2 * model.layers * model.kv_width * compute_bytes * rows * length
    formula = f"2 x layers x kv width x {compute_bytes} x {rows} rows x {length} tokens"
    return _bytes("key-value cache", size, formula)


def _activations(recipe: Recipe, model: ModelSize, compute_bytes: int) -> Demand:
    """Return what the backward pass keeps of the forward pass, and of its own in two layers."""
    layer, tokens = _layer_bytes(model, compute_bytes), _microbatch_tokens(recipe)
    kept, formula = model.layers * layer, f"layers x {layer:,}"
    if recipe.engine.gradient_checkpointing:
        kept = model.layers * model.width * compute_bytes
        formula = f"layers x width x {compute_bytes}"
    return _bytes(
        "activations",
        tokens * (kept + 2 * layer),
        f"{tokens:,} tokens x ({formula} + 2 x {layer:,})",
    )


def _layer_bytes(model: ModelSize, compute_bytes: int) -> int:
    """Return what autograd keeps of one token in one layer (`engines/native/lean_layers.py`).

    Inputs of norms and of the linear maps, rotated queries, keys and values, gate and up, and room
    for what the backward pass makes of them again.
    """
    kept = 4 * model.width + 2 * model.query_width + 2 * model.kv_width + 3 * model.inner_width
    if model.has_head_norms:
        kept += model.query_width + model.kv_width
    return kept * compute_bytes


def _logits(recipe: Recipe, model: ModelSize, compute_bytes: int) -> Demand:
    """Return what the output embedding needs: chunks of logits, and its own gradient."""
    chunk = LOGIT_CHUNK_BYTES["cpu" if recipe.engine.device == "cpu" else "cuda"]
    logits = min(chunk, _microbatch_tokens(recipe) * model.vocabulary * 4)
    half = "" if compute_bytes == MASTER_BYTES else ".5"
    size = 2 * logits + (logits // 2 if half else 0)
    formula = f"2{half} x {logits:,}"
    if recipe.engine.lora is None:
        size += model.vocabulary * model.width * 2 * compute_bytes
        formula += f" + vocabulary x width x 2 x {compute_bytes}"
    return _bytes("logits", size, formula)


def _longest(recipe: Recipe) -> int:
    """Return the tokens of the longest prompt with the longest completion."""
    explore, evaluate = recipe.explore.sampling, recipe.evaluate.sampling
    longest = max(explore.max_completion_tokens, evaluate.max_completion_tokens)
    return recipe.prompt.max_tokens + longest


def _microbatch_tokens(recipe: Recipe) -> int:
    """Return the tokens of the largest micro-batch: no more than an update has, nor fewer than a
    sequence.
    """
    explore = recipe.explore
    longest = recipe.prompt.max_tokens + explore.sampling.max_completion_tokens
    sizes = [explore.prompts_per_step * explore.group_size // explore.updates_per_step]
    sizes += [phase.batch_size for phase in (recipe.finetune, recipe.coldstart) if phase]
    return max(longest, min(recipe.engine.microbatch_tokens, max(sizes) * longest))


def _bytes(name: str, value: float, formula: str) -> Demand:
    return Demand(section="memory", name=name, value=value, unit="bytes", formula=formula)
