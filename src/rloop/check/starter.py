"""A recipe for a model and problems, with values for the device at hand: `rloop new`.

A text with comments, so that what a one-line run does can be read, kept and changed. Values come
from the model's files, the device's memory and whether the device is a GPU; none from a name.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rloop.check.estimate import auto_device, cuda_memory, main_memory, memory
from rloop.check.recipe import check_path
from rloop.errors import ConfigError
from rloop.policies.model_files import (
    ModelSize,
    fetch_description,
    measure_model,
    read_context_length,
    read_tokenizer,
)
from rloop.recipe.load import load_text, overridden, run_name
from rloop.tasks.benchmarks import BENCHMARKS, check_source
from rloop.tasks.readers import read_rows
from rloop.tasks.verifiers.registry import check_verifier_name
from rloop.text import format_value

FIT = 0.85
"""Part of the device's memory that a run is planned to take."""
FEW = 4
"""A file with fewer problems than so many times what would be held out is left to be split."""
MAX_BATCHES = (256, 128, 64, 32, 16)
BOXED = "\n\nPlease reason step by step, and put your final answer within \\boxed{}."
"""Asks for what the verifiers `math` and `numeric` read; the words of Qwen2.5-Math's authors."""
PLAIN_TEMPLATE = "Question: {problem}\nAnswer:"
"""For a model without a chat template."""
PROMPT_TOKENS = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """How much a first run samples. Example: BUDGETS["cuda"]."""

    iterations: int
    steps: int
    prompts_per_step: int
    completion_tokens: int
    held_out: int
    temperatures: tuple[float, ...] = ()
    """Those measured at the end, where they are not the usual ones."""


BUDGETS: Mapping[str, Budget] = {
    "cuda": Budget(
        iterations=3, steps=50, prompts_per_step=32, completion_tokens=1024, held_out=200
    ),
    "mps": Budget(iterations=2, steps=10, prompts_per_step=8, completion_tokens=256, held_out=32),
    "cpu": Budget(
        iterations=2,
        steps=6,
        prompts_per_step=4,
        completion_tokens=128,
        held_out=24,
        temperatures=(0.4, 1.0),
    ),
}
RATES = ((1e9, 1e-6), (3e8, 2e-6), (2e7, 1e-5), (0, 1e-3))
"""RL's learning rate from so many parameters on, all of which train: 1e-6 is DAPO's (section 4.1),
smaller models bear more."""
ADAPTER_RATE = 10
"""Adapters bear this many times the rate ("LoRA Without Regret", Thinking Machines, 2025)."""
FINETUNE_RATE = 5
"""Fine-tuning's rate over RL's: one far above it forgets (docs/results/small.md)."""
ENGINES: tuple[Mapping[str, Any], ...] = (
    {},
    {"gradient_checkpointing": True},
    {"gradient_checkpointing": True, "lora": {"rank": 32, "alpha": 64}},
)
"""What is tried in turn until a run fits into memory."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """The device that a recipe is for. Example: Machine(kind="cuda", memory=80 * 2**30)."""

    kind: str
    memory: int

    def __str__(self) -> str:
        """Return it in words. Example: `a GPU with 80 GB`."""
        name = {"cuda": "a GPU", "mps": "an Apple GPU", "cpu": "a CPU"}[self.kind]
        return f"{name} with {format_value(self.memory, 'bytes')}"


def this_machine() -> Machine:
    """Return the first CUDA device, else an Apple GPU or the CPU with the machine's memory."""
    kind = auto_device()
    return Machine(kind=kind, memory=cuda_memory()[0] if kind == "cuda" else main_memory())


COMMENTS = {
    "iterations": "each explores, selects, fine-tunes and evaluates",
    "tasks.train": "what RL explores",
    "tasks.evaluate": "held out; without it a part of the training problems is",
    "prompt.suffix": "asks for what the verifier reads; the words of Qwen2.5-Math",
    "prompt.template": "the model has no chat template",
    "explore": "RL (DAPO); every completion is stored",
    "explore.steps": "in each iteration",
    "explore.group_size": "completions of each prompt, compared with each other",
    "explore.optimizer": "DAPO, section 4.1: 1e-6; adapters and small models bear more",
    "expert": "successes become the expert set",
    "expert.max_success_rate": "problems solved more often are left out",
    "finetune": "the iteration's start policy, on the expert set",
    "finetune.optimizer": "a rate far above RL's forgets",
    "evaluate": "before, and after each phase that trains",
    "evaluate.samples": "of each problem",
    "evaluate.temperatures": "at the end: is it more than a lower temperature?",
    "engine": "so that it fits into memory",
}


def starter_recipe(
    model: str,
    sources: Sequence[str],
    *,
    verifier: str | None = None,
    overrides: Sequence[str] = (),
    machine: Machine | None = None,
) -> str:
    """Return the YAML text of a recipe that trains `model` on `sources`, as tasks name them.

    `verifier` judges all of them, the source's own where there is none; `overrides` (`a.b=value`)
    change values. ConfigError where model or sources are missing.
    """
    if not model or not sources:
        raise ConfigError(
            "Name a recipe, or a model and problems: --model NAME with --task NAME or --data FILE, "
            "such as --model Qwen/Qwen2.5-1.5B-Instruct --task gsm8k."
        )
    _check_names(model, sources, verifier)
    machine = machine or this_machine()
    fetch_description(model)
    size = measure_model(model)
    values = _fitted(_values(model, sources, verifier, BUDGETS[machine.kind]), machine, size)
    _set_rates(values, model, size)
    values = overridden(values, overrides)
    title = [
        f"# RLoop: {model} on {', '.join(sources)}, with values for {machine}.",
        "# `rloop config` lists all other keys; `rloop check` shows what the run will need.",
    ]
    if size is None and not model.startswith("random:"):
        title.append(
            "# The model's files are not here, so its size is not known and memory is not counted."
        )
    return "\n".join([*title, *_written(values)]) + "\n"


def _check_names(model: str, sources: Sequence[str], verifier: str | None) -> None:
    """Raise ConfigError or EngineError for a name that no run could find, before it is printed."""
    check_path(model)
    for source in sources:
        check_source(source)
    if verifier is not None:
        check_verifier_name(verifier)


def _values(
    model: str, sources: Sequence[str], verifier: str | None, budget: Budget
) -> dict[str, Any]:
    """Return the recipe of a model whose weights all train, without learning rates."""
    train, held_out = zip(*(_tasks(source, verifier, budget) for source in sources), strict=True)
    prompt_tokens, tokens = _lengths(model, budget)
    sampling: dict[str, Any] = {"max_completion_tokens": tokens}
    prompt = _prompt(sources, verifier)
    files = read_tokenizer(model)
    if files is not None and not files.chat_template:
        prompt["template"] = PLAIN_TEMPLATE
        sampling["stop"] = ["\nQuestion:"]
    if prompt_tokens < PROMPT_TOKENS:
        prompt["max_tokens"] = prompt_tokens
    evaluate = [task for task in held_out if task is not None]
    return {
        "name": run_name(f"{Path(model).name}-{_short(sources[0])}".lower()),
        "seed": 0,
        "iterations": budget.iterations,
        "policy": {"path": model},
        "tasks": {"train": list(train)} | ({"evaluate": evaluate} if evaluate else {}),
        **({"prompt": prompt} if prompt else {}),
        "explore": {
            "steps": budget.steps,
            "prompts_per_step": budget.prompts_per_step,
            "group_size": 8,
            "sampling": sampling,
        },
        "expert": {"max_success_rate": 0.75, "per_problem_cap": 8},
        "finetune": {"epochs": 2, "batch_size": 32},
        "evaluate": {
            "samples": 8,
            **({"temperatures": list(budget.temperatures)} if budget.temperatures else {}),
            "sampling": dict(sampling),
        },
    }


def _tasks(
    source: str, verifier: str | None, budget: Budget
) -> tuple[dict[str, Any], dict[str, Any] | None]:
    """Return a source's training task, and its held-out one where it has problems for both."""
    task: dict[str, Any] = {"source": source} | ({"verifier": verifier} if verifier else {})
    if source.startswith("reasoning_gym:"):
        held_out = {"name": f"{_short(source)}-held-out", "size": budget.held_out, "seed": 1}
        return task | {"size": 500}, task | held_out
    if source in BENCHMARKS and {"train", "test"} <= set(BENCHMARKS[source].files):
        return task | {"split": "train"}, task | {"split": "test", "size": budget.held_out}
    kind, _, place = source.partition(":")
    if kind == "file" and len(read_rows(Path(place).expanduser())) >= FEW * budget.held_out:
        return task, task | {"name": f"{_short(source)}-held-out", "size": budget.held_out}
    return task, None


def _short(source: str) -> str:
    kind, _, place = source.partition(":")
    return Path(place or kind).name.partition(".")[0]


def _lengths(model: str, budget: Budget) -> tuple[int, int]:
    """Return the most tokens of a prompt and of a completion, which the model's context holds."""
    context = read_context_length(model) or PROMPT_TOKENS + budget.completion_tokens
    tokens = min(budget.completion_tokens, context // 2)
    return min(PROMPT_TOKENS, context - tokens), tokens


def _prompt(sources: Sequence[str], verifier: str | None) -> dict[str, Any]:
    """Return what asks for a boxed answer, where every verifier reads one."""
    is_boxed = verifier in (None, "math", "numeric")
    has_own = any(source.startswith(("reasoning_gym:", "verifiers:")) for source in sources)
    return {"suffix": BOXED} if is_boxed and not has_own else {}


def _fitted(values: dict[str, Any], machine: Machine, size: ModelSize | None) -> dict[str, Any]:
    """Add the first engine that fits into the machine's memory, with its largest batch.

    Of what fits nowhere the last one stays: `rloop check` says what it asks for.
    """
    if size is None:
        return values
    tried = values
    width = 2 if machine.kind == "cuda" else 4
    for engine in ENGINES:
        for max_batch in MAX_BATCHES:
            own = {**engine, **({"max_batch": max_batch} if max_batch < MAX_BATCHES[0] else {})}
            tried = values | ({"engine": own} if own else {})
            recipe = load_text(json.dumps(tried), [f"engine.device={machine.kind}"])
            held = memory(recipe, size, width, num_evaluate=BUDGETS[machine.kind].held_out)
            if held[-1].value <= FIT * machine.memory:
                return tried
    return tried


def _set_rates(values: dict[str, Any], model: str, size: ModelSize | None) -> None:
    parameters = (
        0 if model.startswith("random:") else RATES[0][0] if size is None else size.parameters
    )
    rate = next(rate for most, rate in RATES if parameters >= most)
    rate *= ADAPTER_RATE if values.get("engine", {}).get("lora") else 1
    values["explore"]["optimizer"] = {"learning_rate": rate}
    values["finetune"]["optimizer"] = {"learning_rate": float(f"{FINETUNE_RATE * rate:.1g}")}


def _written(values: Mapping[str, Any], above: str = "") -> Iterator[str]:
    """Yield the lines of YAML: sections as blocks, what lies deeper in one line, with comments."""
    indent = "  " if above else ""
    for key, value in values.items():
        name = above + key
        note = f"  # {COMMENTS[name]}" if name in COMMENTS else ""
        if not above and isinstance(value, dict):
            yield from ("", f"{key}:{note}", *_written(value, f"{key}."))
        elif isinstance(value, list) and value and isinstance(value[0], dict):
            yield f"{indent}{key}:{note}"
            yield from (f"{indent}  - {_flow(entry)}" for entry in value)
        else:
            yield f"{indent}{key}: {_flow(value)}{note}"


def _flow(value: object) -> str:
    """Return a value in one line; JSON is YAML, and plain words need no quotes."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {_flow(one)}" for key, one in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_flow, value)) + "]"
    if isinstance(value, float):
        return re.sub(r"e([+-])0", r"e\1", repr(value))  # 1e-6, as people write it
    is_word = isinstance(value, str) and re.fullmatch(r"[A-Za-z_][\w./-]*(:[\w./-]+)?", value)
    return str(value) if is_word else json.dumps(value)
