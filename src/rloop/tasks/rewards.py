"""The recipe's `rewards`: judging a completion by each of them, and their weighted sum.

    reward = sum_i weight_i * value_i,  value_i in [0, 1]

Without any the reward is that of the task's verifier.
"""

from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from math import nan
from typing import Protocol

from rloop.errors import ConfigError, TaskError
from rloop.recipe.config import RewardConfig
from rloop.tasks.verifiers import format as formats
from rloop.tasks.verifiers.answers import text_to_judge
from rloop.tasks.verifiers.python import PREFIX, check_spec
from rloop.tasks.verifiers.registry import reference_text
from rloop.types import Completion, Problem, Trajectory, Verdict

NUM_ASKED = 3
"""Reference answers that a reward is tried on at the start; a remote judge may fail on one."""


class Verify(Protocol):
    """Judges completions in the background: `tasks.pool.VerifierPool`, or a test's own."""

    def submit(self, problem: Problem, completion_text: str) -> "Future[Verdict]":
        """Start judging; the future never raises for what the completion says."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """What is under way on one completion: the task's verdict, and each reward's by name."""

    verdict: "Future[Verdict]"
    rewards: "Mapping[str, Future[Verdict]]"
    weights: Mapping[str, float]

    @property
    def is_done(self) -> bool:
        """Whether all of it is there."""
        return all(future.done() for future in (self.verdict, *self.rewards.values()))

    def result(self) -> "tuple[Verdict, dict[str, Verdict], float]":
        """Wait; return the task's verdict, each reward's, and what RL learns from."""
        verdict = self.verdict.result()
        rewards = {name: future.result() for name, future in self.rewards.items()}
        if not rewards:
            return verdict, rewards, verdict.reward
        values = {name: found.reward for name, found in rewards.items()}
        return verdict, rewards, weighted_sum(values, self.weights)


def weighted_sum(values: Mapping[str, float], weights: Mapping[str, float]) -> float:
    """Return the sum of weight times value.

    Example: {"accuracy": 1.0, "length": 0.5} by {"accuracy": 1.0, "length": -0.2} gives 0.9.
    """
    return sum(weights[name] * value for name, value in values.items())


def judge(
    verify: Verify,
    problem: Problem,
    completion: Completion,
    rewards: Sequence[RewardConfig],
    *,
    max_tokens: int,
) -> Judgement:
    """Start judging a completion, which had room for `max_tokens`."""
    text = text_to_judge(completion.prompt_text, completion.completion_text)
    verdict = verify.submit(problem, text)

    def start(reward: RewardConfig) -> "Future[Verdict]":
        if reward.function == "accuracy":
            return verdict
        if reward.function == "length":
            done: Future[Verdict] = Future()
            done.set_result(Verdict.graded(length_reward(completion, max_tokens)))
            return done
        return verify.submit(_asked(problem, reward), text)

    return Judgement(
        verdict=verdict,
        rewards={reward.label: start(reward) for reward in rewards},
        weights=weights_of(rewards),
    )


def length_reward(completion: Completion, max_tokens: int) -> float:
    """Return 1 - tokens / max_tokens: what a completion saved of the tokens that it had."""
    return max(0.0, 1.0 - len(completion.completion_ids) / max_tokens)


def reward_metrics(trajectories: Sequence[Trajectory]) -> dict[str, float]:
    """Return correctness and each reward of its own; nothing where the reward is correctness."""
    is_graded = any(t.rewards or t.verdict.score is not None for t in trajectories)
    found: dict[str, float] = {}
    if is_graded:
        num_correct = sum(t.verdict.is_correct for t in trajectories)
        found["correct_frac"] = num_correct / len(trajectories)
    for name in trajectories[0].rewards:
        verdicts = [t.rewards[name] for t in trajectories]
        values = [verdict.reward for verdict in verdicts if verdict.kind != "error"]
        found[f"reward_{name}_mean"] = sum(values) / len(values) if values else nan
        found[f"reward_{name}_error_frac"] = 1 - len(values) / len(verdicts)
    return found


def check_rewards(
    rewards: Sequence[RewardConfig], problems: Sequence[Problem], verify: Verify
) -> None:
    """Call each function on some reference answers; raise where it fails on all of them.

    ConfigError names a function that cannot be one, TaskError says what it raised or returned.
    """
    for index, reward in enumerate(rewards):
        if reward.function.startswith(PREFIX):
            try:
                check_spec(reward.function)
            except ConfigError as error:
                raise ConfigError(f"rewards.{index}.function: {error}") from error
        if reward.function in ("accuracy", "length"):
            continue
        asked = problems[:NUM_ASKED]
        futures = [verify.submit(_asked(p, reward), reference_text(p)) for p in asked]
        found = [future.result() for future in futures]
        if found and all(verdict.kind == "error" for verdict in found):
            raise TaskError(
                f"rewards.{index} ({reward.label}) gave an error for all {len(asked)} reference "
                f"answers it was asked about; for {asked[0].problem_id}: {found[0].reason}. Fix "
                "it, or leave it out."
            )


def _asked(problem: Problem, reward: RewardConfig) -> Problem:
    """Return the problem with the reward's function as its verifier."""
    pattern = reward.pattern
    return replace(
        problem,
        verifier=reward.function if pattern is None else f"{formats.PREFIX}{pattern}",
        verifier_timeout_s=reward.timeout_s,
    )


def weights_of(rewards: Sequence[RewardConfig]) -> dict[str, float]:
    """Return the weight of each reward by its name."""
    return {reward.label: reward.weight for reward in rewards}
