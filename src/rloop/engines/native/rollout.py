"""Rolling out: problems to groups of judged trajectories, verdicts running beside the sampling."""

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass

from rloop.config import SamplingConfig
from rloop.engines.base import Verify, check_finite
from rloop.engines.native.prompts import PromptBuilder
from rloop.engines.native.sampler import Request, Sampler
from rloop.engines.native.vllm_sampler import VllmSampler
from rloop.types import Completion, Group, Place, Problem, Trajectory, Verdict

Judged = tuple[Completion, "Future[Verdict]"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Roller:
    """Rolls out one policy with one prompt template and one set of verifiers."""

    sampler: Sampler | VllmSampler
    prompts: PromptBuilder
    verify: Verify

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
            future = self.verify.submit(problems[number], completion.completion_text)
            members[number][member] = (completion, future)
            if len(members[number]) == num_samples:
                sampled.append(number)
            while sampled and all(f.done() for _, f in members[sampled[0]].values()):
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
            completion, future = members[member]
            verdict = future.result()
            trajectories.append(
                Trajectory(
                    place=place,
                    problem=problem,
                    group_id=group_id,
                    member=member,
                    policy_version=policy_version,
                    completion=completion,
                    verdict=verdict,
                    reward=float(verdict.is_correct),
                    temperature=settings.temperature,
                    top_p=settings.top_p,
                    top_k=settings.top_k,
                    template_version=self.prompts.version,
                )
            )
        return Group(problem=problem, trajectories=tuple(trajectories))
