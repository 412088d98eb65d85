import numpy as np
import pyarrow.parquet as pq
import pytest
from doubles_records import group_at, place_at
from hypothesis import given, settings
from hypothesis import strategies as st

from rloop.store import parquet
from rloop.store.trajectories import TrajectoryStore


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> TrajectoryStore:
    store = TrajectoryStore(tmp_path_factory.mktemp("run"))
    for iteration, step in ((1, 1), (1, 2), (2, 1)):
        place = place_at(step, iteration=iteration)
        texts = [(f"{iteration}.{step}.{member}", member == 1) for member in range(3)]
        store.append(place, [group_at(place, "p/0", texts)])
    place = place_at(0, iteration=1, phase="evaluate", policy="base")
    store.append(place, [group_at(place, "held-out/0")], part="base-sums")
    return store


def test_the_pool_holds_what_explorations_sampled_and_no_evaluation(store):
    pool = store.pool([1])
    assert pool.columns["problem_id"].to_pylist() == ["p/0"] * 6
    assert pool.columns["step"].to_pylist() == [1, 1, 1, 2, 2, 2]
    assert store.pool([1, 2]).columns.num_rows == 9
    assert store.pool([7]).columns.num_rows == 0


@settings(deadline=None, max_examples=50)
@given(rows=st.lists(st.integers(0, 8), max_size=12))
def test_rows_come_in_the_order_asked_for(store, rows):
    pool = store.pool([1, 2])
    names = [f"{i}.{s}.{m}" for i, s in ((1, 1), (1, 2), (2, 1)) for m in range(3)]
    found = pool.take(np.asarray(rows, np.int64), ["completion_text", "member"])
    assert found["completion_text"].to_pylist() == [names[row] for row in rows]
    assert found["member"].to_pylist() == [row % 3 for row in rows]


@settings(deadline=None, max_examples=30)
@given(rows=st.lists(st.integers(0, 8), max_size=12))
def test_token_ids_come_row_by_row(store, rows):
    found = store.pool([1, 2]).completion_ids(np.asarray(rows, np.int64))
    names = [f"{i}.{s}.{m}" for i, s in ((1, 1), (1, 2), (2, 1)) for m in range(3)]
    assert [ids.tolist() for ids in found] == [[*map(ord, names[row]), 0] for row in rows]


def test_columns_of_a_place_give_access_to_the_others(store):
    pool = store.light(["member", "step"], iteration=1, phase="explore", step=2)
    assert pool.columns.column_names == ["member", "step"]
    assert pool.columns["step"].to_pylist() == [2, 2, 2]
    found = pool.take(np.array([2, 0]), ["completion_text"])
    assert found["completion_text"].to_pylist() == ["1.2.2", "1.2.0"]
    assert store.light(["member"], phase="evaluate").columns.num_rows == 2
    assert store.light(["member"]).columns.num_rows == 11


def test_rows_are_found_in_whichever_row_group_they_lie(tmp_path, monkeypatch):
    monkeypatch.setattr(parquet, "GROUP_BYTES", 1)
    store, place = TrajectoryStore(tmp_path), place_at(1)
    path = store.append(place, [group_at(place, "p/0", [(str(n), True) for n in range(7)])])
    assert pq.read_metadata(path).num_row_groups == 7
    rows = np.array([5, 0, 5, 6, 2])
    found = store.light(["member"]).take(rows, ["completion_text"])
    assert found["completion_text"].to_pylist() == ["5", "0", "5", "6", "2"]
    assert [part.num_rows for part in store.stream()] == [1] * 7
