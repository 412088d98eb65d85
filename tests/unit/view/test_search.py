"""Search in a run: bounded, newest first, taken up where it ended."""

import pytest
from doubles_records import group_at, place_at

from rloop.store.index import GroupIndex
from rloop.store.trajectories import TrajectoryStore
from rloop.view.groups import Filters
from rloop.view.search import MAX_HITS, excerpt_around, search


@pytest.fixture
def index(tmp_path):
    store = TrajectoryStore(tmp_path)
    for step in range(1, 6):
        texts = [(f"Step {step} says so", True), ("no", False), ("", False)]
        store.append(place_at(step), [group_at(place_at(step), completions=texts)])
    found = GroupIndex(tmp_path)
    found.refresh(60.0)
    return found


def test_it_goes_from_the_newest_step_back(index):
    found = search(index, Filters(text="SAYS"), budget_s=60.0)
    assert [hits.file.step for hits in found.files] == [5, 4, 3, 2, 1]
    assert (found.num_searched, found.num_files, found.last) == (5, 5, "")
    assert found.files[0].hits[0].excerpt == "Step 5 says so"


def test_a_search_without_time_reads_one_step_and_says_where_to_go_on(index):
    seen: list[int] = []
    after = ""
    for _ in range(5):
        found = search(index, Filters(text="says"), after=after, budget_s=0.0)
        assert (found.num_searched, found.num_before) == (1, len(seen))
        seen += [hits.file.step for hits in found.files]
        after = found.last
    assert (seen, after) == ([5, 4, 3, 2, 1], "")


def test_it_ends_when_it_has_found_enough(tmp_path):
    store = TrajectoryStore(tmp_path)
    for step in range(1, MAX_HITS + 3):
        store.append(place_at(step), [group_at(place_at(step))])
    index = GroupIndex(tmp_path)
    index.refresh(60.0)
    found = search(index, Filters(verdict="wrong"), budget_s=60.0)
    assert sum(len(hits.hits) for hits in found.files) == MAX_HITS
    assert found.last == "1/explore/3"


def test_what_was_written_comes_before_what_was_asked(tmp_path):
    store = TrajectoryStore(tmp_path)
    texts = [("a", True), ("b", True), ("c", True), ("d", True), ("it is 1+1=2", True)]
    store.append(place_at(1), [group_at(place_at(1), completions=texts)])
    index = GroupIndex(tmp_path)
    index.refresh(60.0)
    (hits,) = search(index, Filters(text="1+1="), budget_s=60.0).files
    assert [hit.member for hit in hits.hits] == [4, 0, 1]
    assert hits.num_found == 5


def test_other_filters_and_phases_narrow_it(index):
    assert not search(index, Filters(text="says", verdict="wrong"), budget_s=60.0).files
    assert not search(index, Filters(text="says"), phase="evaluate", budget_s=60.0).files
    assert not search(index, Filters(problem="zebra"), budget_s=60.0).files
    assert len(search(index, Filters(verdict="wrong"), budget_s=60.0).files) == 5


def test_an_excerpt_shows_both_sides_of_the_match():
    text = "a" * 200 + "NEEDLE" + "b" * 200
    assert excerpt_around(text, "", "needle") == f"... {'a' * 90}NEEDLE{'b' * 90} ..."
    assert excerpt_around("none", "a needle", "needle") == "a needle"
