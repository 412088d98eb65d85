"""The nouns that cross rooms: frozen records, free of torch.

One `Problem` gives one prompt; a policy writes a `Completion`; a verifier turns it into a
`Verdict`; the three with their provenance are a `Trajectory`; trajectories of one prompt are a
`Group`.
Policies cross rooms as a `PolicyRef`: a Hugging Face directory, never weights.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path
from typing import Any, Literal

PhaseName = Literal["coldstart", "explore", "select", "finetune", "evaluate"]
FinishReason = Literal["stop", "length", "error"]
VerdictKind = Literal["correct", "wrong", "error"]
PolicyKind = Literal["base", "coldstart", "explored", "kept"]
"""`explored` are RL's weights inside an iteration, `kept` what an iteration ends with."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """A question with its reference answer.

    Example: Problem(problem_id="gsm8k/train/17", task="gsm8k", question="Tom has 3 ...",
    answer="5", solution="3 + 2 = 5\\n#### 5", verifier="math")
    """

    problem_id: str
    """Stable and unique within a run, `task/split/key`."""
    task: str
    """Name of the task it belongs to; the name in metrics (`evaluate/gsm8k/pass@8`)."""
    question: str
    """The text put into the prompt template."""
    answer: str
    """Reference answer as the task gives it; judged by the verifier, never by string comparison."""
    verifier: str
    """`math`, `numeric`, `exact`, `reasoning_gym`, or `python:module:function`."""
    verifier_timeout_s: float | None = None
    """Wall-clock limit of one verdict (seconds); the run's default when None."""
    solution: str | None = None
    """A full worked solution, where the task has one; what a cold start trains on."""
    metadata: Mapping[str, Any] = field(default_factory=dict)
    """JSON values the verifier or a filter may need (level, subject, the reasoning-gym entry)."""


@dataclass(frozen=True, slots=True)
class Prompt:
    """What the policy is conditioned on. Example: Prompt("1+1=", (5, 9, 5, 7))."""

    text: str
    ids: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptReport:
    """Problems whose prompts fit, and those with longer prompts and their length in tokens."""

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
    def of(
        cls,
        problems: Sequence[Problem],
        lengths: Sequence[int],
        limit: int,
        *,
        context: int | None = None,
        first: str = "",
        warnings: Sequence[str] = (),
    ) -> "PromptReport":
        """Split the problems by the token counts of their prompts."""
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Completion:
    """What the policy wrote after a prompt, token for token.

    Example: Completion(prompt_text="1+1=", prompt_ids=(5, 9, 5, 7), completion_text="2",
    completion_ids=(6, 0), behavior_logprobs=(-0.1, -0.02), finish_reason="stop")
    A truncated one ends without EOS and has finish_reason "length".
    """

    prompt_text: str
    prompt_ids: tuple[int, ...]
    completion_text: str
    """Decoded, without the special tokens that only frame it, up to a stop text of the recipe."""
    completion_ids: tuple[int, ...]
    """[T] sampled ids; the last one is EOS, ends a turn or completes a stop text when finish_reason
    is "stop"."""
    behavior_logprobs: tuple[float, ...]
    """[T] natural log-probability of each sampled token at the stated temperature, over the whole
    vocabulary (before top-p and top-k cut it), as computed by the sampler."""
    finish_reason: FinishReason

    @property
    def is_truncated(self) -> bool:
        """Whether the length limit ended it."""
        return self.finish_reason == "length"


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What a verifier says of one completion; an error is neither right nor wrong.

    Example: Verdict(kind="error", reason="no verdict within 5.0 s", answer=None). A verifier that
    gives half a point: Verdict(kind="wrong", score=0.5, reason="the unit is missing")
    """

    kind: VerdictKind
    score: float | None = None
    """In [0, 1], where the verifier grades; RL learns from it, correctness is `kind` alone."""
    reason: str = ""
    """Why, in a few words; always given for `error`."""
    answer: str | None = None
    """The answer extracted from the completion, None where none was found."""
    verifier_version: str = ""
    """Name and version of the verifier that spoke, `math/2`."""

    @property
    def is_correct(self) -> bool:
        """Whether the completion was judged right."""
        return self.kind == "correct"

    @property
    def reward(self) -> float:
        """The score where there is one, else 1 for correct and 0 for wrong; 0 for an error."""
        if self.kind == "error":
            return 0.0
        return float(self.is_correct) if self.score is None else self.score

    @classmethod
    def graded(cls, score: float) -> "Verdict":
        """Return the verdict of a score alone: correct is the full score, 1, and nothing less."""
        return cls(kind="correct" if score == 1.0 else "wrong", score=score)


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where in a run something happens; with a problem and a member it names one random stream.

    Example: Place(run="demo", seed=0, iteration=1, phase="explore", step=12)
    """

    run: str
    seed: int
    iteration: int
    """0 for the base policy and the cold start, then 1, 2, ..."""
    phase: PhaseName
    step: int = 0
    """Learner step inside the phase, from 1; for an evaluation the RL step it follows, else 0."""
    policy: str = ""
    """Name of the policy sampled from (`base`, `coldstart`, `explored-001`, `iter-001`); no part of
    the random stream."""

    def stream_seed(self, problem_id: str, member: int) -> int:
        """Return the 64-bit seed of one trajectory's random stream.

        It depends on (seed, iteration, phase, step, problem, member) alone, so streams do not
        depend on the order or on the number of workers. In float32 a trajectory can be sampled
        again by itself; in bfloat16 its company in a batch changes roundings, and so now and then
        a token. Evaluations leave out iteration and step: all policies of a run are measured
        under common random numbers, which makes paired differences narrower.
        """
        return next(self.stream_seeds([(problem_id, member)]))

    def stream_seeds(self, names: Iterable[tuple[str, int]]) -> Iterator[int]:
        """Yield `stream_seed` of many (problem_id, member); the place is hashed once."""
        begun = blake2b(digest_size=8)
        when = (0, 0) if self.phase == "evaluate" else (self.iteration, self.step)
        begun.update(_joined(self.seed, when[0], self.phase, when[1], ""))
        for problem_id, member in names:
            whole = begun.copy()
            whole.update(f"{problem_id}\x1f{member}".encode())
            yield int.from_bytes(whole.digest(), "little")


def policy_kind(name: str) -> PolicyKind:
    """Return the kind of a policy of the loop by the name that the loop gave it.

    Where only names are known: in the trajectory store, and in logs from before `policy_kind`.
    """
    if name == "base":
        return "base"
    if name == "coldstart":
        return "coldstart"
    return "explored" if name.startswith("explored-") else "kept"


def stable_hash(*parts: object) -> int:
    """Return a 64-bit hash of the parts that is the same in every process (blake2b)."""
    return int.from_bytes(blake2b(_joined(*parts), digest_size=8).digest(), "little")


def _joined(*parts: object) -> bytes:
    return "\x1f".join(map(str, parts)).encode()


@dataclass(frozen=True, slots=True, kw_only=True)
class Trajectory:
    """One problem, one completion, its verdict and reward, and where it came from."""

    place: Place
    problem: Problem
    group_id: str
    """Unique per prompt and step: `iteration/phase/step/problem_id`."""
    member: int
    """Index in the group, 0 .. group_size - 1."""
    policy_version: int
    """Learner updates between the phase's start policy and the policy that wrote this."""
    completion: Completion
    verdict: Verdict
    reward: float
    """What RL learns from, before any shaping: the verdict's reward, or where the recipe has
    `rewards` their weighted sum; never overwritten."""
    temperature: float
    top_p: float
    top_k: int
    template_version: str
    """Hash of the prompt template and system text that made the prompt."""
    rewards: Mapping[str, Verdict] = field(default_factory=dict)
    """What each of the recipe's `rewards` said, by name; empty without, and in evaluations."""

    @property
    def has_error(self) -> bool:
        """Whether the verifier or a reward failed, so that the reward is not known."""
        return any(v.kind == "error" for v in (self.verdict, *self.rewards.values()))


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """The trajectories of one prompt from one policy version, in member order."""

    problem: Problem
    trajectories: tuple[Trajectory, ...]

    @property
    def num_correct(self) -> int:
        """How many were judged correct."""
        return sum(t.verdict.is_correct for t in self.trajectories)

    @property
    def is_mixed(self) -> bool:
        """Whether there are correct and wrong members, errors aside: correctness alone decides."""
        return len({t.verdict.is_correct for t in self.trajectories if not t.has_error}) > 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """Token ids to imitate: a prompt, a completion that ends in EOS, and a weight.

    Example: Example(problem_id="t/0", prompt_ids=(5, 9), completion_ids=(6, 0), weight=1.0)
    """

    problem_id: str
    prompt_ids: tuple[int, ...]
    completion_ids: tuple[int, ...]
    weight: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyRef:
    """A policy as a Hugging Face directory: safetensors, tokenizer, chat template.

    Example: PolicyRef(path=Path("runs/demo/policies/iter-001"), name="iter-001")
    """

    path: Path
    name: str
    """What reports call it: `base`, `coldstart`, `explored-001`, `iter-001`."""
