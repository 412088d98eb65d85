"""The same step on a Tinker server and on the native engine, in turn, and how far verdicts overlap.

    make tinker-server MODEL=random:qwen3-2x64 PORT=8000
    python benchmarks/over_the_wire.py http://127.0.0.1:8000 runs/tinker/server/model

A round samples the same prompts on either engine (adapters of rank 8, float32), with verdicts that
cost nothing; then on the server with verdicts that take a time, as a judge's do; then it asks for
these verdicts alone; then it does one update on either. Printed are medians over the rounds.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from statistics import median

from rloop.algo.objective import Objective
from rloop.engines.base import Engine, TrainingSequence
from rloop.engines.registry import build_engine
from rloop.engines.rollout import Rollout
from rloop.recipe.config import SamplingConfig
from rloop.recipe.load import make_recipe
from rloop.session.environment import environment
from rloop.tasks.pool import VerifierPool
from rloop.types import Group, Place, Problem

VERDICT_S = 0.3
OBJECTIVE = Objective(loss="dapo", clip_low=0.2, clip_high=0.28)
Figures = dict[str, list[float]]


def judged_slowly(problem: Problem, completion: str) -> bool:
    """Take as long as a small remote judge."""
    del problem
    time.sleep(VERDICT_S)
    return "1" in completion


def judged_at_once(problem: Problem, completion: str) -> bool:
    """Take no time."""
    del problem
    return "1" in completion


def main(arguments: Sequence[str]) -> None:
    """Measure and print JSON."""
    options = parse(arguments)
    os.environ["PYTHONPATH"] = str(Path(__file__).parent)  # where workers look for the functions
    sys.path.insert(0, str(Path(__file__).parent))
    found: Figures = {}
    with (
        tempfile.TemporaryDirectory() as folder,
        engine_of("native", options, Path(folder)) as native,
        engine_of("tinker", options, Path(folder)) as tinker,
        closing(VerifierPool(options.workers, 60.0)) as pool,
    ):
        for number in range(options.rounds + 1):  # the first one compiles, and is not counted
            for name, value in one_round(native, tinker, pool, options, number).items():
                found.setdefault(name, []).extend([round(value, 3)] * bool(number))
    report = {
        "options": {name: str(value) for name, value in vars(options).items()},
        "medians": {name: median(values) for name, values in found.items()},
        "rounds": found,
        "machine": environment(Path(__file__)) | {"load": os.getloadavg()[0]},
    }
    sys.stdout.write(json.dumps(report, indent=2) + "\n")


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """Return the options."""
    parser = argparse.ArgumentParser(description="Measure a Tinker server beside the native engine")
    parser.add_argument("url")
    parser.add_argument("model", type=Path, help="the directory that the server serves")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--prompts", type=int, default=16)
    parser.add_argument("--group-size", type=int, default=8)
    parser.add_argument("--tokens", type=int, default=32, help="most tokens of a completion")
    parser.add_argument("--in-flight", type=int, default=64, help="engine.tinker.max_in_flight")
    parser.add_argument("--workers", type=int, default=2, help="verifier processes")
    return parser.parse_args(arguments)


@contextmanager
def engine_of(name: str, options: argparse.Namespace, folder: Path) -> Iterator[Engine]:
    """Yield an engine that trains the model."""
    section: dict[str, object] = {"name": name, "device": "cpu", "dtype": "float32"}
    if name == "tinker":
        section["tinker"] = {
            "base_url": options.url,
            "rank": 8,
            "max_in_flight": options.in_flight,
        }
    else:
        section["lora"] = {"rank": 8, "alpha": 32}
    task = {"source": "reasoning_gym:basic_arithmetic", "size": 1, "verifier": "numeric"}
    recipe = make_recipe(
        {
            "name": "over-the-wire",
            "policy": {"path": str(options.model)},
            "tasks": {"train": [task]},
            "prompt": {"template": "{problem}"},
            "explore": {"optimizer": {"learning_rate": 1e-5}},
            "engine": section,
        }
    )
    engine = build_engine(recipe)
    engine.prepare(recipe.policy.path, folder / name, seed=0)
    engine.begin(recipe.explore.optimizer, seed=0)
    yield engine
    engine.close()


def one_round(
    native: Engine, tinker: Engine, pool: VerifierPool, options: argparse.Namespace, number: int
) -> dict[str, float]:
    """Return the seconds of each part, and the tokens a second of either engine."""
    found: dict[str, float] = {}

    def sample(engine: Engine, name: str, verifier: str) -> list[Group]:
        problems = [
            Problem(
                problem_id=f"{name}/{number}/{i}",
                task="sums",
                question=f"{i}+{number}=",
                answer="1",
                verifier=f"python:over_the_wire:{verifier}",
            )
            for i in range(options.prompts)
        ]
        place = Place(run="wire", seed=0, iteration=1, phase="explore", step=number)
        settings = SamplingConfig(max_completion_tokens=options.tokens)
        rollout = Rollout(engine=engine, verify=pool)
        begin = time.perf_counter()
        groups = list(rollout.groups(problems, options.group_size, settings, place))
        found[f"{name}_s"] = time.perf_counter() - begin
        return groups

    slow = sample(tinker, "server_slow_verdicts", "judged_slowly")
    found["slow_verdicts_alone_s"] = judge_again(slow, pool)
    for engine, name in ((native, "native"), (tinker, "server")):
        groups = sample(engine, f"{name}_sample", "judged_at_once")
        sequences = training(groups)
        num_tokens = sum(len(sequence.completion_ids) for sequence in sequences)
        found[f"{name}_tokens_per_s"] = num_tokens / found[f"{name}_sample_s"]
        begin = time.perf_counter()
        engine.update(sequences, OBJECTIVE, learning_rate=1e-5)
        found[f"{name}_update_s"] = time.perf_counter() - begin
    return found


def judge_again(groups: Sequence[Group], pool: VerifierPool) -> float:
    """Return the seconds of all verdicts without any sampling."""
    pairs = [
        (
            replace(group.problem, problem_id=f"{group.problem.problem_id}/again"),
            trajectory.completion.completion_text,
        )
        for group in groups
        for trajectory in group.trajectories
    ]
    begin = time.perf_counter()
    pool.verify(pairs)
    return time.perf_counter() - begin


def training(groups: Sequence[Group]) -> list[TrainingSequence]:
    """Return every completion, with an advantage that alternates."""
    return [
        TrainingSequence(
            prompt_ids=t.completion.prompt_ids,
            completion_ids=t.completion.completion_ids,
            behavior_logprobs=t.completion.behavior_logprobs,
            advantage=1.0 - 2.0 * (t.member % 2),
        )
        for group in groups
        for t in group.trajectories
    ]


if __name__ == "__main__":
    main(sys.argv[1:])
