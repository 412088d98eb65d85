"""The group index: counts by hand, files that come, change, break and go, links and strangers."""

import random
from pathlib import Path

import pytest
from doubles_records import group_at, place_at

from rloop.store.index import GroupIndex, list_step_files
from rloop.store.trajectories import TrajectoryStore


@pytest.fixture
def store(tmp_path):
    return TrajectoryStore(tmp_path)


def indexed(run_dir: Path, most: int = 100) -> GroupIndex:
    index = GroupIndex(run_dir)
    index.refresh(most)
    return index


def test_a_group_is_one_row_with_its_counts(store, tmp_path):
    group = group_at(place_at(3), "sums/train/7", [("2", True), ("22", True), ("", False)])
    store.append(place_at(3), [group])
    (row,) = indexed(tmp_path).query("select * from groups")
    # Ids are the characters and EOS: 2 + 3 + 1 = 6 tokens; rewards 1 + 1 + 0 = 2.
    assert (row["size"], row["num_correct"], row["tokens"], row["reward"]) == (3, 2, 6, 2.0)
    assert (row["num_error"], row["num_truncated"], row["is_mixed"]) == (0, 0, True)
    assert (row["file"], row["problem_id"], row["policy"]) == (
        *("1/explore/3", "sums/train/7", "explored-001"),
    )


def test_files_stand_in_the_order_of_training(store, tmp_path):
    def measured(iteration, step, policy):
        place = place_at(step, iteration=iteration, phase="evaluate", policy=policy)
        store.append(place, [group_at(place)], part=f"{policy}-held/out")

    measured(1, 0, "iter-001")
    measured(1, 2, "explored-001")
    measured(0, 0, "base")
    for step in (10, 2, 1):
        store.append(place_at(step), [group_at(place_at(step))])
    assert list(indexed(tmp_path).files) == [
        "0/evaluate/0-base-held/out",
        "1/explore/1",
        "1/explore/2",
        "1/evaluate/2-explored-001-held/out",
        "1/explore/10",
        "1/evaluate/0-iter-001-held/out",
    ]


def test_the_newest_files_are_counted_first(store, tmp_path):
    for step in (1, 2, 3):
        store.append(place_at(step), [group_at(place_at(step))])
    index = indexed(tmp_path, most=1)
    assert index.num_waiting == 2
    assert index.query("select file from groups") == [{"file": "1/explore/3"}]
    index.refresh(1)
    index.refresh(1)
    assert index.num_waiting == 0
    assert index.query("select count(*) as n from groups") == [{"n": 3}]


def test_a_new_file_a_replaced_one_and_one_set_aside_are_noticed(store, tmp_path):
    store.append(place_at(1), [group_at(place_at(1))])
    index = indexed(tmp_path)
    store.append(place_at(2), [group_at(place_at(2))])
    store.append(place_at(1), [group_at(place_at(1), completions=[("2", True)] * 5)])
    index.refresh()
    sizes = "select step, size from groups order by step"
    assert index.query(sizes) == [{"step": 1, "size": 5}, {"step": 2, "size": 2}]
    store.drop_after(1, "explore", 1)
    index.refresh()
    assert index.query(sizes) == [{"step": 1, "size": 5}]
    assert list(index.files) == ["1/explore/1"]


def test_a_damaged_file_is_named_and_left_out_until_it_is_whole_again(store, tmp_path):
    store.append(place_at(1), [group_at(place_at(1))])
    path = store.append(place_at(2), [group_at(place_at(2))])
    whole = path.read_bytes()
    path.write_bytes(whole[:-9])
    index = indexed(tmp_path)
    assert index.query("select step from groups") == [{"step": 1}]
    assert "step-000002.parquet" in index.damaged["1/explore/2"]
    assert index.num_waiting == 0
    path.write_bytes(whole)
    index.refresh()
    assert index.damaged == {}
    assert len(index.query("select * from groups")) == 2


def test_links_and_strangers_are_passed_over(store, tmp_path):
    path = store.append(place_at(1), [group_at(place_at(1))])
    path.with_name("step-000002.parquet").symlink_to(path)
    path.with_name("notes.parquet").write_text("mine")
    path.with_name("step-000003.parquet").mkdir()
    elsewhere = tmp_path / "elsewhere"
    path.parent.parent.rename(elsewhere)
    (tmp_path / "trajectories" / "iteration-1").symlink_to(elsewhere)
    assert list(list_step_files(tmp_path / "trajectories")) == []
    (tmp_path / "trajectories" / "iteration-1").unlink()
    elsewhere.rename(tmp_path / "trajectories" / "iteration-1")
    assert [file.step for file in list_step_files(tmp_path / "trajectories")] == [1]
    linked = tmp_path / "run"
    linked.mkdir()
    (linked / "trajectories").symlink_to(tmp_path / "trajectories")
    assert list(list_step_files(linked / "trajectories")) == []


def test_values_are_bound_and_the_connection_reaches_no_file(store, tmp_path):
    name = "it's; drop view groups --"
    store.append(place_at(1), [group_at(place_at(1), name)])
    index = indexed(tmp_path)
    found = index.query("select problem_id from groups where problem_id = ?", [name])
    assert found == [{"problem_id": name}]
    with pytest.raises(Exception, match="disabled by configuration"):
        index.query("select * from read_text('/etc/hostname')")


def test_the_counts_are_those_of_sql_over_the_files(store, tmp_path):
    rng = random.Random(5)
    for step in range(1, 9):
        groups = [
            group_at(
                place_at(step),
                f"sums/train/{problem}",
                [("x" * rng.randrange(5), rng.random() < 0.4) for _ in range(rng.randrange(1, 6))],
            )
            for problem in range(6)
        ]
        store.append(place_at(step), groups)
    plain = """select step, problem_id, count(*) as size, sum(correct::int) as num_correct,
        sum(completion_tokens) as tokens, min(reward) < max(reward) as is_mixed
        from trajectories group by all order by step, problem_id"""
    counted = """select step, problem_id, size, num_correct, tokens, is_mixed
        from groups order by step, problem_id"""
    assert indexed(tmp_path).query(counted) == store.query(plain).to_pylist()
