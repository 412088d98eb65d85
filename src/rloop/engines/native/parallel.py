"""The native engine on several devices: rank 0 leads, the other processes follow.

Every process has the same weights, samples with them and computes gradients. Completions and
training sequences are split; gradients are summed in float32; masters and moments are split, and
each process does the step for its part (`optimizer.py`). Policies and saved states are written by
rank 0 and read by all, so the run directory must be accessible to every process.
"""

import atexit
import signal
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

from rloop.algo.objective import Objective
from rloop.engines.base import Sampled, SampleRequest, TrainingSequence
from rloop.engines.native.engine import NativeEngine
from rloop.engines.native.ranks import Ranks
from rloop.errors import EngineError, EngineUnavailable
from rloop.policies.renderer import Renderer
from rloop.recipe.config import OptimizerConfig, Recipe, SamplingConfig
from rloop.types import PolicyRef


class ParallelEngine:
    """Implements `engines.base.Engine` on rank 0, for all processes of a launcher."""

    def __init__(self, recipe: Recipe) -> None:
        """Connect to the other processes, and have them build their engines."""
        self._ranks = _met()
        self._engine = build(recipe, self._ranks)
        self._ranks.tell(("build", recipe))

    def prepare(self, source: str, directory: Path, *, seed: int) -> PolicyRef:
        """Prepare the policy here; the others load it."""
        policy = self._engine.prepare(source, directory, seed=seed)
        self._ranks.tell(("load", policy))
        return policy

    def load(self, policy: PolicyRef) -> None:
        """Load this policy in all processes."""
        self._ranks.tell(("load", policy))
        self._engine.load(policy)

    @property
    def renderer(self) -> Renderer:
        """The renderer of the loaded policy."""
        return self._engine.renderer

    def sample(
        self, requests: Sequence[SampleRequest], settings: SamplingConfig
    ) -> Iterator[tuple[int, Sampled]]:
        """Yield this process's completions as they finish, then those of the others."""
        self._ranks.tell(("sample", requests, settings))
        mine = self._ranks.share(range(len(requests)))
        found: list[Any] = []
        try:
            own = self._engine.sample([requests[i] for i in mine], settings)
            yield from ((mine[index], sampled) for index, sampled in own)
        finally:  # the others' parts are gathered even if this iterator is closed early
            found = self._ranks.gather(None)
        for part in found[1:]:
            if isinstance(part, EngineError):
                raise part
            yield from part

    def begin(self, optimizer: OptimizerConfig, *, seed: int, state: Path | None = None) -> None:
        """Begin everywhere."""
        self._ranks.tell(("begin", optimizer, seed, state))
        self._engine.begin(optimizer, seed=seed, state=state)

    def update(
        self, sequences: Sequence[TrainingSequence], objective: Objective, *, learning_rate: float
    ) -> dict[str, float]:
        """Do one update together; its metrics are those of all sequences."""
        self._ranks.tell(("update", sequences, objective, learning_rate))
        return self._engine.update(sequences, objective, learning_rate=learning_rate)

    def logprobs(
        self, sequences: Sequence[TrainingSequence], *, temperature: float, at_start: bool = False
    ) -> list[tuple[float, ...]]:
        """Score each process's part and combine them."""
        self._ranks.tell(("logprobs", sequences, temperature, at_start))
        parts = _logprobs(self._engine, self._ranks, sequences, temperature, at_start=at_start)
        return [row for part in parts for row in part]

    def save_policy(self, directory: Path, name: str) -> PolicyRef:
        """Write the policy from this process."""
        policy = self._engine.save_policy(directory, name)
        self._ranks.tell(("saved", policy))
        return policy

    def save_state(self, directory: Path) -> None:
        """Write masters and moments; every process has a part of them."""
        self._ranks.tell(("save_state", directory))
        self._engine.save_state(directory)

    def describe(self) -> Mapping[str, str]:
        """Return the device, precision, threads and parameters of rank 0, and the processes."""
        return {**self._engine.describe(), "processes": str(self._ranks.size)}

    def close(self) -> None:
        """Free the model and let the others end."""
        with suppress(EngineError):  # the others are gone, which has been reported
            self._ranks.tell(("close",))
        self._engine.close()


@cache
def _met() -> Ranks:
    """Return the group of processes, joined once and left at exit."""
    ranks = Ranks()

    def end() -> None:
        with suppress(EngineError):
            ranks.tell(("end",))
        ranks.leave()

    atexit.register(end)
    return ranks


def build(recipe: Recipe, ranks: Ranks) -> NativeEngine:
    """Return this process's engine, on its own GPU if there are CUDA GPUs."""
    device = recipe.engine.device
    if device == "mps":
        raise EngineUnavailable(
            "engine.device=mps is one GPU for one process, and torchrun started several. Start "
            "rloop without torchrun, or set engine.device=cpu."
        )
    if device in ("auto", "cuda"):
        import torch

        if torch.cuda.is_available():
            device = f"cuda:{ranks.local_rank}"
        elif device == "auto":
            device = "cpu"
        engine = recipe.engine.model_copy(update={"device": device})
        recipe = recipe.model_copy(update={"engine": engine})
    return NativeEngine(recipe, ranks)


def follow() -> None:
    """Execute the commands of rank 0 until it ends; rank 0 handles Ctrl-C."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    ranks = Ranks()
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # a launcher's, which rank 0 gets too
    engine: NativeEngine | None = None
    try:
        while (command := ranks.hear())[0] != "end":
            if command[0] == "build":
                engine = build(command[1], ranks)
            elif engine is not None:
                _do(engine, ranks, *command)
    finally:
        ranks.leave()


def _do(engine: NativeEngine, ranks: Ranks, name: str, *given: Any) -> None:  # noqa: ANN401
    """Do one command of rank 0's."""
    if name == "sample":
        requests, settings = given
        ranks.gather(_sample(engine, ranks, requests, settings))
    elif name == "update":
        sequences, objective, rate = given
        engine.update(sequences, objective, learning_rate=rate)
    elif name == "logprobs":
        sequences, temperature, at_start = given
        _logprobs(engine, ranks, sequences, temperature, at_start=at_start)
    elif name == "begin":
        optimizer, seed, state = given
        engine.begin(optimizer, seed=seed, state=state)
    elif name == "load":
        engine.load(*given)
    elif name == "saved":
        engine.saved(*given)
    elif name == "save_state":
        engine.save_state(*given)
    elif name == "close":
        engine.close()


def _sample(
    engine: NativeEngine, ranks: Ranks, requests: Sequence[SampleRequest], settings: SamplingConfig
) -> list[tuple[int, Sampled]] | EngineError:
    """Return this process's part of the completions, or its error."""
    mine = ranks.share(range(len(requests)))
    try:
        own = engine.sample([requests[index] for index in mine], settings)
        return [(mine[index], sampled) for index, sampled in own]
    except EngineError as error:
        return error


def _logprobs(
    engine: NativeEngine,
    ranks: Ranks,
    sequences: Sequence[TrainingSequence],
    temperature: float,
    *,
    at_start: bool,
) -> list[list[tuple[float, ...]]]:
    """Return every process's part on rank 0, and nothing on the others."""
    mine = ranks.share(sequences)

    def score() -> list[tuple[float, ...]]:
        return engine.logprobs(mine, temperature=temperature, at_start=at_start) if mine else []

    return ranks.gather(ranks.agree(score))
