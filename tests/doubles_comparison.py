"""Small run directories to compare: a method, a seed, and what each policy got right."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rloop.recipe.load import load_recipe
from rloop.recipe.methods import METHODS
from rloop.store.trajectories import TrajectoryStore
from rloop.types import Completion, Group, Place, Problem, Trajectory, Verdict

TINY = Path(__file__).parents[1] / "recipes/tiny.yaml"
TASK = "sums-heldout"
SAMPLES = 8

Counts = Sequence[int]
"""Correct of 8 samples, for each problem."""


def write_method_run(
    folder: Path,
    method: str,
    seed: int,
    counts: Mapping[str, Counts],
    *,
    tokens: int = 100,
    task: str = TASK,
    versions: tuple[str, str] = ("t-1", "numeric-1"),
    samples: int = SAMPLES,
) -> Path:
    """Write a finished run of recipes/tiny.yaml as `folder/METHOD-seed-SEED`.

    `counts` has the policies in order: coldstart, then explored-001@4 or iter-001 and so on. Each
    of 8 RL steps samples `tokens` tokens in 64 completions; rewards rise by 0.05 a step. `versions`
    are of the template and the verifier; `samples` is n, of which the counts are.
    """
    recipe = METHODS[method].of(load_recipe(TINY)).model_dump(mode="json") | {"seed": seed}
    directory = folder / f"{method}-seed-{seed}"
    directory.mkdir(parents=True)
    (directory / "config.json").write_text(json.dumps(recipe | {"name": directory.name}))
    (directory / "recipe.yaml").write_text("name: tiny\n")
    environment = {"machine": "x86_64", "cores": 2, "engine": {"device": "cpu"}}
    (directory / "environment.json").write_text(json.dumps(environment))
    last = "1/explore" if method == "rl" else "2/evaluate/iter-002"
    (directory / "manifest.json").write_text(json.dumps({"version": 1, "phases": {last: {}}}))
    rows = [
        write_evaluation(directory, task, label, found, versions, samples)
        for label, found in counts.items()
    ]
    rows += [_explore(recipe, number, tokens) for number in range(8)]
    rows.sort(key=lambda row: row["iteration"])
    (directory / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    event = {"name": "explore", "iteration": 1, "phase": "explore", "start": 1.0, "seconds": 2.5}
    (directory / "events.jsonl").write_text(json.dumps(event) + "\n")
    return directory


def _explore(recipe: Mapping[str, Any], number: int, tokens: int) -> dict[str, Any]:
    iteration, step = divmod(number, recipe["explore"]["steps"])
    return {
        "iteration": iteration + 1,
        "phase": "explore",
        "step": step + 1,
        "policy": f"explored-{iteration + 1:03d}",
        "explore/reward_mean": 0.2 + 0.05 * number,
        "explore/sampled_tokens_count": tokens,
        "explore/trajectories_count": 64,
        "explore/loss_tokens_count": tokens // 2,
    }


def write_evaluation(
    directory: Path,
    task: str,
    label: str,
    counts: Counts,
    versions: tuple[str, str],
    samples: int,
) -> dict[str, Any]:
    """Store an evaluation; return its line of the log, without the numbers nobody reads here."""
    policy, _, step = label.partition("@")
    iteration = int(policy[-3:]) if policy[-3:].isdecimal() else 0
    place = Place(
        run=directory.name,
        seed=0,
        iteration=iteration,
        phase="evaluate",
        step=int(step or 0),
        policy=policy,
    )
    groups = [
        _group(place, f"{task}/{number}", correct, versions, samples)
        for number, correct in enumerate(counts)
    ]
    TrajectoryStore(directory).append(place, groups, part=f"{policy}-{task}")
    average = sum(counts) / len(counts) / samples
    line = {"iteration": iteration, "phase": "evaluate", "step": place.step, "policy": policy}
    keys = {f"avg@{samples}": average, "sampled_tokens_count": 50}
    return line | {f"evaluate/{task}/{key}": value for key, value in keys.items()}


def _group(
    place: Place, problem_id: str, correct: int, versions: tuple[str, str], samples: int
) -> Group:
    task, _, number = problem_id.rpartition("/")
    problem = Problem(
        problem_id=problem_id, task=task, question="1+1=", answer="2", verifier="numeric"
    )
    completion = Completion(
        prompt_text="1+1=",
        prompt_ids=(1, 2),
        completion_text="2",
        completion_ids=(3, 0),
        behavior_logprobs=(-0.5, -0.25),
        finish_reason="stop",
    )
    members = tuple(
        Trajectory(
            place=place,
            problem=problem,
            group_id=f"{place.iteration}/evaluate/{place.step}/{number}",
            member=member,
            policy_version=0,
            completion=completion,
            verdict=Verdict(
                kind="correct" if member < correct else "wrong",
                answer="2",
                reason="",
                verifier_version=versions[1],
            ),
            reward=float(member < correct),
            temperature=1.0,
            top_p=1.0,
            top_k=0,
            template_version=versions[0],
        )
        for member in range(samples)
    )
    return Group(problem=problem, trajectories=members)
