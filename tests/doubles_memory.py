"""The native engine at work in a fresh process, for the most memory it ever has."""

import multiprocessing
import tempfile
from concurrent.futures import Future
from dataclasses import replace
from itertools import count
from pathlib import Path

from rloop.recipe.config import Recipe
from rloop.types import Example, Place, Problem, Verdict

WORDS = "what is the sum of these many numbers and why "


class Alternately:
    """Judges every other completion correct, so that each group has a signal."""

    def __init__(self) -> None:
        self._numbers = count()

    def submit(self, problem: Problem, completion_text: str) -> "Future[Verdict]":
        del problem, completion_text
        future: Future[Verdict] = Future()
        kind = ("correct", "wrong")[next(self._numbers) % 2]
        future.set_result(Verdict(kind=kind, answer="7", verifier_version="test/1"))  # type: ignore[arg-type]
        return future


def peak_bytes(recipe: Recipe, characters: int) -> int:
    """Return the peak of resident memory over sampling, two RL steps and their RFT.

    Prompts are texts of so many characters.
    """
    context = multiprocessing.get_context("spawn")
    with context.Pool(1) as pool:
        return pool.apply(_measure, (recipe.model_dump_json(), characters))


def _measure(text: str, characters: int) -> int:
    from rloop.engines.native.engine import NativeEngine
    from rloop.engines.rollout import Rollout
    from rloop.loop.rl import RLState, RLTrainer
    from rloop.loop.sft import sft_steps

    recipe = Recipe.model_validate_json(text)
    place = Place(run="r", seed=0, iteration=1, phase="explore", policy="explored-001")
    problems = [
        Problem(
            problem_id=f"t/train/{number}",
            task="t",
            question=(f"{number} " + WORDS * characters)[:characters],
            answer="7",
            verifier="exact",
        )
        for number in range(recipe.explore.prompts_per_step)
    ]
    with tempfile.TemporaryDirectory() as folder:
        engine = NativeEngine(recipe)
        base = engine.prepare(recipe.policy.path, Path(folder) / "base", seed=0)
        explorer = RLTrainer(
            rollout=Rollout(engine=engine, verify=Alternately()),
            config=recipe.explore.model_copy(update={"steps": 2}),
            problems=problems,
            place=place,
        )
        engine.begin(recipe.explore.optimizer, seed=0)
        steps = list(explorer.steps(RLState()))
        engine.save_state(Path(folder) / "state")
        examples = [
            Example(
                problem_id=t.problem.problem_id,
                prompt_ids=t.completion.prompt_ids,
                completion_ids=t.completion.completion_ids,
            )
            for group in steps[-1].groups
            for t in group.trajectories
        ]
        assert recipe.finetune is not None
        engine.load(base)
        engine.begin(recipe.finetune.optimizer, seed=0)
        list(sft_steps(engine, examples, recipe.finetune, replace(place, phase="finetune")))
        engine.save_policy(Path(folder) / "next", "next")
    status = Path("/proc/self/status").read_text()
    return 1024 * int(status.partition("VmHWM:")[2].split()[0])
