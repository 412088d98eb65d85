"""What a recipe will ask of a machine: batch arithmetic and disk, each number with its formula.

Upper bounds from the recipe and the model's files alone; no torch, nothing is sampled.
"""

import math
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rloop.policies.model_size import Linears, ModelSize
from rloop.recipe.config import EngineConfig, Recipe
from rloop.tables import format_value

MOMENT_BYTES = 8
"""Both Adam moments, per number that trains."""
TRAJECTORY_BYTES_PER_TOKEN = 12
"""Id, log-probability and text of a sampled token in the store, before compression."""
TRAJECTORY_BYTES = 1000
"""Everything else in a trajectory's row, its prompt too."""


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
    most = run_completions(recipe)
    if recipe.expert.window == "iteration":
        most = min(most, recipe.explore.steps * step_completions(recipe))
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


def step_completions(recipe: Recipe) -> int:
    """Return the most completions that an RL step samples."""
    explore = recipe.explore
    return explore.prompts_per_step * explore.group_size * (1 + explore.refill_rounds)


def run_steps(recipe: Recipe) -> int:
    """Return the most RL steps of all iterations together."""
    return recipe.iterations * recipe.explore.steps


def run_completions(recipe: Recipe) -> int:
    """Return the most completions that all explorations sample."""
    return run_steps(recipe) * step_completions(recipe)


def explored_tokens(recipe: Recipe) -> int:
    """Return the most tokens that one iteration's exploration samples."""
    steps = recipe.explore.steps
    return steps * step_completions(recipe) * recipe.explore.sampling.max_completion_tokens


def num_evaluations(recipe: Recipe) -> int:
    """Return how often the held-out problems are sampled, if no phase ends early."""
    every = recipe.evaluate.every
    inside = recipe.iterations * ((recipe.explore.steps - 1) // every) if every else 0
    after = 2 if recipe.finetune is not None or recipe.mix is not None else 1
    coldstart = 0 if recipe.coldstart is None else 1
    return 1 + coldstart + inside + recipe.iterations * after


def run_tokens(recipe: Recipe, num_evaluate: int) -> int:
    """Return the most tokens that the run samples."""
    evaluation = num_evaluate * recipe.evaluate.samples
    evaluation *= recipe.evaluate.sampling.max_completion_tokens
    explored = run_completions(recipe) * recipe.explore.sampling.max_completion_tokens
    return explored + num_evaluations(recipe) * evaluation


def disk(recipe: Recipe, num_evaluate: int, model: ModelSize | None) -> list[Demand]:
    """Return what the run directory may grow to; without a model, its trajectories only."""
    completions = run_completions(recipe)
    completions += num_evaluations(recipe) * num_evaluate * recipe.evaluate.samples
    stored = run_tokens(recipe, num_evaluate) * TRAJECTORY_BYTES_PER_TOKEN
    stored += completions * TRAJECTORY_BYTES
    rows = [
        _bytes(
            "trajectories, at most",
            stored,
            f"{TRAJECTORY_BYTES_PER_TOKEN} x sampled tokens + {TRAJECTORY_BYTES} x completions",
        )
    ]
    if model is not None:
        size, kept, width = model.parameters, _kept_policies(recipe), compute_bytes(recipe)
        numbers = trainable_numbers(recipe.engine, model)
        state = 2 * (4 + MOMENT_BYTES) * numbers
        rows += [
            _bytes("policies", kept * width * size, f"{kept} x parameters x {width}"),
            _bytes(
                "saved state",
                state,
                f"2 x {numbers:,} trainable x (4 + {MOMENT_BYTES} Adam moments)",
            ),
        ]
    return [*rows, _bytes("together", sum(row.value for row in rows), "the sum of these")]


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
    return engine.lora.rank * sum(linears.ends for linears in adapted_linears(engine, model))


def adapted_linears(engine: EngineConfig, model: ModelSize) -> list[Linears]:
    """Return the linear maps that get adapters; none without `engine.lora`."""
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
    explored = recipe.keep_explored or recipe.finetune is None or recipe.finetune.init == "explored"
    tuned = recipe.finetune is not None
    iterations = recipe.iterations if recipe.keep_policies == "all" else min(2, recipe.iterations)
    return int(recipe.coldstart is not None) + iterations * (int(explored) + int(tuned))


def _count(name: str, value: float, formula: str) -> Demand:
    return Demand(section="batch", name=name, value=value, unit="", formula=formula)


def _tokens(name: str, value: float, formula: str) -> Demand:
    return Demand(section="batch", name=name, value=value, unit="tokens", formula=formula)


def _bytes(name: str, value: float, formula: str) -> Demand:
    return Demand(section="disk", name=name, value=value, unit="bytes", formula=formula)
