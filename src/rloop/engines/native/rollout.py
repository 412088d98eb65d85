"""Rolling out: problems to groups of judged trajectories, verdicts running beside the sampling."""

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rloop.config import SamplingConfig
from rloop.config_rewards import RewardConfig
from rloop.engines.base import Verify, check_finite
from rloop.engines.native.prompts import PromptBuilder
from rloop.engines.native.sampler import Request, Sampler
from rloop.engines.native.vllm_sampler import VllmSampler
from rloop.engines.rewards import Judgement, judge
from rloop.types import Completion, Group, Place, Problem, Trajectory

Judged = tuple[Completion, Judgement]


@dataclass(frozen=True, slots=True, kw_only=True)
class Roller:
    """Rolls out one policy with one prompt template, one set of verifiers and of rewards.

    The rewards are for exploration; an evaluation goes by correctness alone.
    """

    sampler: Sampler | VllmSampler
    prompts: PromptBuilder
    verify: Verify
    rewards: Sequence[RewardConfig] = ()

    def roll_out(
        self,
        problems: Sequence[Problem],
        num_samples: int,
        settings: SamplingConfig,
        place: Place,
        *,
        policy_version: int,
    ) -> Iterator[Group]:
        """Yield one group a problem as it is finished and judged, in order of finishing."""
        requests = [
            Request(prompt, place.stream_seed(problem.problem_id, member))
            for problem, prompt in ((p, self.prompts.build(p)) for p in problems)
            for member in range(num_samples)
        ]
        members: list[dict[int, Judged]] = [{} for _ in problems]
        sampled: deque[int] = deque()

        def group(number: int) -> Group:
            return self._group(
                problems[number], members[number], settings, place, policy_version=policy_version
            )

        for index, completion in self.sampler.sample(requests, settings):
            check_finite(completion, place)
            number, member = divmod(index, num_samples)
            judgement = judge(
                self.verify,
                problems[number],
                completion,
                self.rewards if place.phase == "explore" else (),
                max_tokens=settings.max_completion_tokens,
            )
            members[number][member] = (completion, judgement)
            if len(members[number]) == num_samples:
                sampled.append(number)
            while sampled and all(j.is_done for _, j in members[sampled[0]].values()):
                yield group(sampled.popleft())
        for number in sampled:
            yield group(number)

    def _group(
        self,
        problem: Problem,
        members: dict[int, Judged],
        settings: SamplingConfig,
        place: Place,
        *,
        policy_version: int,
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
                    template_version=self.prompts.version,
                )
            )
        return Group(problem=problem, trajectories=tuple(trajectories))
