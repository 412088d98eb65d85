"""The seam: all that the loop asks of whatever runs the model.

Policies cross it as directories, trajectories as records; nothing with a gradient does. The two
learning phases are generators: the loop pulls a step, stores it, looks at it, and may sample from
the policy in training, save its state, or stop pulling. One suite in `tests/contract` runs over
every engine.
"""

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import Literal, Protocol

from rloop.config import SamplingConfig
from rloop.errors import NonFinitePolicy
from rloop.types import (
    Completion,
    Example,
    Group,
    Place,
    PolicyRef,
    Problem,
    Trajectory,
    Verdict,
)

Successes = Mapping[str, Sequence[Trajectory]]
"""Stored successes by problem_id, to be replayed."""
LIVE: Literal["live"] = "live"
"""Stands for the policy in training, where `sample` and `logprobs` expect a `PolicyRef`."""


class Verify(Protocol):
    """Judges completions in the background: `tasks.pool.VerifierPool`, or a test's own."""

    def submit(self, problem: Problem, completion_text: str) -> "Future[Verdict]":
        """Start judging; the future never raises for what the completion says."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class ExploreStep:
    """One RL step: every group sampled in it, before any filter, and how the update went.

    Example: ExploreStep(step=3, groups=(...), metrics={"reward_mean": 0.41, "entropy_mean": 1.2})
    """

    step: int
    groups: tuple[Group, ...]
    metrics: Mapping[str, float]
    """Keys without the phase: `reward_mean`, `grad_norm`, `sampled_tokens_count`, `sample_s`,
    ...; `skipped_updates_count` where updates were skipped because a number was not finite.
    """


@dataclass(frozen=True, slots=True, kw_only=True)
class FinetuneStep:
    """One supervised update. Example: FinetuneStep(step=3, num_steps=40, metrics={"loss_mean":
    0.7}).
    """

    step: int
    num_steps: int
    metrics: Mapping[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptReport:
    """Problems that fit, and those whose prompt is longer than allowed, with the length that
    broke it.
    """

    kept: tuple[Problem, ...]
    too_long: tuple[tuple[Problem, int], ...]
    longest: tuple[Problem, int] | None = None
    """Of those that fit; None where none does."""
    context: int | None = None
    """Most tokens that the policy reads, prompt and completion together; None where unknown."""
    first: str = ""
    """The first problem's prompt as text, special tokens visible."""
    warnings: tuple[str, ...] = ()
    """Sentences about the chat template and the tokenizer."""

    @classmethod
    def part(
        cls,
        problems: Sequence[Problem],
        lengths: Sequence[int],
        limit: int,
        *,
        context: int | None = None,
        first: str = "",
        warnings: Sequence[str] = (),
    ) -> "PromptReport":
        """Part the problems by the token count of their prompts."""
        pairs = list(zip(problems, lengths, strict=True))
        kept = [pair for pair in pairs if pair[1] <= limit]
        return cls(
            kept=tuple(problem for problem, _ in kept),
            too_long=tuple(pair for pair in pairs if pair[1] > limit),
            longest=max(kept, key=lambda pair: pair[1], default=None),
            context=context,
            first=first,
            warnings=tuple(warnings),
        )


def check_finite(completion: Completion, place: Place) -> None:
    """Raise NonFinitePolicy for a completion drawn from NaN: it is noise, and no data."""
    if not all(map(isfinite, completion.behavior_logprobs)):
        raise NonFinitePolicy(
            f"{place.policy or 'The policy'} gives NaN or infinite log-probabilities: its weights "
            "have grown until they overflow. Lower the learning rate that made it."
        )


class Engine(Protocol):
    """What an engine can do. All errors it raises are `EngineError`s.

    `NonFinitePolicy` says that a policy cannot be sampled from or saved any more. Where an engine
    changes a setting by itself (a budget that memory was too small for) it warns by `logging`.
    """

    def prepare(self, source: str, directory: Path, *, seed: int) -> PolicyRef:
        """Turn the recipe's `policy.path` into a Hugging Face directory and check that it works."""
        ...

    def fit_prompts(self, policy: PolicyRef, problems: Sequence[Problem]) -> PromptReport:
        """Part problems by whether their prompt fits `prompt.max_tokens`; show the first one."""
        ...

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
        """Begin RL from `start` with a fresh optimizer; return its steps, done as they are pulled.

        When this returns, `LIVE` is the start policy, or the one of the saved state.

        `problem_weights` (from `explore.focus: hard`) draws problems in proportion; None shuffles
        them all in epochs. Of `replayed`, `explore.replay_per_group` join each group's advantages
        and loss (`algo.replay`); a step's groups are what was sampled in it alone. `resume_from`
        continues after the step whose state was saved there.
        """
        ...

    def fine_tune(
        self,
        start: PolicyRef,
        examples: Sequence[Example],
        place: Place,
        *,
        resume_from: Path | None = None,
    ) -> Iterator[FinetuneStep]:
        """Begin weighted SFT from `start` on stored token ids, EOS supervised; return its updates.

        They are done as they are pulled. When this returns, `LIVE` is the start policy, or the one
        of the saved state. The settings are the recipe's `finetune`, or `coldstart` when
        `place.phase` says so. `resume_from` continues after the update whose state was saved there.
        """
        ...

    def sample(
        self,
        policy: PolicyRef | Literal["live"],
        problems: Sequence[Problem],
        num_samples: int,
        place: Place,
        sampling: SamplingConfig | None = None,
    ) -> Iterator[Group]:
        """Sample and judge groups, yielded as they finish.

        `sampling` may differ from the recipe's `evaluate.sampling`, which None takes, in all but
        `max_completion_tokens`.
        """
        ...

    def logprobs(
        self,
        policy: PolicyRef | Literal["live"],
        examples: Sequence[Example],
        *,
        temperature: float,
    ) -> list[tuple[float, ...]]:
        """Return what the policy thinks of each completion: [T] log-probabilities of its tokens.

        Over the whole vocabulary at the temperature, where 0 counts as 1: as in
        `Completion.behavior_logprobs`. The policy stays as it is.
        """
        ...

    def examples_from_solutions(
        self, policy: PolicyRef, problems: Sequence[Problem], solution_template: str
    ) -> list[Example]:
        """Tokenise prompts and solutions for a cold start; completions end as a turn does."""
        ...

    def save_policy(self, directory: Path, name: str, *, goes_on: bool = False) -> PolicyRef:
        """Write the policy in training as a Hugging Face directory, loaded again as a check.

        Its phase is over then, unless it `goes_on`.
        """
        ...

    def average(self, policies: Sequence[PolicyRef], directory: Path, name: str) -> PolicyRef:
        """Write the uniform mean of the policies' weights as a Hugging Face directory."""
        ...

    def save_state(self, directory: Path) -> None:
        """Write all that `explore(resume_from=directory)` needs, whole or not at all."""
        ...

    def save_skipped(self, stem: Path, place: Place) -> Path | None:
        """Write the first update skipped as not finite since the last call; return the file.

        `stem` is the file's path without its suffix. The file is enough to do the update again.
        None where no update was skipped.
        """
        ...

    def describe(self) -> Mapping[str, str]:
        """Facts for the console header: device, precision, threads, parameters."""
        ...

    def close(self) -> None:
        """Free the model and the device memory."""
        ...
