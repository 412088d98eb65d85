"""What rloop makes of what the workers sampled: verdicts, groups of trajectories, advantages."""

from collections.abc import Sequence

from rloop.algo.advantages import member_advantages
from rloop.config import ExploreConfig, SamplingConfig
from rloop.engines.base import Verify, check_finite
from rloop.engines.trl.messages import Sampled
from rloop.errors import EngineError
from rloop.tasks.verifiers.answers import text_to_judge
from rloop.types import Group, Place, Problem, Trajectory


class Judge:
    """Turns completions into groups, with the verifiers of the run."""

    def __init__(self, verify: Verify) -> None:
        """Judge with `verify`."""
        self._verify = verify

    def groups(
        self,
        problems: Sequence[Problem],
        num_samples: int,
        sampled: Sampled,
        settings: SamplingConfig,
        place: Place,
    ) -> list[Group]:
        """Return one group a problem; the completions stand in the problems' order.

        EngineError says that some are lost, NonFinitePolicy that they were drawn from NaN: they are
        noise then, and no data.
        """
        _check(sampled, len(problems) * num_samples, place)
        members = [(problem, member) for problem in problems for member in range(num_samples)]
        futures = [
            self._verify.submit(
                problem, text_to_judge(completion.prompt_text, completion.completion_text)
            )
            for (problem, _), completion in zip(members, sampled.completions, strict=True)
        ]
        trajectories = []
        for index, (problem, member) in enumerate(members):
            verdict = futures[index].result()
            trajectories.append(
                Trajectory(
                    place=place,
                    problem=problem,
                    group_id=f"{place.iteration}/{place.phase}/{place.step}/{problem.problem_id}",
                    member=member,
                    policy_version=sampled.policy_version,
                    completion=sampled.completions[index],
                    verdict=verdict,
                    reward=verdict.reward,
                    temperature=settings.temperature,
                    top_p=settings.top_p,
                    top_k=settings.top_k,
                    template_version=sampled.template_version,
                )
            )
        starts = range(0, len(trajectories), num_samples)
        return [
            Group(problem=problem, trajectories=tuple(trajectories[start : start + num_samples]))
            for problem, start in zip(problems, starts, strict=True)
        ]


def _check(sampled: Sampled, num_wanted: int, place: Place) -> None:
    if len(sampled.completions) != num_wanted:
        raise EngineError(
            f"The workers handed over {len(sampled.completions)} completions, {num_wanted} were "
            "asked for."
        )
    for completion in sampled.completions:
        check_finite(completion, place)


def step_advantages(groups: Sequence[Group], config: ExploreConfig) -> tuple[float, ...]:
    """Return the advantages of a step's completions, scaled so that TRL's loss is rloop's.

    TRL divides by all tokens of a step (GSPO: by all sequences), rloop by those of groups with a
    signal: A' = A n_all / n_signal.
    """
    found = [member_advantages(group, config) for group in groups]
    sizes = [len(g.trajectories) if config.loss == "gspo" else _num_tokens(g) for g in groups]
    num_signal = sum(size for size, row in zip(sizes, found, strict=True) if row is not None)
    scale = sum(sizes) / num_signal if num_signal else 0.0
    return tuple(
        scale * advantage
        for group, row in zip(groups, found, strict=True)
        for advantage in (row or [0.0] * len(group.trajectories))
    )


def _num_tokens(group: Group) -> int:
    return sum(len(t.completion.completion_ids) for t in group.trajectories)
