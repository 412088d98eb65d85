"""Numbers of one RL step, over every sampled trajectory, before any filter."""

from collections.abc import Mapping, Sequence

from rloop.engines.rewards import reward_metrics
from rloop.types import Group


def sampling_metrics(groups: Sequence[Group], num_with_signal: int) -> dict[str, float]:
    """Return rewards, group health, different answers, lengths and verdict errors of a step."""
    trajectories = [t for group in groups for t in group.trajectories]
    num_groups, total = len(groups), len(trajectories)
    num_tokens = sum(len(t.completion.completion_ids) for t in trajectories)
    all_correct = sum(g.num_correct == len(g.trajectories) for g in groups)
    all_wrong = sum(g.num_correct == 0 for g in groups)
    return {
        "reward_mean": sum(t.reward for t in trajectories) / total,
        **reward_metrics(trajectories),
        "groups_count": num_groups,
        "groups_all_correct_frac": all_correct / num_groups,
        "groups_all_wrong_frac": all_wrong / num_groups,
        "groups_mixed_frac": (num_groups - all_correct - all_wrong) / num_groups,
        "groups_signal_frac": num_with_signal / num_groups,
        "distinct_answers_mean": sum(map(_num_answers, groups)) / num_groups,
        "truncated_frac": sum(t.completion.is_truncated for t in trajectories) / total,
        "verdict_error_frac": sum(t.verdict.kind == "error" for t in trajectories) / total,
        "completion_tokens_mean": num_tokens / total,
        "sampled_tokens_count": num_tokens,
        "trajectories_count": total,
    }


def _num_answers(group: Group) -> int:
    """Return how many different answers a group gave; a completion without one adds none."""
    return len({t.verdict.answer for t in group.trajectories} - {None})


def timing_metrics(num_tokens: float, sample_s: float, learn_s: float) -> Mapping[str, float]:
    """Return the seconds of a step by part, and the sampler's speed."""
    return {
        "sample_s": sample_s,
        "learn_s": learn_s,
        "step_s": sample_s + learn_s,
        "tokens_per_s": num_tokens / max(sample_s, 1e-9),
    }
