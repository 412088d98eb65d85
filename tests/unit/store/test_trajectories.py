import hashlib
import os
from dataclasses import replace
from pathlib import Path

import duckdb
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from doubles_records import group_at, place_at
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rloop.errors import StoreError
from rloop.store.schema import OLDER, SCHEMA, VERSION_KEY
from rloop.store.trajectories import TrajectoryStore
from rloop.types import Verdict


@pytest.fixture
def store(tmp_path) -> TrajectoryStore:
    return TrajectoryStore(tmp_path)


def add(store: TrajectoryStore, step: int, *, iteration: int = 1, **options) -> Path:
    place = place_at(step, iteration=iteration)
    return store.append(place, [group_at(place, **options)])


def sql(query: str) -> list:
    with duckdb.connect() as connection:
        return connection.execute(query).fetchall()


def test_a_step_lies_where_the_design_says(store, tmp_path):
    path = add(store, 12)
    assert path == tmp_path / "trajectories/iteration-1/phase-explore/step-000012.parquet"
    assert [p.name for p in path.parent.iterdir()] == ["step-000012.parquet"]


def test_a_row_holds_everything_of_its_trajectory(store):
    place = place_at(3)
    store.append(place, [group_at(place)])
    row = store.rows(1, "explore", 3).to_pylist()[1]
    assert row == {
        "run": "test",
        "iteration": 1,
        "phase": "explore",
        "step": 3,
        "policy": "explored-001",
        "policy_version": 2,
        "task": "sums",
        "problem_id": "sums/train/0",
        "group_id": "1/explore/3/sums/train/0",
        "member": 1,
        "prompt_ids": [49, 43, 49, 61],
        "completion_ids": [51, 0],
        "behavior_logprobs": [-0.5, -0.5],
        "question": "1+1",
        "prompt_text": "1+1=",
        "completion_text": "3",
        "finish_reason": "stop",
        "answer": "3",
        "reference": "2",
        "correct": False,
        "verdict": "wrong",
        "reason": "",
        "reward": 0.0,
        "score": None,
        "rewards": None,
        "temperature": 1.0,
        "top_p": 1.0,
        "top_k": 0,
        "seed": place.stream_seed("sums/train/0", 1),
        "verifier_version": "numeric/1",
        "template_version": "abc",
        "completion_tokens": 2,
        "behavior_logprob_sum": -1.0,
        # the first eight bytes of the text's blake2b, little endian
        "completion_hash": int.from_bytes(hashlib.blake2b(b"3", digest_size=8).digest(), "little"),
        "schema_version": 3,
    }


def test_rewards_are_stored_by_name_with_what_they_said(store):
    place, said = place_at(1), {"accuracy": Verdict(kind="correct"), "judge": Verdict.graded(0.25)}
    said["other"] = Verdict(kind="error", reason="busy")
    group = group_at(place)
    verdict = Verdict(kind="wrong", score=0.5, verifier_version="mine/1")
    first = replace(group.trajectories[0], verdict=verdict, rewards=said, reward=1.25)
    store.append(place, [replace(group, trajectories=(first, group.trajectories[1]))])
    graded, plain = store.rows(1, "explore", 1).select(["score", "rewards", "reward"]).to_pylist()
    assert graded["rewards"] == [
        {"name": "accuracy", "value": 1.0, "reason": ""},
        {"name": "judge", "value": 0.25, "reason": ""},
        {"name": "other", "value": None, "reason": "busy"},
    ]
    assert (graded["score"], graded["reward"]) == (0.5, 1.25)
    assert (plain["score"], plain["rewards"]) == (None, None)
    found = store.query(
        "select r.name, avg(r.value) as mean from (select unnest(rewards) as r from trajectories) "
        "group by all order by all"
    )
    assert found["mean"].to_pylist() == [1.0, 0.25, None]


@pytest.mark.parametrize("older", OLDER, ids=lambda older: older.metadata[VERSION_KEY].decode())
def test_a_run_of_an_earlier_version_is_read(store, older):
    path = add(store, 1)
    pq.write_table(pq.read_table(path).select(older.names).cast(older), path)
    add(store, 2)
    assert store.count() == 4
    assert store.rows(1, "explore", 1)["rewards"].null_count == 2
    asked = store.query("select count(score) as n, count(question) as q from trajectories")
    assert asked.to_pylist() == [{"n": 0, "q": 2}]
    assert sum(map(len, store.stream())) == 4
    pool = store.light(("problem_id", "rewards"))
    assert pool.columns["rewards"].null_count == 4
    found = pool.take(np.array([3, 0]), ["step", "score"])
    assert found.to_pylist() == [{"step": 2, "score": None}, {"step": 1, "score": None}]


texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=6)


@settings(
    max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(groups=st.lists(st.lists(st.tuples(texts, st.booleans()), max_size=4), max_size=4))
def test_what_is_appended_is_what_is_read(tmp_path, groups):
    store, place = TrajectoryStore(tmp_path), place_at(1)
    wanted = [group_at(place, f"p/{i}", completions) for i, completions in enumerate(groups)]
    store.append(place, wanted)
    found = store.rows(1, "explore", 1).to_pylist()
    trajectories = [t for group in wanted for t in group.trajectories]
    assert store.count() == len(trajectories)
    for row, trajectory in zip(found, trajectories, strict=True):
        assert tuple(row["completion_ids"]) == trajectory.completion.completion_ids
        assert tuple(row["behavior_logprobs"]) == trajectory.completion.behavior_logprobs
        assert row["completion_text"] == trajectory.completion.completion_text
        assert row["correct"] == trajectory.verdict.is_correct


def test_the_same_step_again_replaces_the_file(store):
    add(store, 1)
    add(store, 1, completions=[("4", False)])
    assert store.rows(1, "explore", 1)["completion_text"].to_pylist() == ["4"]


def test_parts_of_a_step_stand_beside_each_other_under_names_that_never_collide(store):
    place = place_at(0, phase="evaluate", policy="base")
    for part in ("base-a/b", "base-a_b", "base-a%2Fb"):
        store.append(place, [group_at(place)], part=part)
    assert store.count(phase="evaluate", step=0) == 6
    assert store.rows(1, "evaluate", 0).num_rows == 6


def test_count_follows_the_place(store):
    for iteration, step in ((1, 1), (1, 2), (2, 1)):
        add(store, step, iteration=iteration)
    assert store.count() == 6
    assert store.count(iteration=1) == 4
    assert store.count(iteration=1, phase="explore", step=2) == 2
    assert store.count(phase="evaluate") == 0


def test_query_sees_each_row_once_with_its_place(store):
    add(store, 1)
    add(store, 1, iteration=2)
    found = store.query(
        "select iteration, phase, count(*) as n, avg(len(completion_ids)) as t "
        "from trajectories where correct group by all order by 1"
    )
    assert found.to_pylist() == [
        {"iteration": 1, "phase": "explore", "n": 1, "t": 2.0},
        {"iteration": 2, "phase": "explore", "n": 1, "t": 2.0},
    ]


def test_groups_count_each_problem_of_each_step_and_policy(store):
    add(store, 1, completions=[("2", True), ("2", True), ("3", False)])
    add(store, 2, completions=[("", False)])
    place = place_at(0, phase="evaluate", policy="base")
    group = group_at(place, "sums/test/1")
    cut, error = group.trajectories
    cut = replace(cut, completion=replace(cut.completion, finish_reason="length"))
    error = replace(error, verdict=Verdict(kind="error", reason="slow"))
    store.append(place, [replace(group, trajectories=(cut, error))], part="base-sums")
    keys = ("phase", "step", "problem_id", "num_rows", "num_correct", "num_errors")
    found = store.query("select * from groups order by phase, step").to_pylist()
    assert [tuple(row[key] for key in keys) for row in found] == [
        ("evaluate", 0, "sums/test/1", 2, 1, 1),
        ("explore", 1, "sums/train/0", 3, 2, 0),
        ("explore", 2, "sums/train/0", 1, 0, 0),
    ]
    assert [row["num_truncated"] for row in found] == [1, 0, 0]
    # "2" and "3"; two tokens each: the digit and the end; two of three rewarded by 1
    assert (found[1]["num_answers"], found[1]["num_tokens"], found[1]["reward_sum"]) == (2, 6, 2)
    assert {row["iteration"] for row in found} == {1}
    assert [row["policy"] for row in found] == ["base", "explored-001", "explored-001"]


def test_a_query_of_the_groups_of_a_place_does_not_read_the_files_of_others(store):
    add(store, 2)
    damage(add(store, 1), "correct")
    query = "select num_correct from groups"
    assert store.query(f"{query} where step = 2").to_pylist() == [{"num_correct": 1}]
    with pytest.raises(StoreError, match="is torn"):
        store.query(query)


def test_an_empty_store_answers_with_no_rows(store):
    assert store.query("select * from trajectories").num_rows == 0
    assert store.query("select * from trajectories").schema.names == SCHEMA.names
    assert store.rows(1, "explore", 1).num_rows == 0


def test_a_missing_run_is_not_an_empty_one(tmp_path):
    with pytest.raises(StoreError, match=r"nowhere is not a directory; name the folder of a run"):
        TrajectoryStore(tmp_path / "nowhere").count()


@pytest.mark.parametrize(
    "sql",
    [
        "copy (select 1) to '{dir}/stolen.csv'",
        "attach '{dir}/new.duckdb'",
        "select * from read_text('/etc/hostname')",
        "select * from '{file}'",
        "set enable_external_access = true",
        "export database '{dir}/dump'",
        "insert into trajectories select * from trajectories",
        "delete from trajectories",
    ],
)
def test_a_query_can_neither_write_nor_read_other_files(store, tmp_path, sql):
    path = add(store, 1)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(StoreError, match="The query failed"):
        store.query(sql.format(dir=tmp_path, file=path))
    assert sorted(tmp_path.rglob("*")) == before


def test_bad_sql_is_said_with_duckdbs_words(store):
    add(store, 1)
    with pytest.raises(StoreError, match=r"The query failed: .*corect.*\n?.*correct"):
        store.query("select corect from trajectories")


def damage(path: Path, column: str) -> None:
    """Flip a byte in a column's only data page."""
    found = pq.read_metadata(path).row_group(0)
    names = [found.column(i).path_in_schema for i in range(found.num_columns)]
    chunk = found.column(names.index(column))
    data = bytearray(path.read_bytes())
    data[chunk.data_page_offset + chunk.total_compressed_size - 1] ^= 0xFF
    path.write_bytes(data)


def test_a_query_of_a_place_does_not_read_the_files_of_others(store, tmp_path):
    """Other steps' pages are damaged: only a query that reads them can see it."""
    wanted = add(store, 2)
    places = [(add(store, 1), "step = 2"), (add(store, 2, iteration=2), "iteration = 1")]
    place = place_at(2, phase="evaluate")
    places.append((store.append(place, [group_at(place)], part="a"), "phase = 'explore'"))
    for path, _ in places:
        damage(path, "completion_hash")
    query = "select sum(completion_hash) as total from trajectories where "
    found = store.query(query + " and ".join(condition for _, condition in places))
    hashes = pq.read_table(wanted)["completion_hash"].to_pylist()
    assert found.to_pylist() == [{"total": sum(hashes)}]
    for _, left_out in places:
        kept = [condition for _, condition in places if condition != left_out]
        with pytest.raises(StoreError, match="is torn"):
            TrajectoryStore(tmp_path).query(query + " and ".join(kept))


def test_every_kind_of_reader_names_a_flipped_byte(store, tmp_path):
    path = add(store, 1)
    damage(path, "seed")
    readers = (
        lambda: store.query("select max(seed) from trajectories"),
        lambda: store.light(["seed"]),
        lambda: store.light(["member"]).take(np.array([0]), ["seed"]),
        lambda: list(store.stream()),
        lambda: store.rows(1, "explore", 1),
    )
    for read in readers:
        with pytest.raises(StoreError, match=r"step-000001\.parquet is torn"):
            read()
    assert store.query("select max(member) as m from trajectories").to_pylist() == [{"m": 1}]


def test_a_foreign_file_is_named(store):
    path = add(store, 1)
    foreign = path.with_name("step-000002.parquet")
    pq.write_table(pa.table({"x": [1]}), foreign)
    with pytest.raises(StoreError, match=r"step-000002\.parquet was not written by rloop"):
        store.count()


def test_another_schema_version_is_refused_with_both_numbers(store):
    path = add(store, 1)
    table = pq.read_table(path).replace_schema_metadata({VERSION_KEY: "9"})
    pq.write_table(table, path.with_name("step-000002.parquet"))
    with pytest.raises(
        StoreError, match=r"step-000002\.parquet has .* version 9, .* version 1, 2, 3"
    ):
        store.query("select 1 from trajectories")


def test_other_columns_under_our_version_are_named(store):
    path = add(store, 1)
    rest = pq.read_table(path).drop_columns(["reward"]).replace_schema_metadata(SCHEMA.metadata)
    pq.write_table(rest, path)
    with pytest.raises(StoreError, match=r"other columns than rloop writes: .*reward"):
        store.count()


def test_a_full_disk_is_one_sentence_and_leaves_no_file(store, tmp_path):
    folder = tmp_path / "trajectories/iteration-1/phase-explore"
    folder.mkdir(parents=True)
    # The temporary file is a link to a device that is always full: a real ENOSPC, without a mock.
    (folder / "step-000001.parquet.tmp").symlink_to("/dev/full")
    with pytest.raises(StoreError) as caught:
        add(store, 1)
    message = str(caught.value)
    assert message.startswith(f"{folder / 'step-000001.parquet'} could not be written: the disk is")
    assert "bytes free" in message
    assert f"`rloop resume {tmp_path}` continues" in message
    assert list(folder.iterdir()) == []


def test_a_write_that_did_not_finish_is_not_seen(store):
    path = add(store, 1)
    path.with_name("step-000002.parquet.tmp").write_bytes(b"PAR1 half")
    assert store.count() == 2


def test_later_steps_are_set_aside_and_kept(store, tmp_path):
    first, second, third = (add(store, step) for step in (1, 2, 3))
    other = add(store, 3, iteration=2)
    moved = store.drop_after(1, "explore", 1)
    aside = tmp_path / "trajectories/.superseded/iteration-1/phase-explore"
    assert moved == [aside / f"{second.name}.1", aside / f"{third.name}.1"]
    assert [path.exists() for path in (first, second, third, other)] == [True, False, False, True]
    add(store, 2, completions=[("5", False)])
    assert store.drop_after(1, "explore", 1) == [aside / f"{second.name}.2"]
    assert pq.read_metadata(aside / f"{second.name}.1").num_rows == 2
    assert store.count() == 4
    # Other readers' patterns do not find them either.
    pattern = tmp_path / "trajectories/**/*.parquet"
    assert sql(f"select count(*) from '{pattern}'") == [(4,)]


def test_a_run_with_the_folders_of_0_1_is_read_and_goes_on_in_them(store, tmp_path):
    first = add(store, 1)
    old = tmp_path / "trajectories/iteration=1/phase=explore"
    old.parent.mkdir()
    first.parent.rename(old)
    assert add(store, 1).parent == old
    assert add(store, 2).parent == old
    assert add(store, 1, iteration=2).parent.name == "phase-explore"
    reader = TrajectoryStore(tmp_path)
    assert reader.count(iteration=1) == 2 * reader.count(iteration=2)
    assert reader.query("select distinct iteration from trajectories order by 1").to_pydict() == {
        "iteration": [1, 2]
    }


def test_pandas_and_duckdb_open_the_files_without_rloop(store, tmp_path):
    for iteration, step in ((1, 1), (1, 2), (2, 1)):
        path = add(store, step, iteration=iteration)
    frame = pd.read_parquet(tmp_path / "trajectories")
    assert frame.groupby("iteration").size().to_dict() == {1: 4, 2: 2}
    assert list(pd.read_parquet(path).columns) == SCHEMA.names
    pattern = tmp_path / "trajectories/**/*.parquet"
    found = sql(f"select iteration, phase, count(*) from '{pattern}' group by all order by 1")
    assert found == [(1, "explore", 4), (2, "explore", 2)]


def test_trajectories_of_another_place_are_our_bug(store):
    place = place_at(1)
    with pytest.raises(AssertionError, match=r"2 of 2 trajectories"):
        store.append(replace(place, step=2), [group_at(place)])


def test_a_replaced_file_is_checked_again(store):
    path = add(store, 1)
    assert store.count() == 2
    path.write_bytes(b"junk")
    os.utime(path, ns=(1, 1))
    with pytest.raises(StoreError, match="torn"):
        store.count()


def test_a_query_of_another_table_is_told_the_name_of_the_one_there_is(tmp_path):
    with pytest.raises(
        StoreError, match=r"name nothing does not exist! The tables are `traj"
    ) as told:
        TrajectoryStore(tmp_path).query("select * from nothing")
    assert "pg_" not in str(told.value)
