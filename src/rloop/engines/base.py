"""The engine protocol: what the loop needs from the thing that holds the model.

An engine knows token ids, objectives and weights. It knows no problem, no verdict, no group and no
algorithm: `loop.rl` and `loop.sft` have those. Policies are passed as directories. One test suite
in `tests/contract` runs on every engine.
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
    """A request for one completion: its prompt and the seed of its own random stream."""

    prompt_ids: tuple[int, ...]
    seed: int


@dataclass(frozen=True, slots=True)
class Sampled:
    """A sampled completion: Sampled(completion_ids=(6, 0), behavior_logprobs=(-0.1, -0.02),
    "stop")."""

    completion_ids: tuple[int, ...]
    """[T] ids; if it has stopped, the last one is a stop token or completes a stop text."""
    behavior_logprobs: tuple[float, ...]
    """[T] from the sampler, at its temperature, over the whole vocabulary."""
    finish_reason: FinishReason


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingSequence:
    """A prompt and a completion to learn from.

    Example: TrainingSequence(prompt_ids=(5, 9), completion_ids=(6, 0), behavior_logprobs=(-0.1,
    -0.02), advantage=1.5)
    """

    prompt_ids: Sequence[int]
    completion_ids: Sequence[int]
    """[T] ids, with EOS if the completion stopped."""
    behavior_logprobs: Sequence[float] | None = None
    """[T] from the sampler, as stored; None in SFT."""
    reference_logprobs: Sequence[float] | None = None
    """[T] from the reference policy; needed if `kl_coef` > 0."""
    advantage: float = 0.0
    """Relative to its group; unused by `sft`."""
    weight: float = 1.0
    """Weight of its tokens; used by `sft` only."""
    is_replayed: bool = False
    """Whether an earlier policy sampled it, so that it says nothing about the gap to the
    sampler."""


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
        """Return prompts and solutions as token ids; completions end like a turn."""
        ...


class Engine(Protocol):
    """Holds one policy, samples from it and trains it. All its errors are `EngineError`s.

    `NonFinitePolicy` means that a policy can no longer be sampled from or saved. Every call is
    finished when it returns; only `sample` works while its iterator is pulled. If an engine changes
    a setting itself (a budget too large for the memory), it warns through `logging`.
    """

    def prepare(self, source: str, directory: Path, *, seed: int) -> PolicyRef:
        """Turn the recipe's `policy.path` into a Hugging Face directory, check it and load it."""
        ...

    def load(self, policy: PolicyRef) -> None:
        """Load this policy, without an optimizer; a policy in training is dropped."""
        ...

    @property
    def renderer(self) -> Renderer:
        """The renderer of the loaded policy."""
        ...

    def sample(
        self, requests: Sequence[SampleRequest], settings: SamplingConfig
    ) -> Iterator[tuple[int, Sampled]]:
        """Yield (index of the request, completion) in the order in which they finish.

        Requests that share a prompt must be adjacent: the prompt is then computed once.
        """
        ...

    def begin(self, optimizer: OptimizerConfig, *, seed: int, state: Path | None = None) -> None:
        """Begin to train the loaded policy, with a fresh optimizer.

        `state`, a directory of `save_state`, continues training from there, to the bit. `seed`
        decides how weights are rounded, and the initial values of adapters. A peak learning rate of
        0 freezes the policy.
        """
        ...

    def update(
        self, sequences: Sequence[TrainingSequence], objective: Objective, *, learning_rate: float
    ) -> dict[str, float]:
        """Do one optimizer update on all the sequences and return its metrics.

        `learning_rate`, `loss_tokens_count`, `trained_sequences_count` and `skipped_updates_count`
        (1 if the loss or gradient was not finite: the weights stay) are always there; `loss_mean`
        if there was a gradient; `grad_norm`, `entropy_mean` and the others if the engine has them.
        """
        ...

    def logprobs(
        self, sequences: Sequence[TrainingSequence], *, temperature: float, at_start: bool = False
    ) -> list[tuple[float, ...]]:
        """Return the policy's log-probabilities of each completion's tokens, [T].

        They are over the whole vocabulary at the temperature, like `Sampled.behavior_logprobs`.
        `at_start` uses the policy at the start of the training instead of the one in training.
        """
        ...

    def save_policy(self, directory: Path, name: str) -> PolicyRef:
        """Write the loaded policy as a Hugging Face directory, and check it by reading it."""
        ...

    def save_state(self, directory: Path) -> None:
        """Write everything that `begin(state=directory)` needs, completely or not at all."""
        ...

    def describe(self) -> Mapping[str, str]:
        """Return facts for the console header: device, precision, threads, parameters."""
        ...

    def close(self) -> None:
        """Free the model and the device memory."""
        ...
