"""Stored successes join a group: advantages of the joined group, a draw that can be repeated."""

from dataclasses import replace

import pytest
from doubles_records import group_at, place_at

from rloop.algo.advantages import dr_grpo_advantages
from rloop.algo.replay import is_replayed, join_replayed
from rloop.types import Group, Trajectory


def stored(group: Group, count: int) -> list[Trajectory]:
    """Return successes of the group's problem, as an earlier iteration sampled them."""
    first = group.trajectories[0]
    return [
        replace(first, place=place_at(iteration=9, step=n), member=n, reward=1.0)
        for n in range(count)
    ]


@pytest.fixture
def wrong() -> Group:
    """A group of four wrong answers: no signal by itself."""
    return group_at(place_at(), completions=[(str(n), False) for n in range(3, 7)])


def test_replayed_successes_give_a_group_of_failures_a_signal(wrong):
    joined = join_replayed(wrong, stored(wrong, 5), 2)
    assert joined.trajectories[:4] == wrong.trajectories
    rewards = [t.reward for t in joined.trajectories]
    assert rewards == [0, 0, 0, 0, 1, 1]
    # mean 1/3 of six members: -1/3 for the four, 2/3 for the two
    assert dr_grpo_advantages(rewards) == pytest.approx([-1 / 3] * 4 + [2 / 3] * 2)
    assert [is_replayed(t, joined) for t in joined.trajectories] == [False] * 4 + [True] * 2


def test_different_successes_are_drawn_and_all_where_there_are_few(wrong):
    five = stored(wrong, 5)
    drawn = join_replayed(wrong, five, 3).trajectories[4:]
    assert len({t.member for t in drawn}) == 3
    assert len(join_replayed(wrong, five[:1], 3).trajectories) == 4 + 1
    assert join_replayed(wrong, [], 3) == wrong
    assert join_replayed(wrong, five, 0) == wrong


def test_the_draw_is_the_steps_own_and_the_same_again(wrong):
    many = stored(wrong, 40)
    again = join_replayed(wrong, many, 2)
    assert again == join_replayed(wrong, many, 2)
    members = set()
    for step in range(1, 9):
        place = place_at(step=step)
        later = replace(
            wrong, trajectories=tuple(replace(t, place=place) for t in wrong.trajectories)
        )
        members |= {t.member for t in join_replayed(later, many, 2).trajectories[4:]}
    # 8 draws of 2 of 40: fewer than 4 different ones has a chance below 1e-9
    assert len(members) >= 4
