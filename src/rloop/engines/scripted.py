"""An engine without a model: a function writes the completions. For tests of the loop and of tools.

Its policies are directories that hold a counter of updates, so that start, explored and next
policy can be told apart; its tokens are bytes. A policy thinks the same of every token, and with
each update it is surer: log-probability -1, -1/2, -1/3, ...
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

from rloop.algo.replay import join_replayed
from rloop.config import Recipe, SamplingConfig
from rloop.disk import write_text
from rloop.engines.base import LIVE, ExploreStep, FinetuneStep, PromptReport, Successes, Verify
from rloop.engines.rewards import judge, reward_metrics
from rloop.types import Completion, Example, Group, Place, PolicyRef, Problem, Trajectory

EOS = 256
POLICY_FILE = "scripted.json"

Handler = Callable[[Problem, int, int], str]
"""(problem, member, updates of the policy so far) -> completion text."""


class ScriptedEngine:
    """Implements `engines.base.Engine` by calling the handler for every completion."""

    def __init__(self, recipe: Recipe, verify: Verify, handler: Handler) -> None:
        """Write completions with `handler` and judge them with `verify`."""
        self._recipe = recipe
        self._verify = verify
        self._handler = handler
        self._updates = 0
        self._step = 0

    def prepare(self, source: str, directory: Path, *, seed: int) -> PolicyRef:
        """Write a policy of no updates."""
        del source, seed
        self._updates = 0
        return self.save_policy(directory, "base")

    def fit_prompts(self, policy: PolicyRef, problems: Sequence[Problem]) -> PromptReport:
        """Part problems by the bytes of their question."""
        del policy
        lengths = [len(problem.question.encode()) for problem in problems]
        return PromptReport.part(problems, lengths, self._recipe.prompt.max_tokens)

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
        """Begin to take the problems in turn; each step is one update."""
        del problem_weights
        self._updates, self._step = self._read(start), 0
        if resume_from is not None:
            self._restore(resume_from)
        return self._steps(problems, place, num_steps, replayed or {})

    def _steps(
        self, problems: Sequence[Problem], place: Place, num_steps: int, replayed: Successes
    ) -> Iterator[ExploreStep]:
        config = self._recipe.explore
        while self._step < num_steps:
            begin = self._step * config.prompts_per_step
            chosen = [problems[(begin + i) % len(problems)] for i in range(config.prompts_per_step)]
            here = replace(place, step=self._step + 1)
            groups = [self._group(p, config.group_size, config.sampling, here) for p in chosen]
            trained = [
                join_replayed(g, replayed.get(g.problem.problem_id, ()), config.replay_per_group)
                for g in groups
            ]
            self._updates += 1
            self._step += 1
            metrics = _metrics(groups, trained)
            yield ExploreStep(step=self._step, groups=tuple(groups), metrics=metrics)

    def fine_tune(
        self,
        start: PolicyRef,
        examples: Sequence[Example],
        place: Place,
        *,
        resume_from: Path | None = None,
    ) -> Iterator[FinetuneStep]:
        """Begin to count one update an epoch."""
        config = self._recipe.tuning(place.phase)
        assert config is not None, f"the recipe has no {place.phase}"
        self._updates, self._step = self._read(start), 0
        if resume_from is not None:
            self._restore(resume_from)
        return self._tuning_steps(examples, config.epochs)

    def _tuning_steps(self, examples: Sequence[Example], num_epochs: int) -> Iterator[FinetuneStep]:
        mean_weight = sum(example.weight for example in examples) / len(examples)
        while self._step < num_epochs:
            self._updates += 1
            self._step += 1
            metrics = {"loss_mean": mean_weight / self._step}
            yield FinetuneStep(step=self._step, num_steps=num_epochs, metrics=metrics)

    def sample(
        self,
        policy: PolicyRef | Literal["live"],
        problems: Sequence[Problem],
        num_samples: int,
        place: Place,
        sampling: SamplingConfig | None = None,
    ) -> Iterator[Group]:
        """Yield a group for each problem."""
        if policy != LIVE:
            self._updates = self._read(policy)
        for problem in problems:
            settings = sampling or self._recipe.evaluate.sampling
            yield self._group(problem, num_samples, settings, place)

    def logprobs(
        self,
        policy: PolicyRef | Literal["live"],
        examples: Sequence[Example],
        *,
        temperature: float,
    ) -> list[tuple[float, ...]]:
        """Return the policy's one log-probability for every token, at any temperature."""
        del temperature
        if policy != LIVE:
            self._updates = self._read(policy)
        return [self._logprobs(example.completion_ids) for example in examples]

    def examples_from_solutions(
        self, policy: PolicyRef, problems: Sequence[Problem], solution_template: str
    ) -> list[Example]:
        """Return the solutions' bytes."""
        del policy
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

    def save_policy(self, directory: Path, name: str, *, goes_on: bool = False) -> PolicyRef:
        """Write the counter."""
        del goes_on
        directory.mkdir(parents=True, exist_ok=True)
        write_text(directory / POLICY_FILE, json.dumps({"updates": self._updates}))
        return PolicyRef(path=directory, name=name)

    def average(self, policies: Sequence[PolicyRef], directory: Path, name: str) -> PolicyRef:
        """Write the mean of the counters, rounded down."""
        self._updates = sum(map(self._read, policies)) // len(policies)
        return self.save_policy(directory, name)

    def save_state(self, directory: Path) -> None:
        """Write the counter and the step."""
        directory.mkdir(parents=True, exist_ok=True)
        state = {"updates": self._updates, "step": self._step}
        write_text(directory / POLICY_FILE, json.dumps(state))

    def save_skipped(self, stem: Path, place: Place) -> Path | None:
        """Return None: no update of a counter is skipped."""
        del stem, place
        return None

    def describe(self) -> Mapping[str, str]:
        """Return that there is no device."""
        return {"device": "none (scripted)"}

    def close(self) -> None:
        """Nothing to free."""

    def _restore(self, directory: Path) -> None:
        state = json.loads((directory / POLICY_FILE).read_text())
        self._updates, self._step = state["updates"], state["step"]

    def _read(self, policy: PolicyRef) -> int:
        return int(json.loads((policy.path / POLICY_FILE).read_text())["updates"])

    def _logprobs(self, completion_ids: Sequence[int]) -> tuple[float, ...]:
        return (-1.0 / (1 + self._updates),) * len(completion_ids)

    def _group(
        self, problem: Problem, num_samples: int, settings: SamplingConfig, place: Place
    ) -> Group:
        trajectories = []
        for member in range(num_samples):
            text = self._handler(problem, member, self._updates)
            ids = (*text.encode(), EOS)[: settings.max_completion_tokens]
            completion = Completion(
                prompt_text=problem.question,
                prompt_ids=tuple(problem.question.encode()),
                completion_text=text,
                completion_ids=ids,
                behavior_logprobs=self._logprobs(ids),
                finish_reason="stop" if ids[-1] == EOS else "length",
            )
            verdict, rewards, reward = judge(
                self._verify,
                problem,
                completion,
                self._recipe.rewards if place.phase == "explore" else (),
                max_tokens=settings.max_completion_tokens,
            ).result()
            trajectories.append(
                Trajectory(
                    place=place,
                    problem=problem,
                    group_id=f"{place.iteration}/{place.phase}/{place.step}/{problem.problem_id}",
                    member=member,
                    policy_version=self._updates,
                    completion=completion,
                    verdict=verdict,
                    reward=reward,
                    rewards=rewards,
                    temperature=settings.temperature,
                    top_p=settings.top_p,
                    top_k=settings.top_k,
                    template_version="scripted",
                )
            )
        return Group(problem=problem, trajectories=tuple(trajectories))


def _metrics(groups: Sequence[Group], trained: Sequence[Group]) -> dict[str, float]:
    trajectories = [t for group in groups for t in group.trajectories]
    num_trained = sum(len(group.trajectories) for group in trained)
    num_replayed = num_trained - len(trajectories)
    return {
        **({"replayed_count": num_replayed} if num_replayed else {}),
        "reward_mean": sum(t.reward for t in trajectories) / len(trajectories),
        **reward_metrics(trajectories),
        "trajectories_count": len(trajectories),
        "groups_signal_frac": sum(group.is_mixed for group in trained) / len(trained),
        "sampled_tokens_count": sum(len(t.completion.completion_ids) for t in trajectories),
    }
