"""S5's trajectories, made up step by step: random ids, log-probabilities and words.

Each problem is visited in a few steps and solved at a rate of its own; the last member of a group
repeats the first, as sampling does.
"""

from collections.abc import Iterator

import numpy as np

from rloop.types import Completion, Group, Place, Problem, Trajectory, Verdict

GROUP_SIZE = 16
VISITS = 4
"""Steps in which a problem comes up."""
VOCABULARY = 49_152
WORDS = [f"{number:x}" for number in range(VOCABULARY)]


def steps(shape: dict[str, int]) -> Iterator[tuple[Place, list[Group]]]:
    """Yield each step's place and groups; the same for the same sizes."""
    rng = np.random.default_rng(0)
    groups_per_step = shape["step_size"] // GROUP_SIZE
    num_groups = shape["trajectories"] // GROUP_SIZE
    num_problems = max(1, num_groups // VISITS)
    rates = rng.random(num_problems)
    for first in range(0, num_groups, groups_per_step):
        place = Place(
            run="bench", seed=0, iteration=1, phase="explore", step=1 + first // groups_per_step
        )
        groups = []
        for number in range(first, min(first + groups_per_step, num_groups)):
            problem = number % num_problems
            groups.append(_group(place, problem, rates[problem], shape["tokens"], rng))
        yield place, groups


def _group(
    place: Place, number: int, rate: float, num_tokens: int, rng: np.random.Generator
) -> Group:
    problem = Problem(
        problem_id=f"bench/train/{number}", task="bench", question="", answer="7", verifier="exact"
    )
    prompt_ids = tuple(rng.integers(VOCABULARY, size=60).tolist())
    written = [_completion(prompt_ids, num_tokens, rng) for _ in range(GROUP_SIZE - 1)]
    is_correct = (rng.random(GROUP_SIZE - 1) < rate).tolist()
    trajectories = tuple(
        Trajectory(
            place=place,
            problem=problem,
            group_id=f"1/explore/{place.step}/{problem.problem_id}",
            member=member,
            policy_version=place.step - 1,
            completion=written[member % len(written)],
            verdict=Verdict(
                kind="correct" if is_correct[member % len(written)] else "wrong", answer="7"
            ),
            reward=float(is_correct[member % len(written)]),
            temperature=1.0,
            top_p=1.0,
            top_k=0,
            template_version="bench",
        )
        for member in range(GROUP_SIZE)
    )
    return Group(problem=problem, trajectories=trajectories)


def _completion(
    prompt_ids: tuple[int, ...], num_tokens: int, rng: np.random.Generator
) -> Completion:
    ids = rng.integers(VOCABULARY, size=num_tokens).tolist()
    return Completion(
        prompt_text="What is 3 + 4?",
        prompt_ids=prompt_ids,
        completion_text=" ".join(map(WORDS.__getitem__, ids)),
        completion_ids=tuple(ids),
        behavior_logprobs=tuple((-rng.random(num_tokens, np.float32)).tolist()),
        finish_reason="stop",
    )
