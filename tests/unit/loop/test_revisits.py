"""How like the last visit to its problem a step is: worked by hand."""

from pathlib import Path

import pytest
from doubles_records import group_at, place_at

from rloop.loop.revisits import revisit_similarity
from rloop.store.trajectories import TrajectoryStore
from rloop.types import Group


def group(step: int, problem: str, *texts: str, iteration: int = 1) -> Group:
    place = place_at(step, iteration=iteration)
    return group_at(place, problem, [(text, False) for text in texts])


@pytest.fixture
def store(tmp_path: Path) -> TrajectoryStore:
    store = TrajectoryStore(tmp_path)
    store.append(place_at(1), [group(1, "a", "wxyz"), group(1, "b", "mnop")])
    store.append(place_at(2), [group(2, "a", "abcd")])
    store.append(place_at(1, iteration=2), [group(1, "a", "abcd", iteration=2)])
    return store


def test_it_is_the_mean_over_pairs_and_problems_of_the_last_visit(store):
    now = [group(3, "a", "abcd", "xbcd"), group(3, "b", "qrst"), group(3, "c", "abcd")]
    store.append(place_at(3), now)
    # a, against step 2 alone: abcd is {abcd, bcd.}, xbcd is {xbcd, bcd.}: (1 + 1/3) / 2 = 2/3
    # b, against step 1: 0; c was not seen before. (2/3 + 0) / 2 = 1/3
    assert revisit_similarity(store, place_at(3), now) == {"similarity_mean": pytest.approx(1 / 3)}


def test_nothing_is_said_where_no_problem_came_before(store):
    now = [group(3, "c", "abcd")]
    store.append(place_at(3), now)
    assert revisit_similarity(store, place_at(3), now) == {}
    # an iteration is compared with itself only
    first = [group(1, "a", "abcd", iteration=2)]
    assert revisit_similarity(store, place_at(1, iteration=2), first) == {}
