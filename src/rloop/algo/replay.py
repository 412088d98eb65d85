"""Replay: successes sampled earlier join the group sampled now (RLEP, arXiv 2507.07451).

Advantages are computed over the joined group of G + M members. Each member keeps the
log-probabilities under which it was sampled, so the ratio corrects for completions of another
policy.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from rloop.types import Group, Trajectory, stable_hash


def join_replayed(group: Group, successes: Sequence[Trajectory], count: int) -> Group:
    """Return the group with `count` of the problem's stored successes after its own members.

    They are drawn uniformly without replacement (all if there are fewer), with the group's own
    seed: (seed, iteration, phase, step, problem).
    """
    place = group.trajectories[0].place
    seed = stable_hash(
        place.seed, place.iteration, place.phase, place.step, group.problem.problem_id, "replay"
    )
    size = min(count, len(successes))
    drawn = np.random.default_rng(seed).choice(len(successes), size, replace=False) if size else ()
    members = (*group.trajectories, *(successes[index] for index in drawn))
    return replace(group, trajectories=members)


def is_replayed(trajectory: Trajectory, group: Group) -> bool:
    """Whether a member of a joined group was sampled elsewhere; the first one never is."""
    return trajectory.place != group.trajectories[0].place
