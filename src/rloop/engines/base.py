"""The seam: what the loop asks of whatever holds the model.

An engine knows token ids, objectives and weights. It knows no problem, no verdict, no group and no
algorithm: `loop.rl` and `loop.sft` have those. Policies cross the seam as directories. One suite in
`tests/contract` runs over every engine.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from rloop.algo.objective import Objective
from rloop.recipe.config import OptimizerConfig, SamplingConfig
from rloop.types import Example, FinishReason, PolicyRef, Problem, Prompt, PromptReport


@dataclass(frozen=True, slots=True)
class SampleRequest:
    """One completion wanted: its prompt and the seed of its own random stream."""

    prompt_ids: tuple[int, ...]
    seed: int


@dataclass(frozen=True, slots=True)
class Sampled:
    """What was sampled: Sampled(completion_ids=(6, 0), behavior_logprobs=(-0.1, -0.02), "stop")."""

    completion_ids: tuple[int, ...]
    """[T] ids; the last one is a stop token or completes a stop text where it has stopped."""
    behavior_logprobs: tuple[float, ...]
    """[T] as computed by the sampler, at its temperature, over the whole vocabulary."""
    finish_reason: FinishReason


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingSequence:
    """A prompt and a completion to learn from.

    Example: TrainingSequence(prompt_ids=(5, 9), completion_ids=(6, 0), behavior_logprobs=(-0.1,
    -0.02), advantage=1.5)
    """

    prompt_ids: Sequence[int]
    completion_ids: Sequence[int]
    """[T] ids, EOS included where the completion stopped."""
    behavior_logprobs: Sequence[float] | None = None
    """[T] by the sampler, as stored; None in SFT."""
    reference_logprobs: Sequence[float] | None = None
    """[T] by the policy that the divergence is measured from; needed when `kl_coef` > 0."""
    advantage: float = 0.0
    """Compared with its group; unused by `sft`."""
    weight: float = 1.0
    """Weight of its tokens; used by `sft` only."""
    is_replayed: bool = False
    """Whether an earlier policy sampled it, so that it says nothing of the sampler's gap."""


class Renderer(Protocol):
    """The text side of a policy: `policies.renderer.Renderer`, or a test's own."""

    @property
    def version(self) -> str:
        """Hash of what decides the prompts' texts."""
        ...

    def prompt(self, problem: Problem) -> Prompt:
        """Return the problem's prompt as text and token ids."""
        ...

    def decode(self, token_ids: Sequence[int]) -> str:
        """Return the text of a completion, without the special tokens that only frame it."""
        ...

    def report(self, problems: Sequence[Problem]) -> PromptReport:
        """Split problems by whether their prompt fits `prompt.max_tokens`; show the first one."""
        ...

    def examples(self, problems: Sequence[Problem], solution_template: str) -> list[Example]:
        """Return prompts and solutions as token ids; completions end as a turn does."""
        ...


class Engine(Protocol):
    """Holds one policy, samples from it and trains it. All errors it raises are `EngineError`s.

    `NonFinitePolicy` says that a policy cannot be sampled from or saved any more. Every call is
    done when it returns; only `sample` works while its iterator is pulled. Where an engine changes
    a setting by itself (a budget that memory was too small for) it warns by `logging`.
    """

    def prepare(self, source: str, directory: Path, *, seed: int) -> PolicyRef:
        """Turn the recipe's `policy.path` into a Hugging Face directory, check it and load it."""
        ...

    def load(self, policy: PolicyRef) -> None:
        """Hold this policy, without an optimizer; whatever was in training is dropped."""
        ...

    @property
    def renderer(self) -> Renderer:
        """The text side of the policy that is held."""
        ...

    def sample(
        self, requests: Sequence[SampleRequest], settings: SamplingConfig
    ) -> Iterator[tuple[int, Sampled]]:
        """Yield (index of the request, completion) in the order in which they finish.

        Requests that share a prompt stand together: the prompt is computed once.
        """
        ...

    def begin(self, optimizer: OptimizerConfig, *, seed: int, state: Path | None = None) -> None:
        """Begin to train the policy that is held, with a fresh optimizer.

        `state` continues, to the bit, where `save_state` wrote it. `seed` decides how weights are
        rounded, and the first numbers of adapters. A peak learning rate of 0 freezes the policy.
        """
        ...

    def update(
        self, sequences: Sequence[TrainingSequence], objective: Objective, *, learning_rate: float
    ) -> dict[str, float]:
        """Do one optimizer update on all the sequences and return its metrics.

        `learning_rate`, `loss_tokens_count`, `trained_sequences_count` and `skipped_updates_count`
        (1 where loss or gradient were not finite: the weights stay) always; `loss_mean` where there
        was a gradient; `grad_norm`, `entropy_mean` and the rest where the engine knows them too.
        """
        ...

    def logprobs(
        self, sequences: Sequence[TrainingSequence], *, temperature: float, at_start: bool = False
    ) -> list[tuple[float, ...]]:
        """Return what the policy thinks of each completion: [T] log-probabilities of its tokens.

        Over the whole vocabulary at the temperature, as `Sampled.behavior_logprobs`. `at_start`
        asks the policy that `begin` began from instead of the one in training.
        """
        ...

    def save_policy(self, directory: Path, name: str) -> PolicyRef:
        """Write the policy that is held as a Hugging Face directory, checked by reading it."""
        ...

    def save_state(self, directory: Path) -> None:
        """Write all that `begin(state=directory)` needs, whole or not at all."""
        ...

    def describe(self) -> Mapping[str, str]:
        """Return facts for the console header: device, precision, threads, parameters."""
        ...

    def close(self) -> None:
        """Free the model and the device memory."""
        ...
