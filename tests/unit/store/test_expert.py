import duckdb
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from doubles_records import group_at, place_at

from rloop.errors import StoreError
from rloop.store.expert import (
    EXAMPLE_COLUMNS,
    VERSION_KEY,
    read_examples,
    read_problems,
    write_expert_set,
)
from rloop.store.trajectories import TrajectoryStore
from rloop.types import Example

REPORT = {
    "problem_id": "p/0",
    "task": "sums",
    "outcome": "kept",
    "success_rate": 0.5,
    "num_trajectories": 4,
    "num_correct": 2,
    "num_successes": 2,
    "num_different": 2,
    "num_kept": 2,
}


def write(run_dir):
    store, place = TrajectoryStore(run_dir), place_at(1)
    texts = [("", True), ("12", True), ("x", False), ("7", True)]
    store.append(place, [group_at(place, "p/0", texts)])
    kept = store.pool([1]).take(np.array([3, 1]), EXAMPLE_COLUMNS)
    return write_expert_set(run_dir, 1, trajectories=kept, weights=[0.5, 1.5], problems=[REPORT])


def test_examples_come_back_as_token_ids_with_their_weights(tmp_path):
    assert write(tmp_path) == tmp_path / "expert/iter-001.parquet"
    prompt = (49, 43, 49, 61)
    assert read_examples(tmp_path, 1) == [
        Example(problem_id="p/0", prompt_ids=prompt, completion_ids=(55, 0), weight=0.5),
        Example(problem_id="p/0", prompt_ids=prompt, completion_ids=(49, 50, 0), weight=1.5),
    ]


def test_every_problem_says_why_it_is_in_or_out(tmp_path):
    write(tmp_path)
    assert read_problems(tmp_path, 1).to_pylist() == [REPORT]


def test_pandas_and_duckdb_open_both_files(tmp_path):
    path = write(tmp_path)
    frame = pd.read_parquet(path)
    assert frame["completion_text"].tolist() == ["7", "12"]
    assert frame["policy_version"].tolist() == [0, 0]
    problems = path.with_name("iter-001-problems.parquet")
    with duckdb.connect() as connection:
        found = connection.execute(f"select outcome, num_kept from '{problems}'").fetchall()
    assert found == [("kept", 2)]


def test_an_iteration_that_has_not_selected_is_named(tmp_path):
    with pytest.raises(StoreError, match=r"no expert set at .*iter-002\.parquet"):
        read_examples(tmp_path, 2)


def test_a_torn_expert_file_and_another_version_are_refused(tmp_path):
    path = write(tmp_path)
    table = pq.read_table(path).replace_schema_metadata({VERSION_KEY: "9"})
    pq.write_table(table, path)
    with pytest.raises(StoreError, match=r"version 9, this rloop reads version 1"):
        read_examples(tmp_path, 1)
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(StoreError, match=r"iter-001\.parquet is torn"):
        read_examples(tmp_path, 1)
