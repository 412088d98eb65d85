"""Runs on several processes of torchrun: how a test starts one, and what a process of it does."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from rloop.algo.objective import Objective
from rloop.engines.base import Engine, SampleRequest, TrainingSequence
from rloop.recipe.config import OptimizerConfig, Recipe, SamplingConfig
from rloop.types import Problem

TESTS = Path(__file__).parent
QUESTIONS = ("1+1=", "2+5=", "3+3=", "4+12=", "5+1=")


def launch(program: Sequence[str], *, processes: int = 2) -> "subprocess.Popen[str]":
    """Start `torchrun PROGRAM` on CPUs, one thread a process; its output is read as one text."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += ["--nproc-per-node", str(processes), *program]
    paths = os.pathsep.join([str(TESTS), os.environ.get("PYTHONPATH", "")])
    return subprocess.Popen(
        command,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": paths},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def worker(launcher: "subprocess.Popen[str]", rank: int) -> int:
    """Return the process id of a rank of the launcher."""
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((folder / "stat").read_text().rsplit(")", 1)[1].split()[1])
            names = (folder / "environ").read_text().split("\0")
        except (OSError, ValueError):
            continue
        if parent == launcher.pid and f"RANK={rank}" in names:
            return int(folder.name)
    raise AssertionError(f"there is no rank {rank}")


def wait_until(condition: Callable[[], bool], launcher: "subprocess.Popen[str]") -> None:
    """Wait until something is there, while the launcher lives."""
    while not condition():
        assert launcher.poll() is None, launcher.communicate()[0]
        time.sleep(0.02)


def exercise(
    engine: Engine, recipe: Recipe, folder: Path, *, state: Path | None = None
) -> dict[str, object]:
    """Return what an engine gives in a little of everything: completions, metrics, scores.

    It goes on from the state that it saves, or from another's.
    """
    base = engine.prepare(recipe.policy.path, folder / "base", seed=0)
    prompts = [
        engine.renderer.prompt(
            Problem(problem_id=text, task="toy", question=text, answer="", verifier="exact")
        ).ids
        for text in QUESTIONS
    ]
    requests = [
        SampleRequest(ids, seed=n) for n, ids in enumerate(i for i in prompts for _ in "ab")
    ]
    settings = SamplingConfig(max_completion_tokens=12)
    found = dict(engine.sample(requests, settings))
    sequences = [
        TrainingSequence(
            prompt_ids=requests[n].prompt_ids,
            completion_ids=found[n].completion_ids,
            behavior_logprobs=found[n].behavior_logprobs,
            advantage=1.0 - 2.0 * (n % 2) + 0.1 * n,
        )
        for n in range(len(requests))
    ]
    engine.begin(OptimizerConfig(learning_rate=1e-3), seed=5)
    references = engine.logprobs(sequences, temperature=1.0, at_start=True)
    sequences = [
        TrainingSequence(
            prompt_ids=s.prompt_ids,
            completion_ids=s.completion_ids,
            behavior_logprobs=s.behavior_logprobs,
            reference_logprobs=reference,
            advantage=s.advantage,
        )
        for s, reference in zip(sequences, references, strict=True)
    ]
    objective = Objective(loss="dapo", clip_low=0.2, clip_high=0.28, kl_coef=0.1, entropy_coef=0.01)
    updates = [engine.update(sequences, objective, learning_rate=1e-3) for _ in range(2)]
    few = engine.update(sequences[:1], Objective(loss="sft"), learning_rate=1e-3)
    engine.save_state(folder / "state")
    straight = engine.update(sequences, objective, learning_rate=1e-3)
    engine.load(base)
    engine.begin(OptimizerConfig(learning_rate=1e-3), seed=5, state=state or folder / "state")
    resumed = engine.update(sequences, objective, learning_rate=1e-3)
    return {
        "completions": [list(found[n].completion_ids) for n in range(len(requests))],
        "updates": [*updates, few, straight],
        "resumed": resumed,
        "logprobs": [list(row) for row in engine.logprobs(sequences, temperature=0.7)],
    }


if __name__ == "__main__":
    import json

    from rloop.engines.native.parallel import ParallelEngine, follow

    if os.environ["RANK"] != "0":
        follow()
    else:
        given = Recipe.model_validate_json(Path(sys.argv[1]).read_text())
        parallel = ParallelEngine(given)
        result = exercise(parallel, given, Path(sys.argv[2]))
        parallel.close()
        (Path(sys.argv[2]) / "found.json").write_text(json.dumps(result))
