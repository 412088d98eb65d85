"""Search in a run: bounded, newest first, taken up where it ended."""

import pytest
from doubles_records import group_at, place_at

from rloop.store.index import GroupIndex
from rloop.store.trajectories import TrajectoryStore
from rloop.view import trajectories
from rloop.view.trajectories import MAX_HITS, Filters, excerpt_around, search


@pytest.fixture
def index(tmp_path):
    store = TrajectoryStore(tmp_path)
    for step in range(1, 6):
        texts = [(f"Step {step} says so", True), ("no", False), ("", False)]
        store.append(place_at(step), [group_at(place_at(step), completions=texts)])
    found = GroupIndex(tmp_path)
    found.refresh()
    return found


def test_it_goes_from_the_newest_step_back(index):
    found = search(index, Filters(text="SAYS"))
    assert [one["file"].step for one in found["files"]] == [5, 4, 3, 2, 1]
    assert (found["num_searched"], found["num_files"], found["last"]) == (5, 5, "")
    assert found["files"][0]["hits"][0]["excerpt"] == "Step 5 says so"


def test_a_page_reads_some_steps_and_says_where_to_go_on(index, monkeypatch):
    monkeypatch.setattr(trajectories, "FILES_A_SEARCH", 2)
    seen: list[list[int]] = []
    after = ""
    for num_searched in (2, 4, 5):
        found = search(index, Filters(text="says"), after=after)
        assert found["num_searched"] == num_searched
        seen.append([one["file"].step for one in found["files"]])
        after = found["last"]
    assert (seen, after) == ([[5, 4], [3, 2], [1]], "")


def test_it_ends_when_it_has_found_enough(tmp_path):
    store = TrajectoryStore(tmp_path)
    wrong = [(f"{number}", False) for number in range(3)]
    for step in range(1, 17):
        store.append(place_at(step), [group_at(place_at(step), completions=wrong)])
    index = GroupIndex(tmp_path)
    index.refresh()
    found = search(index, Filters(verdict="wrong"))
    # three of each step are shown: 14 steps have 42, 13 have 39
    assert sum(len(one["hits"]) for one in found["files"]) == 42 >= MAX_HITS
    assert found["last"] == "1/explore/3"


def test_what_was_written_comes_before_what_was_asked(tmp_path):
    store = TrajectoryStore(tmp_path)
    texts = [("a", True), ("b", True), ("c", True), ("d", True), ("it is 1+1=2", True)]
    store.append(place_at(1), [group_at(place_at(1), completions=texts)])
    index = GroupIndex(tmp_path)
    index.refresh()
    (found,) = search(index, Filters(text="1+1="))["files"]
    assert [hit["member"] for hit in found["hits"]] == [4, 0, 1]
    assert found["num_found"] == 5


def test_other_filters_and_phases_narrow_it(index):
    assert not search(index, Filters(text="says", verdict="wrong"))["files"]
    assert not search(index, Filters(text="says"), phase="evaluate")["files"]
    assert not search(index, Filters(problem="zebra"))["files"]
    assert len(search(index, Filters(verdict="wrong"))["files"]) == 5


def test_an_excerpt_shows_both_sides_of_the_match():
    text = "a" * 200 + "NEEDLE" + "b" * 200
    assert excerpt_around(text, "", "needle") == f"... {'a' * 90}NEEDLE{'b' * 90} ..."
    assert excerpt_around("none", "a needle", "needle") == "a needle"
