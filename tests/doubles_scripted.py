"""An engine without a model: a function writes the completions. For tests of the loop and of tools.

Its policies are directories that hold a counter of updates, so that start, explored and next
policy can be told apart; its tokens are bytes. A policy thinks the same of every token, and with
each update it is surer: log-probability -1, -1/2, -1/3, ...
"""

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from struct import pack, unpack

from rloop.algo.objective import Objective
from rloop.disk import write_text
from rloop.engines.base import Sampled, SampleRequest, TrainingSequence
from rloop.policies.stop_texts import StopTexts
from rloop.recipe.config import OptimizerConfig, Recipe, SamplingConfig
from rloop.types import Example, FinishReason, PolicyRef, Problem, Prompt, PromptReport

EOS = 256
POLICY_FILE = "scripted.json"

Handler = Callable[[Problem, int, int], str]
"""(problem, member, updates of the policy so far) -> completion text."""

At = tuple[str, int, int]
"""Where a run is, as the engine can tell: ("explore" or "evaluate", iteration, step)."""


class ScriptedRenderer:
    """Bytes of the question for a prompt; remembers whose they are."""

    version = "scripted"

    def __init__(self, max_tokens: int) -> None:
        """Prompts fit up to `max_tokens` bytes."""
        self._max_tokens = max_tokens
        self.problems: dict[tuple[int, ...], Problem] = {}

    def prompt(self, problem: Problem) -> Prompt:
        """Return the question."""
        ids = tuple(problem.question.encode())
        self.problems[ids] = problem
        return Prompt(problem.question, ids)

    def decode(self, token_ids: Sequence[int]) -> str:
        """Return the text of the bytes."""
        return bytes(i for i in token_ids if i != EOS).decode(errors="replace")

    def report(self, problems: Sequence[Problem]) -> PromptReport:
        """Split problems by the bytes of their question."""
        lengths = [len(problem.question.encode()) for problem in problems]
        return PromptReport.of(problems, lengths, self._max_tokens)

    def examples(self, problems: Sequence[Problem], solution_template: str) -> list[Example]:
        """Return the solutions' bytes."""
        return [
            Example(
                problem_id=problem.problem_id,
                prompt_ids=tuple(problem.question.encode()),
                completion_ids=(
                    *solution_template.replace("{solution}", problem.solution or "").encode(),
                    EOS,
                ),
            )
            for problem in problems
        ]


class ScriptedEngine:
    """Implements `engines.base.Engine` by calling the handler for every completion."""

    def __init__(self, recipe: Recipe, handler: Handler) -> None:
        """Write completions with `handler`."""
        self._handler = handler
        self._renderer = ScriptedRenderer(recipe.prompt.max_tokens)
        self._updates = self._start = 0
        self._is_frozen = True

    @property
    def renderer(self) -> ScriptedRenderer:
        """The one renderer of all policies."""
        return self._renderer

    @property
    def num_trained(self) -> int:
        """Updates since the policy that the training began from."""
        return self._updates - self._start

    def prepare(self, source: str, directory: Path, *, seed: int) -> PolicyRef:
        """Write a policy of no updates."""
        del source, seed
        self._updates = 0
        return self.save_policy(directory, "base")

    def load(self, policy: PolicyRef) -> None:
        """Read the counter."""
        self._updates = _read(policy.path)

    def sample(
        self, requests: Sequence[SampleRequest], settings: SamplingConfig
    ) -> Iterator[tuple[int, Sampled]]:
        """Yield what the handler writes, in the order of the requests."""
        members: Counter[tuple[int, ...]] = Counter()
        for index, request in enumerate(requests):
            problem = self._renderer.problems[request.prompt_ids]
            text = self._handler(problem, members[request.prompt_ids], self._updates)
            members[request.prompt_ids] += 1
            ids = (*text.encode(), EOS)[: settings.max_completion_tokens]
            end = StopTexts(self._renderer.decode, settings.stop).end(ids)
            ids = ids[:end]
            reason: FinishReason = "stop" if end or ids[-1] == EOS else "length"
            yield index, Sampled(ids, self._logprobs(ids, self._updates), reason)

    def begin(self, optimizer: OptimizerConfig, *, seed: int, state: Path | None = None) -> None:
        """Begin to count."""
        del seed
        self._start, self._is_frozen = self._updates, optimizer.learning_rate == 0
        if state is not None:
            self._updates = _read(state)

    def update(
        self, sequences: Sequence[TrainingSequence], objective: Objective, *, learning_rate: float
    ) -> dict[str, float]:
        """Count one update, unless the policy is frozen."""
        del objective
        metrics = {
            "learning_rate": learning_rate,
            "loss_tokens_count": float(sum(len(s.completion_ids) for s in sequences)),
            "trained_sequences_count": 0.0 if self._is_frozen else float(len(sequences)),
            "skipped_updates_count": 0.0,
        }
        if self._is_frozen:
            return metrics
        self._updates += 1
        mean_weight = sum(sequence.weight for sequence in sequences) / len(sequences)
        return metrics | {"grad_norm": 1.0, "loss_mean": mean_weight / self._updates}

    def logprobs(
        self, sequences: Sequence[TrainingSequence], *, temperature: float, at_start: bool = False
    ) -> list[tuple[float, ...]]:
        """Return the policy's one log-probability for every token, at any temperature."""
        del temperature
        updates = self._start if at_start else self._updates
        return [self._logprobs(sequence.completion_ids, updates) for sequence in sequences]

    def save_policy(self, directory: Path, name: str) -> PolicyRef:
        """Write the counter."""
        self._write(directory)
        return PolicyRef(path=directory, name=name)

    def save_state(self, directory: Path) -> None:
        """Write the counter."""
        self._write(directory)

    def describe(self) -> Mapping[str, str]:
        """Return that there is no device."""
        return {"device": "none (scripted)"}

    def close(self) -> None:
        """Nothing to free."""

    def _write(self, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        write_text(directory / POLICY_FILE, json.dumps({"updates": self._updates}))

    def _logprobs(self, completion_ids: Sequence[int], updates: int) -> tuple[float, ...]:
        # As a real sampler's, it is a number of float32: the store keeps no other.
        (logprob,) = unpack("f", pack("f", -1.0 / (1 + updates)))
        return (logprob,) * len(completion_ids)


class WatchedEngine(ScriptedEngine):
    """Tells where the run is before it hands over a completion; the caller may stop it there.

    Problems of the recipe's first training task are explored, all others evaluated.
    """

    def __init__(self, recipe: Recipe, handler: Handler, watch: Callable[[At], None]) -> None:
        """Call `watch` with the place of each completion."""
        super().__init__(recipe, handler)
        self._task = recipe.tasks.train[0].name
        self._watch = watch
        self._iteration = self._step = 0

    def load(self, policy: PolicyRef) -> None:
        """Count the steps of a next exploration from 0."""
        super().load(policy)
        self._step = 0

    def sample(
        self, requests: Sequence[SampleRequest], settings: SamplingConfig
    ) -> Iterator[tuple[int, Sampled]]:
        """Yield what the handler writes; each round of training problems is a step."""
        task = self.renderer.problems[requests[0].prompt_ids].task
        phase = "explore" if task == self._task else "evaluate"
        if phase == "explore":
            self._iteration += self._step == 0
            self._step += 1
        for found in super().sample(requests, settings):
            self._watch((phase, self._iteration, self._step))
            yield found


def _read(directory: Path) -> int:
    return int(json.loads((directory / POLICY_FILE).read_text())["updates"])
