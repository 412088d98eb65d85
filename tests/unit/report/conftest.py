"""A made-up run directory: two iterations of RLoop on sums, every file that a report reads."""

import json
import math
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rloop.store.trajectories import TrajectoryStore
from rloop.types import (
    Completion,
    Group,
    PhaseName,
    Place,
    Problem,
    Trajectory,
    Verdict,
    VerdictKind,
)

TASK = "sums"
HOSTILE = (
    "</script><script>alert(1)</script><img src=x onerror=alert(2)>\x1b[31mred\x1b[0m\u202eevil"
)

CONFIG: dict[str, Any] = {
    "name": "demo",
    "seed": 7,
    "iterations": 2,
    "policy": {"path": "package:smollm2"},
    "tasks": {
        "train": [{"source": "reasoning_gym:chain_sum", "name": "sums-train"}],
        "evaluate": [{"source": "reasoning_gym:chain_sum", "name": TASK}],
    },
    "explore": {
        "steps": 20,
        "prompts_per_step": 16,
        "group_size": 8,
        "loss": "dapo",
        "optimizer": {"learning_rate": 1e-6},
    },
    "expert": {"max_success_rate": 0.75, "per_problem_cap": 4},
    "finetune": {"epochs": 2, "init": "iteration_start"},
    "evaluate": {"samples": 8, "k": [1, 8], "confidence": 0.95},
    "coldstart": None,
    "engine": {"device": "cpu"},
}

POLICIES: tuple[tuple[int, PhaseName, str], ...] = (
    (0, "evaluate", "base"),
    (1, "explore", "explored-001"),
    (1, "evaluate", "iter-001"),
    (2, "explore", "explored-002"),
    (2, "evaluate", "iter-002"),
)
KINDS: tuple[VerdictKind, ...] = ("correct", "wrong")

BuildRun = Callable[..., Path]


def write_run(directory: Path, *, steps: int = 20, hostile: str = HOSTILE, seed: int = 0) -> Path:
    """Write a run of two complete iterations of `steps` RL steps each."""
    rng = random.Random(seed)
    directory.mkdir(parents=True, exist_ok=True)
    config = CONFIG | {"explore": CONFIG["explore"] | {"steps": steps}}
    (directory / "config.json").write_text(json.dumps(config))
    (directory / "recipe.yaml").write_text("name: demo\nseed: 7\niterations: 2\n")
    environment = {
        "python": "3.11.2",
        "machine": "x86_64",
        "cores": 2,
        "packages": {"rloop-rl": "0.1.0", "torch": "2.13.0"},
        "git_commit": "cdf72f9",
    }
    (directory / "environment.json").write_text(json.dumps(environment))
    phases: dict[str, Any] = {"0/prepare": {}, "0/evaluate/base": {}}
    rows = [evaluation(0, "base", 0, 0.198, 0.702)]
    for iteration in (1, 2):
        rows += explore_rows(iteration, steps, rng)
        rows.append(selection(iteration, pool=steps * 128))
        rows += [
            place(iteration, "finetune", update, f"iter-{iteration:03d}")
            | {
                "finetune/loss_mean": 0.9 * math.exp(-update / 12) + 0.05 * rng.random(),
                "finetune/grad_norm": 1.0,
            }
            for update in range(1, 31)
        ]
        average, any_correct = [(0.344, 0.731), (0.412, 0.721)][iteration - 1]
        rows.append(evaluation(iteration, f"iter-{iteration:03d}", 0, average, any_correct))
        phases |= {f"{iteration}/explore": {"steps": steps, "early_stop": None}}
        phases |= {f"{iteration}/{name}": {} for name in ("select", "finetune")}
        phases[f"{iteration}/evaluate/iter-{iteration:03d}"] = {}
    write_lines(directory / "metrics.jsonl", rows)
    write_lines(directory / "events.jsonl", EVENTS)
    manifest = {"version": 1, "phases": phases, "in_progress": None}
    (directory / "manifest.json").write_text(json.dumps(manifest))
    write_trajectories(directory, hostile, rng)
    return directory


def event(name: str, iteration: int, start: float, seconds: float) -> dict[str, Any]:
    phase = {"fine_tune": "finetune"}.get(name, name)
    here = {"name": name, "iteration": iteration, "phase": phase, "step": 0}
    return here | {"start": 1000.0 * iteration + start, "seconds": seconds}


EVENTS = [
    event(name, iteration, start, seconds)
    for iteration in (1, 2)
    for name, start, seconds in (
        ("evaluate", 50.0, 20.0),  # inside the exploration; spans are logged when they end
        ("explore", 0.0, 110.5),
        ("select", 110.5, 0.4),
        ("fine_tune", 110.9, 21.0),
        ("evaluate", 131.9, 20.0),
    )
]


def write_lines(path: Path, rows: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def place(iteration: int, phase: str, step: int, policy: str) -> dict[str, Any]:
    return {"iteration": iteration, "phase": phase, "step": step, "policy": policy}


def explore_rows(iteration: int, steps: int, rng: random.Random) -> list[dict[str, Any]]:
    rows = []
    for step in range(1, steps + 1):
        done = step / steps
        reward = 0.2 + 0.1 * iteration + 0.35 * done + rng.gauss(0, 0.04)
        correct, wrong = max(0.0, 0.4 * done - 0.05), max(0.0, 0.35 - 0.25 * done)
        values = {
            "reward_mean": reward,
            "entropy_mean": 1.1 * math.exp(-1.5 * done) + rng.gauss(0, 0.02),
            "grad_norm": 0.6 + 0.5 * done**2 + abs(rng.gauss(0, 0.1)),
            "loss_mean": rng.gauss(0, 0.02),
            "completion_tokens_mean": 34 - 10 * done + rng.gauss(0, 1),
            "truncated_frac": max(0.0, 0.12 - 0.1 * done + rng.gauss(0, 0.01)),
            "groups_mixed_frac": 1 - correct - wrong,
            "groups_all_correct_frac": correct,
            "groups_all_wrong_frac": wrong,
            "sampled_tokens_count": 4000,
            "tokens_per_s": 850.0,
            "clip_frac": None,
        }
        policy = f"explored-{iteration:03d}"
        keys = {f"explore/{key}": value for key, value in values.items()}
        rows.append(place(iteration, "explore", step, policy) | keys)
        if step % (steps // 4) == 0:
            start = 0.198 if iteration == 1 else 0.344
            rows.append(
                evaluation(iteration, policy, step, start + 0.17 * done, 0.71 - 0.09 * done**2)
            )
    return rows


def evaluation(
    iteration: int, policy: str, step: int, average: float, any_correct: float
) -> dict[str, Any]:
    row = place(iteration, "evaluate", step, policy)
    stem = f"evaluate/{TASK}"
    for name, value, base, half in (
        ("avg@8", average, 0.198, 0.052),
        ("pass@1", average, 0.198, 0.052),
        ("pass@8", any_correct, 0.702, 0.066),
    ):
        row |= {f"{stem}/{name}": value, f"{stem}/{name}_low": value - half}
        row[f"{stem}/{name}_high"] = value + half
        if policy != "base":
            row |= {
                f"{stem}/{name}_diff": value - base,
                f"{stem}/{name}_diff_low": value - base - 0.035,
                f"{stem}/{name}_diff_high": value - base + 0.035,
            }
    health = {
        "problems_count": 128,
        "samples_count": 1024,
        "sampled_tokens_count": 31_000,
        "truncated_frac": 0.061,
        "completion_tokens_mean": 30.3,
    }
    return row | {f"{stem}/{key}": value for key, value in health.items()}


def selection(iteration: int, pool: int) -> dict[str, Any]:
    counts = {
        "pool_count": pool,
        "successes_count": int(0.47 * pool),
        "hard_count": int(0.3 * pool),
        "deduplicated_count": int(0.14 * pool),
        "kept_count": int(0.09 * pool),
        "problems_seen_count": 128,
        "problems_kept_count": 71,
        "problems_too_easy_count": 36,
        "problems_not_solved_count": 21,
    }
    keys = {f"select/{key}": value for key, value in counts.items()}
    return place(iteration, "select", 0, "") | keys


def write_trajectories(directory: Path, hostile: str, rng: random.Random) -> None:
    """Store 64 trajectories of each policy, 8 of each problem, one in 8 of them hostile."""
    store = TrajectoryStore(directory)
    for iteration, phase, policy in POLICIES:
        step = 5 if phase == "explore" else 0
        where = Place(
            run="demo", seed=7, iteration=iteration, phase=phase, step=step, policy=policy
        )
        groups = [group(rng, where, number, hostile) for number in range(8)]
        store.append(where, groups, part=f"{policy}-{TASK}" if phase == "evaluate" else "")


def group(rng: random.Random, where: Place, number: int, hostile: str) -> Group:
    a, b = rng.randrange(10, 99), rng.randrange(10, 99)
    problem = Problem(
        problem_id=f"{TASK}/test/{number}",
        task=TASK,
        question=f"What is {a} + {b}?",
        answer=str(a + b),
        verifier="numeric",
    )
    members = []
    for member in range(8):
        kind: VerdictKind = "error" if number == 0 and member == 1 else rng.choice(KINDS)
        answer = str(a + b) if kind == "correct" else str(a + b + rng.choice((-10, -1, 1, 10)))
        text = f"First the tens of {a} and {b}, then the ones.\nIt is {answer}."
        ids = tuple(range(rng.randrange(12, 40)))
        completion = Completion(
            prompt_text=f"<|im_start|>user\n{problem.question}<|im_end|>\n<|im_start|>assistant\n",
            prompt_ids=(1, 2, 3),
            completion_text=text if member else hostile,
            completion_ids=ids,
            behavior_logprobs=tuple(-0.1 for _ in ids),
            finish_reason="stop",
        )
        reason = "no verdict within 5.0 s" if kind == "error" else ""
        members.append(
            Trajectory(
                place=where,
                problem=problem,
                group_id=f"{where.iteration}/{where.phase}/{where.step}/{problem.problem_id}",
                member=member,
                policy_version=where.step,
                completion=completion,
                verdict=Verdict(kind=kind, reason=reason, answer=None if reason else answer),
                reward=float(kind == "correct"),
                temperature=1.0,
                top_p=1.0,
                top_k=0,
                template_version="0",
            )
        )
    return Group(problem=problem, trajectories=tuple(members))


@pytest.fixture
def build_run(tmp_path: Path) -> BuildRun:
    """Return a function that writes the run, or a variant of it, into a fresh folder."""

    def build(**options: Any) -> Path:
        return write_run(tmp_path / "runs" / "demo", **options)

    return build


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the run directory for tests that only read it."""
    return write_run(tmp_path_factory.mktemp("finished") / "demo")
