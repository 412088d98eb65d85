"""What rloop and the workers say to each other: one command, then one answer, in turn.

Plain records, torch-free, checked wherever they come in as JSON. Inside an exploration a step takes
two commands: `Next` is answered by what was sampled (`Sampled`), `Advantages` by how the update
went (`Updated`). Between two steps the policy in training answers `Sample`, `Score`, `SavePolicy`
and `SaveState`; any other command ends the phase, and is then answered.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, TypeAdapter

from rloop.config import SamplingConfig
from rloop.types import Completion, Example, Place, PolicyRef, Problem

Policy = PolicyRef | Literal["live"]
WORKER_LOST = "WorkerLost"
"""`Failed.error` of a worker that found another one gone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepare:
    """Make the recipe's base policy; answered by `Done` with its directory."""

    kind: Literal["prepare"] = "prepare"
    source: str
    directory: Path
    seed: int


@dataclass(frozen=True, slots=True, kw_only=True)
class CountPrompts:
    """Ask for the token counts of the problems' prompts; answered by `Counts`."""

    kind: Literal["count_prompts"] = "count_prompts"
    policy: PolicyRef
    problems: tuple[Problem, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Encode:
    """Tokenise solutions for a cold start; answered by `Encoded`."""

    kind: Literal["encode"] = "encode"
    policy: PolicyRef
    problems: tuple[Problem, ...]
    solution_template: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Explore:
    """Begin an exploration; answered by `Ready` when its policy stands where it begins."""

    kind: Literal["explore"] = "explore"
    start: PolicyRef
    place: Place
    problems: tuple[Problem, ...]
    rows: tuple[int, ...]
    """[steps x prompts_per_step] indexes of the problems, in the order in which they are drawn."""
    resume_from: Path | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Tune:
    """Begin a fine-tuning; answered by `Ready`."""

    kind: Literal["tune"] = "tune"
    start: PolicyRef
    place: Place
    examples: tuple[Example, ...]
    """Every epoch's, in the order in which they are trained on."""
    resume_from: Path | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Next:
    """Go on to the next step; answered by `Sampled` (exploration) or `Updated` (fine-tuning)."""

    kind: Literal["next"] = "next"


@dataclass(frozen=True, slots=True, kw_only=True)
class Advantages:
    """What the step's completions are worth, in their order; answered by `Updated`."""

    kind: Literal["advantages"] = "advantages"
    values: tuple[float, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """Draw `num_samples` completions of each problem; answered by `Sampled`, in that order."""

    kind: Literal["sample"] = "sample"
    policy: Policy
    problems: tuple[Problem, ...]
    num_samples: int
    settings: SamplingConfig
    place: Place


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """Ask for the log-probabilities of completions; answered by `Scores`, in that order."""

    kind: Literal["score"] = "score"
    policy: Policy
    examples: tuple[Example, ...]
    temperature: float


@dataclass(frozen=True, slots=True, kw_only=True)
class SavePolicy:
    """Write the policy in training as one Hugging Face directory; answered by `Done`."""

    kind: Literal["save_policy"] = "save_policy"
    directory: Path
    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SaveState:
    """Write TRL's checkpoint of the step just done; answered by `Done`."""

    kind: Literal["save_state"] = "save_state"
    directory: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Describe:
    """Ask for the facts of the console header; answered by `Facts`."""

    kind: Literal["describe"] = "describe"


@dataclass(frozen=True, slots=True, kw_only=True)
class Idle:
    """Nothing to do: keeps the workers' connections from running out of time; no answer."""

    kind: Literal["idle"] = "idle"


@dataclass(frozen=True, slots=True, kw_only=True)
class Close:
    """End the workers; no answer."""

    kind: Literal["close"] = "close"


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """A command without an answer of its own is done."""

    kind: Literal["done"] = "done"
    path: Path | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """Tokens, one number a problem."""

    kind: Literal["counts"] = "counts"
    values: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Encoded:
    """Examples for a cold start."""

    kind: Literal["encoded"] = "encoded"
    examples: tuple[Example, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Ready:
    """A phase stands at its first step, or after the one whose state was saved."""

    kind: Literal["ready"] = "ready"
    step: int
    num_steps: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampled:
    """Completions of all processes, before anything filters them."""

    kind: Literal["sampled"] = "sampled"
    completions: tuple[Completion, ...]
    template_version: str
    policy_version: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Updated:
    """A step's updates are done. Example: Updated(step=3, metrics={"loss_mean": 0.1})."""

    kind: Literal["updated"] = "updated"
    step: int
    metrics: dict[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Scores:
    """[T] log-probabilities for each completion."""

    kind: Literal["scores"] = "scores"
    logprobs: tuple[tuple[float, ...], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What the console shows of the engine."""

    kind: Literal["facts"] = "facts"
    facts: dict[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Failed:
    """A worker could not go on, and the workers end. Example: Failed(error="EngineError", ...)."""

    kind: Literal["failed"] = "failed"
    error: str
    """Name of a class of `rloop.errors`, or `WORKER_LOST`."""
    message: str


Message = Annotated[
    Prepare | CountPrompts | Encode | Explore | Tune | Next | Advantages | Sample | Score
    | SavePolicy | SaveState | Describe | Idle | Close
    | Done | Counts | Encoded | Ready | Sampled | Updated | Scores | Facts | Failed,
    Field(discriminator="kind"),
]  # fmt: skip
Live = Sample | Score | SavePolicy
"""Commands that the policy in training answers between two steps, `SaveState` apart."""

# NaN and infinities stay what they are, so that rloop itself says which policy is broken.
_CONFIG = ConfigDict(ser_json_inf_nan="strings")
_ADAPTER: TypeAdapter[Any] = TypeAdapter(Message, config=_CONFIG)


def list_adapter(kind: Any) -> TypeAdapter[Any]:  # noqa: ANN401
    """Return what turns a list of records of this kind into JSON and back, to the bit."""
    return TypeAdapter(list[kind], config=_CONFIG)


def to_json(message: Message) -> bytes:
    """Return the message as one line without its end; log-probabilities keep every bit."""
    return _ADAPTER.dump_json(message)


def from_json(line: bytes) -> Message:
    """Return the message of a line; ValueError says what is wrong with it."""
    message: Message = _ADAPTER.validate_json(line)
    return message
