"""What a recipe need not say: a value for each required key but `policy` and `tasks.train`.

A key that a recipe gives is never changed, so one that gives them all resolves to itself. Rates and
lengths are those for a model of 1 to 8 billion parameters, all of whose weights train; `rloop new`
writes a recipe with values for the model at hand.
"""

import copy
from collections.abc import Mapping
from typing import Any

DEFAULTS: Mapping[str, Any] = {
    "name": "run",
    "seed": 0,
    "iterations": 3,
    "explore": {
        "steps": 50,
        "prompts_per_step": 32,
        "group_size": 8,
        "sampling": {"max_completion_tokens": 1024},
        "optimizer": {"learning_rate": 1e-6},  # DAPO, section 4.1
    },
    "expert": {"max_success_rate": 0.75},
    "finetune": {
        "epochs": 2,
        "batch_size": 64,
        "optimizer": {"learning_rate": 5e-6},  # a rate far above RL's forgets (docs/results)
    },
    "evaluate": {"samples": 8, "k": [1, 8], "sampling": {"max_completion_tokens": 1024}},
}
"""`evaluate.k` and its `max_completion_tokens` follow the recipe: see `fill`."""
COLDSTART: Mapping[str, Any] = {
    "epochs": 2,
    "batch_size": 32,
    "optimizer": {"learning_rate": 5e-6},
}
"""For a recipe that has a cold start."""


def fill(data: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values of a recipe with defaults for the required keys that it lacks.

    Where `evaluate` lacks them, completions are as long as in `explore`, and k is 1, 8 and the
    number of samples. `expert` and `finetune` go together: where one is null and the other absent,
    both are null.
    """
    filled = copy.deepcopy(dict(data))
    pair = ("expert", "finetune")
    if any(filled.get(name, "") is None for name in pair):
        for name in pair:
            filled.setdefault(name, None)
    if isinstance(filled.get("coldstart"), dict):
        _fill(filled["coldstart"], COLDSTART)
    if isinstance(filled.get("evaluate", {}), dict):
        _fill_evaluate(filled.setdefault("evaluate", {}), filled.get("explore"))
    _fill(filled, DEFAULTS)
    return filled


def _fill(data: dict[str, Any], defaults: Mapping[str, Any]) -> None:
    for name, default in defaults.items():
        if name not in data:
            data[name] = copy.deepcopy(default)
        elif isinstance(default, dict) and isinstance(data[name], dict):
            _fill(data[name], default)


def _fill_evaluate(evaluate: dict[str, Any], explore: object) -> None:
    samples, ks = evaluate.get("samples"), evaluate.get("k")
    if type(samples) is int and ks is None:
        evaluate.setdefault("k", sorted({1, samples} | ({8} if samples > 8 else set())))
    elif "samples" not in evaluate and isinstance(ks, list) and all(type(k) is int for k in ks):
        evaluate["samples"] = max([8, *ks])
    sampling = evaluate.setdefault("sampling", {})
    explored = explore.get("sampling") if isinstance(explore, dict) else None
    if isinstance(sampling, dict) and isinstance(explored, dict):
        length = explored.get("max_completion_tokens")
        if length is not None:
            sampling.setdefault("max_completion_tokens", length)
