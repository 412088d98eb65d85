"""Group advantages and the shaping of rewards: one pure function per equation.

Correctness decides whether a group is trained on (DAPO, section 3.2; verl's `filter_groups` by
`acc`): it must have correct and wrong members. Neither length shaping nor a graded reward turns an
all-wrong or all-correct group into a signal.

G = members of a group: the completions of one prompt, in member order. A group with equal rewards,
such as a group of one, has no signal, and every estimator returns exact zeros for it.
"""

from collections.abc import Callable, Mapping, Sequence
from statistics import fmean, stdev

from rloop.recipe.config import ExploreConfig
from rloop.types import Group, Trajectory

STD_EPSILON = 1e-6
"""Added to the standard deviation, as in verl (TRL adds 1e-4)."""


def has_signal(rewards_G: Sequence[float]) -> bool:
    """Whether the rewards differ, so that the group has nonzero advantages."""
    return len(set(rewards_G)) > 1


def grpo_advantages(rewards_G: Sequence[float]) -> list[float]:
    """Return (r - mean) / (std + 1e-6) with the sample (n - 1) standard deviation, as TRL and verl.

    Example: [1, 0, 0, 0] -> [1.5, -0.5, -0.5, -0.5], up to 1e-5.
    """
    if not has_signal(rewards_G):
        return [0.0] * len(rewards_G)
    scale = stdev(rewards_G) + STD_EPSILON
    return [centered / scale for centered in dr_grpo_advantages(rewards_G)]


def dr_grpo_advantages(rewards_G: Sequence[float]) -> list[float]:
    """Return r - mean (Dr. GRPO, arXiv 2503.20783); no division by a standard deviation.

    Example: [1, 0, 0, 0] -> [0.75, -0.25, -0.25, -0.25].
    """
    if not has_signal(rewards_G):
        return [0.0] * len(rewards_G)
    mean = fmean(rewards_G)
    return [reward - mean for reward in rewards_G]


def rloo_advantages(rewards_G: Sequence[float]) -> list[float]:
    """Return r minus the mean of the other members (RLOO, arXiv 2402.14740).

    Example: [1, 0, 0, 0] -> [1, -1/3, -1/3, -1/3].
    """
    if not has_signal(rewards_G):
        return [0.0] * len(rewards_G)
    total, num_others = sum(rewards_G), len(rewards_G) - 1
    return [reward - (total - reward) / num_others for reward in rewards_G]


def maxrl_advantages(rewards_G: Sequence[float]) -> list[float]:
    """Return (r - mean) / mean (MaxRL, arXiv 2602.02710): the gradient of log p, not of p.

    For rewards of 0 and 1 the mean estimates the success rate p, so rarer successes weigh more.
    Rewards must not be negative. Example: [1, 0, 0, 0] -> [3, -1, -1, -1].
    """
    if not has_signal(rewards_G):
        return [0.0] * len(rewards_G)
    mean = fmean(rewards_G)
    return [(reward - mean) / mean for reward in rewards_G]


ESTIMATORS: Mapping[str, Callable[[Sequence[float]], list[float]]] = {
    "grpo": grpo_advantages,
    "dr_grpo": dr_grpo_advantages,
    "rloo": rloo_advantages,
    "maxrl": maxrl_advantages,
}
"""Each estimator by its name in `explore.advantage`, from a group's rewards to its advantages."""


def shaped_reward(trajectory: Trajectory, config: ExploreConfig) -> float:
    """Return a trajectory's reward with the penalty for overlong completions."""
    return trajectory.reward + soft_overlong_penalty(
        len(trajectory.completion.completion_ids),
        max_tokens=config.sampling.max_completion_tokens,
        buffer_tokens=config.overlong_buffer_tokens,
        penalty=config.overlong_penalty,
    )


def member_advantages(group: Group, config: ExploreConfig) -> list[float] | None:
    """Return the advantage of each member from the shaped rewards; None without a signal.

    If the verifier or a reward failed on a member, its reward is unknown: it is left out of the
    mean and the standard deviation, and its advantage is 0 (as in TRL if every reward function
    returns None).
    """
    known = [not t.has_error for t in group.trajectories]
    rewards = [shaped_reward(t, config) for t in group.trajectories if not t.has_error]
    if not group.is_mixed or not has_signal(rewards):
        return None
    advantages = iter(ESTIMATORS[config.advantage](rewards))
    return [next(advantages) if is_known else 0.0 for is_known in known]


def is_trained_on(trajectory: Trajectory, config: ExploreConfig) -> bool:
    """Whether the tokens of a member (of a group with a signal) are in the loss.

    They are not if its reward is unknown, or if it was truncated and `mask_truncated` is on. A
    truncated member still counts for its group's advantages, but neither for the loss nor for its
    denominator (DAPO's overlong filtering, TRL's `mask_truncated_completions`).
    """
    is_masked = config.mask_truncated and trajectory.completion.is_truncated
    return not trajectory.has_error and not is_masked


def soft_overlong_penalty(
    num_tokens: int, *, max_tokens: int, buffer_tokens: int, penalty: float
) -> float:
    """Return the penalty on the reward of a long completion, in [-penalty, 0] (DAPO, eq. 13).

    0 up to `max_tokens - buffer_tokens`, then linear, and -penalty at `max_tokens` (arXiv
    2503.14476). A buffer of 0 turns it off.
    """
    if buffer_tokens == 0:
        return 0.0
    excess_tokens = num_tokens - (max_tokens - buffer_tokens)
    return -penalty * min(max(excess_tokens / buffer_tokens, 0.0), 1.0)
