"""Twenty thousand trajectories: every page of the browser at once, before and after counting."""

import time

import pyarrow as pa
import pytest
from doubles_records import group_at, place_at

from rloop.store.schema import trajectory_table
from rloop.store.trajectories import TrajectoryStore

NUM_STEPS, NUM_GROUPS, GROUP_SIZE = 40, 25, 20
LIMIT_S = 3.0
"""Measured on an idle machine 0.02 to 0.3 s; a busy one may take its time."""


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    folder = tmp_path_factory.mktemp("large")
    texts = [(f"{'because ' * 60}{member}", member % 3 == 0) for member in range(GROUP_SIZE)]
    store, place = TrajectoryStore(folder / "run"), place_at(1)
    groups = [group_at(place, f"sums/train/{number}", texts) for number in range(NUM_GROUPS)]
    rows = trajectory_table(place, groups)
    for step in range(1, NUM_STEPS + 1):
        steps = pa.array([step] * rows.num_rows, pa.int32())
        store.append_table(place_at(step), rows.set_column(3, "step", steps))
    return folder


def test_every_page_of_the_browser_comes_at_once(client, large):
    viewer = client(large)
    for address in (
        "/run?run=run",
        "/steps?run=run",
        "/step?run=run&place=1/explore/20",
        "/step?run=run&place=1/explore/20&text=because%20because%2019&verdict=wrong",
        "/completion?run=run&place=1/explore/20&group=sums/train/7&member=3",
        "/problems?run=run",
        "/problem?run=run&problem=sums/train/7",
        "/search?run=run&text=nowhere",
    ):
        start = time.perf_counter()
        response = viewer.get(address)
        assert response.status_code == 200, address
        assert time.perf_counter() - start < LIMIT_S, address
    # Every third of 20 members is right: 7 of 20 in each of 40 groups.
    assert "280" in viewer.get("/problems?run=run").text
    assert "step files counted" not in viewer.get("/steps?run=run").text


def test_pages_are_there_before_the_files_are_counted(client, large):
    viewer = client(large)
    first = viewer.get("/steps?run=run").text
    assert "32 of 40 step files counted, the newest first" in first
    assert first.count("not counted yet") == 8
    assert viewer.get("/step?run=run&place=1/explore/1").text.count("<article") == GROUP_SIZE
    assert "step files counted" not in viewer.get("/problem?run=run&problem=sums/train/7").text
