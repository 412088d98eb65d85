"""Engine `trl`, on rloop's side: problems out, completions in, verdicts and advantages in between.

No model is here: commands go to workers that stay alive from phase to phase.
"""

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal, TypeVar

import numpy as np

from rloop import errors
from rloop.algo.advantages import member_advantages
from rloop.config import Recipe, SamplingConfig
from rloop.engines.base import (
    ExploreStep,
    FinetuneStep,
    PromptReport,
    Successes,
    Verify,
)
from rloop.engines.native.directory import load_tokenizer
from rloop.engines.native.order import ProblemOrder
from rloop.engines.native.prompts import PromptBuilder
from rloop.engines.native.step_metrics import sampling_metrics, timing_metrics
from rloop.engines.trl.group import Workers
from rloop.engines.trl.judging import Judge, step_advantages
from rloop.engines.trl.launch import start_workers
from rloop.engines.trl.messages import (
    Advantages,
    CountPrompts,
    Counts,
    Describe,
    Done,
    Encode,
    Encoded,
    Explore,
    Facts,
    Failed,
    Message,
    Next,
    Prepare,
    Ready,
    Sample,
    Sampled,
    SavePolicy,
    SaveState,
    Score,
    Scores,
    Tune,
    Updated,
)
from rloop.engines.trl.options import check_recipe
from rloop.errors import EngineError
from rloop.model_size import read_context_length
from rloop.types import Example, Group, Place, PolicyRef, Problem, stable_hash

Answer = TypeVar("Answer")
BATCHES_PER_COMMAND = 4
"""Full batches a worker samples before the verifiers see them."""

_log = logging.getLogger(__name__)


class TrlEngine:
    """Implements `engines.base.Engine` on TRL's trainers."""

    def __init__(
        self,
        recipe: Recipe,
        verify: Verify,
        *,
        start: Callable[[Recipe], Workers] = start_workers,
    ) -> None:
        """Check what TRL can do of the recipe; `start` starts its workers when they are asked."""
        for warning in check_recipe(recipe):
            _log.warning(warning)
        self._recipe = recipe
        self._judge = Judge(verify)
        self._start = start
        self._workers: Workers | None = None

    def prepare(self, source: str, directory: Path, *, seed: int) -> PolicyRef:
        """Turn the recipe's `policy.path` into a directory, and load it once as a check."""
        done = self._ask(Prepare(source=source, directory=directory, seed=seed), Done)
        return PolicyRef(path=done.path or directory, name="base")

    def fit_prompts(self, policy: PolicyRef, problems: Sequence[Problem]) -> PromptReport:
        """Part problems by whether their prompt fits `prompt.max_tokens`; show the first one."""
        command = CountPrompts(policy=policy, problems=tuple(problems))
        lengths = self._ask(command, Counts).values
        trusted = self._recipe.policy.trust_remote_code
        builder = PromptBuilder(
            load_tokenizer(policy.path, trust_remote_code=trusted), self._recipe.prompt
        )
        return PromptReport.part(
            problems,
            lengths,
            self._recipe.prompt.max_tokens,
            context=read_context_length(str(policy.path)),
            first=builder.shown(problems[0]) if problems else "",
            warnings=builder.warnings(),
        )

    def explore(
        self,
        start: PolicyRef,
        problems: Sequence[Problem],
        place: Place,
        *,
        num_steps: int,
        problem_weights: Mapping[str, float] | None = None,
        replayed: Successes | None = None,
        resume_from: Path | None = None,
    ) -> Iterator[ExploreStep]:
        """Begin RL from `start` with a fresh optimizer; return its steps."""
        if replayed:
            raise EngineError("TRL's trainers replay nothing. Set engine.name=native.")
        wanted = self._recipe.explore.prompts_per_step
        if len(problems) < wanted:
            raise EngineError(
                f"TRL's batches have one size: explore.prompts_per_step={wanted} needs as many "
                f"problems, there are {len(problems)}. Lower it."
            )
        order = ProblemOrder(problems, place, problem_weights)
        drawn = [problem for _ in range(num_steps) for problem in order.draw(wanted)]
        index = {problem.problem_id: number for number, problem in enumerate(problems)}
        command = Explore(
            start=start,
            place=place,
            problems=tuple(problems),
            rows=tuple(index[problem.problem_id] for problem in drawn),
            resume_from=resume_from,
        )
        ready = self._ask(command, Ready)
        return self._explore_steps(drawn, place, ready.step, num_steps)

    def _explore_steps(
        self, drawn: Sequence[Problem], place: Place, step: int, num_steps: int
    ) -> Iterator[ExploreStep]:
        config = self._recipe.explore
        while step < num_steps:
            chosen = drawn[step * config.prompts_per_step : (step + 1) * config.prompts_per_step]
            step += 1
            begin = time.perf_counter()
            sampled = self._ask(Next(), Sampled)
            sample_s = time.perf_counter() - begin
            here = replace(place, step=step)
            groups = self._judge.groups(chosen, config.group_size, sampled, config.sampling, here)
            judged = time.perf_counter()
            advantages = step_advantages(groups, config)
            updated = self._ask(Advantages(values=advantages), Updated)
            learn_s = time.perf_counter() - judged
            num_signal = sum(member_advantages(g, config) is not None for g in groups)
            metrics = sampling_metrics(groups, num_signal)
            metrics |= updated.metrics
            metrics |= timing_metrics(metrics["sampled_tokens_count"], sample_s, learn_s)
            yield ExploreStep(step=step, groups=tuple(groups), metrics=metrics)

    def fine_tune(
        self,
        start: PolicyRef,
        examples: Sequence[Example],
        place: Place,
        *,
        resume_from: Path | None = None,
    ) -> Iterator[FinetuneStep]:
        """Begin SFT from `start` on stored token ids; return its updates."""
        config = self._recipe.tuning(place.phase)
        if config is None:
            raise EngineError(f"The recipe has no {place.phase} section.")
        ordered = tuple(
            examples[index]
            for epoch in range(config.epochs)
            for index in np.random.default_rng(
                stable_hash(place.seed, place.iteration, place.phase, "order", epoch)
            ).permutation(len(examples))
        )
        command = Tune(start=start, place=place, examples=ordered, resume_from=resume_from)
        return self._tuning_steps(self._ask(command, Ready))

    def _tuning_steps(self, ready: Ready) -> Iterator[FinetuneStep]:
        for _ in range(ready.step, ready.num_steps):
            updated = self._ask(Next(), Updated)
            yield FinetuneStep(
                step=updated.step, num_steps=ready.num_steps, metrics=updated.metrics
            )

    def sample(
        self,
        policy: PolicyRef | Literal["live"],
        problems: Sequence[Problem],
        num_samples: int,
        place: Place,
        sampling: SamplingConfig | None = None,
    ) -> Iterator[Group]:
        """Sample and judge groups, some problems at a time."""
        engine = self._recipe.engine
        batch = BATCHES_PER_COMMAND * engine.max_batch * engine.trl.launch.processes
        width = max(1, batch // num_samples)
        settings = sampling or self._recipe.evaluate.sampling
        for begin in range(0, len(problems), width):
            part = tuple(problems[begin : begin + width])
            command = Sample(
                policy=policy,
                problems=part,
                num_samples=num_samples,
                settings=settings,
                place=place,
            )
            sampled = self._ask(command, Sampled)
            yield from self._judge.groups(part, num_samples, sampled, settings, place)

    def logprobs(
        self,
        policy: PolicyRef | Literal["live"],
        examples: Sequence[Example],
        *,
        temperature: float,
    ) -> list[tuple[float, ...]]:
        """Return [T] log-probabilities of each completion's tokens."""
        command = Score(policy=policy, examples=tuple(examples), temperature=temperature)
        return list(self._ask(command, Scores).logprobs)

    def examples_from_solutions(
        self, policy: PolicyRef, problems: Sequence[Problem], solution_template: str
    ) -> list[Example]:
        """Tokenise prompts and solutions for a cold start; completions end in EOS."""
        command = Encode(
            policy=policy, problems=tuple(problems), solution_template=solution_template
        )
        return list(self._ask(command, Encoded).examples)

    def save_policy(self, directory: Path, name: str, *, goes_on: bool = False) -> PolicyRef:
        """Write the policy in training as one Hugging Face directory, whatever shards it."""
        if goes_on:
            raise EngineError("TRL's trainers save no policy on the way. Set engine.name=native.")
        self._ask(SavePolicy(directory=directory, name=name), Done)
        return PolicyRef(path=directory, name=name)

    def average(self, policies: Sequence[PolicyRef], directory: Path, name: str) -> PolicyRef:
        """Raise EngineError: a recipe that averages policies is the native engine's."""
        del policies, directory
        raise EngineError(f"TRL's trainers do not average {name}. Set engine.name=native.")

    def save_state(self, directory: Path) -> None:
        """Write TRL's checkpoint, whole or not at all."""
        self._ask(SaveState(directory=directory), Done)

    def save_skipped(self, stem: Path, place: Place) -> Path | None:
        """Return None: TRL skips no update."""
        del stem, place
        return None

    def describe(self) -> Mapping[str, str]:
        """Return device, precision and threads of a worker, and how many there are."""
        return self._ask(Describe(), Facts).facts

    def close(self) -> None:
        """End the workers."""
        if self._workers is not None:
            self._workers.close()
            self._workers = None

    def _ask(self, command: Message, kind: type[Answer]) -> Answer:
        """Return the workers' answer; they are begun anew after a failure."""
        if self._workers is None:
            self._workers = self._start(self._recipe)
        answer = self._workers.ask(command)
        if isinstance(answer, Failed):
            self.close()
            error: type[errors.RLoopError] = getattr(errors, answer.error)
            raise error(answer.message)
        assert isinstance(answer, kind), f"{command.kind} was answered by {answer.kind}"
        return answer
