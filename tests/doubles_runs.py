"""Recipes and runs for tests: a scripted engine on a file of toy problems."""

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

from doubles_scripted import At, Handler, ScriptedEngine, WatchedEngine

from rloop.engines.base import Engine
from rloop.recipe.config import Recipe
from rloop.types import Problem

BuildEngine = Callable[[Recipe], Engine]
TIMES = ("_s", "tokens_per_s")
"""How the keys of metrics that take time end."""


def write_problems(path: Path, count: int, *, first: int = 0) -> Path:
    """Write `count` toy sums with their answers as JSON lines."""
    rows = [
        {"problem": f"{n}+1=", "answer": str(n + 1), "solution": f"{n + 1}", "id": f"sum-{n}"}
        for n in range(first, first + count)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def toy_recipe(folder: Path, **changes: Any) -> Recipe:
    """Return a recipe of two iterations on toy sums; dotted keys of `changes` replace values."""
    train = write_problems(folder / "train.jsonl", 6)
    held_out = write_problems(folder / "held-out.jsonl", 4, first=50)
    data: dict[str, Any] = {
        "name": "toy",
        "seed": 0,
        "iterations": 2,
        "policy": {"path": "random:llama-1x32"},
        "tasks": {
            "train": [{"source": f"file:{train}", "name": "sums", "verifier": "numeric"}],
            "evaluate": [{"source": f"file:{held_out}", "name": "held", "verifier": "numeric"}],
        },
        "prompt": {"template": "{problem}"},
        "explore": {
            "steps": 4,
            "prompts_per_step": 3,
            "group_size": 4,
            "sampling": {"max_completion_tokens": 16},
            "optimizer": {"learning_rate": 1e-3},
            "checkpoint_every": 2,
        },
        "expert": {"max_success_rate": 0.75, "per_problem_cap": 2},
        "finetune": {"epochs": 2, "batch_size": 4, "optimizer": {"learning_rate": 1e-3}},
        "evaluate": {
            "samples": 4,
            "k": [1, 4],
            "sampling": {"max_completion_tokens": 16},
            "temperatures": [],
        },
        "engine": {"device": "cpu", "dtype": "float32"},
    }
    for key, value in changes.items():
        *parents, name = key.split("__")
        place = data
        for parent in parents:
            place = place[parent]
        place[name] = value
    return Recipe.model_validate(data)


def with_mixed_groups(recipe: Recipe) -> Recipe:
    """Return the recipe with a training verifier that takes some of what a random policy writes."""
    data = recipe.model_dump(mode="json")
    data["tasks"]["train"][0]["verifier"] = "python:doubles_verifiers:is_short"
    return Recipe.model_validate(data)


def half_right(problem: Problem, member: int, updates: int) -> str:
    """Answer right for every other member, each in words of its own."""
    del updates
    if member % 2:
        return "no idea"
    return f"{'so ' * member}{problem.answer}"


def scripted(handler: Handler = half_right) -> BuildEngine:
    """Return what builds a scripted engine with this handler."""

    def build(recipe: Recipe) -> Engine:
        return ScriptedEngine(recipe, handler)

    return build


def watched(watch: Callable[[At], None], handler: Handler = half_right) -> BuildEngine:
    """Return what builds a scripted engine that calls `watch` before each completion."""

    def build(recipe: Recipe) -> Engine:
        return WatchedEngine(recipe, handler, watch)

    return build


def killed_at(
    phase: str, iteration: int, step: int, *, completion: int = 1
) -> Callable[[At], None]:
    """Return what ends the process at the n-th completion of a place, as SIGKILL would."""
    return _stopping((phase, iteration, step), completion, _kill)


def interrupted_at(
    phase: str, iteration: int, step: int, *, completion: int = 1
) -> Callable[[At], None]:
    """Return what presses Ctrl-C once, at the n-th completion of a place."""
    return _stopping(
        (phase, iteration, step), completion, lambda: os.kill(os.getpid(), signal.SIGINT)
    )


def _stopping(place: At, completion: int, stop: Callable[[], None]) -> Callable[[At], None]:
    seen: list[At] = []

    def watch(at: At) -> None:
        if at == place:
            seen.append(at)
            if len(seen) == completion:
                stop()

    return watch


def _kill() -> None:
    raise SystemExit("killed")


def begin(recipe: Recipe, folder: Path, build: BuildEngine) -> tuple[int, Path]:
    """Start a run of the recipe in `folder/run`; return its exit code and directory."""
    from rloop.session.process import start

    source = folder / "recipe.yaml"
    source.write_text("name: toy\n")
    run_dir = folder / "run"
    return start(source, recipe, run_dir, build), run_dir


def logged(run_dir: Path) -> list[dict[str, Any]]:
    """Return the lines of a run's metrics without what takes time."""
    from rloop.observe.run_log import read_metrics

    return [
        {key: value for key, value in line.items() if not key.endswith(TIMES)}
        for line in read_metrics(run_dir)
    ]


def trajectories(run_dir: Path, sql: str) -> list[dict[str, Any]]:
    """Return rows of a query over the run's trajectories."""
    from rloop.store.trajectories import TrajectoryStore

    rows: list[dict[str, Any]] = TrajectoryStore(run_dir).query(sql).to_pylist()
    return rows
