"""Rollout: from problems to groups of judged trajectories, on any engine.

Verifiers run in worker processes while the engine continues to sample.
"""

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from math import isfinite
from types import MappingProxyType

from rloop.engines.base import Engine, Sampled, SampleRequest
from rloop.errors import EngineError, NonFinitePolicy
from rloop.policies.stop_texts import before_stop
from rloop.recipe.config import RewardConfig, SamplingConfig
from rloop.tasks.rewards import Judgement, Verify, judge
from rloop.types import Completion, Group, Place, Problem, Prompt, Trajectory

Judged = tuple[Completion, Judgement]
Recalled = Mapping[SampleRequest, Sampled]
"""Completions that are stored already, by what was asked."""
NOTHING: Recalled = MappingProxyType({})


@dataclass(frozen=True, slots=True, kw_only=True)
class Rollout:
    """Samples from the policy in an engine and judges the completions, with one set of verifiers
    and rewards.

    Rewards are for exploration; an evaluation uses correctness only.
    """

    engine: Engine
    verify: Verify
    rewards: Sequence[RewardConfig] = ()

    def groups(
        self,
        problems: Sequence[Problem],
        num_samples: int,
        settings: SamplingConfig,
        place: Place,
        *,
        policy_version: int = 0,
        recalled: Recalled = NOTHING,
        on_completion: Callable[[int], None] = lambda _: None,
    ) -> Iterator[Group]:
        """Yield one group per problem, in the order in which they are finished and judged.

        What is recalled is judged again but not sampled again. `on_completion` gets the tokens of
        each completion when it is sampled. An EngineError is raised after the last whole group.
        """
        renderer = self.engine.renderer
        prompts = [renderer.prompt(problem) for problem in problems]
        requests = [
            SampleRequest(prompt.ids, place.stream_seed(problem.problem_id, member))
            for problem, prompt in zip(problems, prompts, strict=True)
            for member in range(num_samples)
        ]
        members: list[dict[int, Judged]] = [{} for _ in problems]
        sampled: deque[int] = deque()
        group = partial(
            _group,
            settings=settings,
            place=place,
            policy_version=policy_version,
            template_version=renderer.version,
        )
        failure: EngineError | None = None
        try:
            for index, found in self._sampled(requests, settings, recalled):
                on_completion(len(found.completion_ids))
                number, member = divmod(index, num_samples)
                judged = self._judged(problems[number], prompts[number], found, settings, place)
                members[number][member] = judged
                if len(members[number]) == num_samples:
                    sampled.append(number)
                while sampled and all(j.is_done for _, j in members[sampled[0]].values()):
                    number = sampled.popleft()
                    yield group(problems[number], members[number])
        except EngineError as error:
            failure = error  # what is sampled is yielded all the same
        for number in sampled:
            yield group(problems[number], members[number])
        if failure is not None:
            raise failure

    def _judged(
        self,
        problem: Problem,
        prompt: Prompt,
        found: Sampled,
        settings: SamplingConfig,
        place: Place,
    ) -> Judged:
        """Return a completion whose judgement has begun."""
        _check_finite(found, place)
        text = before_stop(self.engine.renderer.decode(found.completion_ids), settings.stop)
        completion = _completion(prompt, found, text)
        rewards = self.rewards if place.phase == "explore" else ()
        limit = settings.max_completion_tokens
        return completion, judge(self.verify, problem, completion, rewards, max_tokens=limit)

    def _sampled(
        self, requests: Sequence[SampleRequest], settings: SamplingConfig, recalled: Recalled
    ) -> Iterator[tuple[int, Sampled]]:
        """Yield (index of the request, completion), what is recalled first."""
        missing = []
        for index, request in enumerate(requests):
            if request in recalled:
                yield index, recalled[request]
            else:
                missing.append(index)
        if missing:
            asked = [requests[index] for index in missing]
            for number, found in self.engine.sample(asked, settings):
                yield missing[number], found


def _check_finite(sampled: Sampled, place: Place) -> None:
    """Raise NonFinitePolicy for a completion sampled from NaN, because it is noise, not data."""
    if not all(map(isfinite, sampled.behavior_logprobs)):
        raise NonFinitePolicy(
            f"{place.policy or 'The policy'} gives NaN or infinite log-probabilities: its weights "
            f"have grown until they overflow. Lower the learning rate of its training."
        )


def _completion(prompt: Prompt, sampled: Sampled, text: str) -> Completion:
    return Completion(
        prompt_text=prompt.text,
        prompt_ids=prompt.ids,
        completion_text=text,
        completion_ids=sampled.completion_ids,
        behavior_logprobs=sampled.behavior_logprobs,
        finish_reason=sampled.finish_reason,
    )


def _group(
    problem: Problem,
    members: dict[int, Judged],
    settings: SamplingConfig,
    place: Place,
    *,
    policy_version: int,
    template_version: str,
) -> Group:
    group_id = f"{place.iteration}/{place.phase}/{place.step}/{problem.problem_id}"
    trajectories = []
    for member in sorted(members):
        completion, judgement = members[member]
        verdict, rewards, reward = judgement.result()
        trajectories.append(
            Trajectory(
                place=place,
                problem=problem,
                group_id=group_id,
                member=member,
                policy_version=policy_version,
                completion=completion,
                verdict=verdict,
                reward=reward,
                rewards=rewards,
                temperature=settings.temperature,
                top_p=settings.top_p,
                top_k=settings.top_k,
                template_version=template_version,
            )
        )
    return Group(problem=problem, trajectories=tuple(trajectories))
