"""The checksum of a parquet file's footer: who sees it, and what is read without one."""

import shutil
from pathlib import Path

import duckdb
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rloop.errors import StoreError
from rloop.store.parquet import read_checked, read_whole, write_whole
from rloop.store.trajectories import TrajectoryStore

SCHEMA = pa.schema({"n": pa.int64(), "text": pa.string()}, metadata={b"test.version": "1"})
TABLE = pa.table({"n": list(range(900)), "text": [f"row {n}" * 9 for n in range(900)]}, SCHEMA)
SEALED = Path(__file__).with_name("sealed_by_earlier_rloop.parquet")
"""Two trajectories, in a file whose hash covers the headers of its pages too."""


def test_other_readers_of_parquet_do_not_see_it(tmp_path):
    path = tmp_path / "a.parquet"
    write_whole(path, TABLE, tmp_path)
    assert pq.read_table(path).equals(TABLE)
    assert pd.read_parquet(path)["n"].sum() == 899 * 900 // 2
    with duckdb.connect() as connection:
        found = connection.execute(f"select sum(n), count(text) from '{path}'").fetchall()
    assert found == [(899 * 900 // 2, 900)]


def test_a_file_sealed_by_an_earlier_rloop_is_read(tmp_path):
    folder = tmp_path / "trajectories/iteration-1/phase-explore"
    folder.mkdir(parents=True)
    shutil.copy(SEALED, folder / "step-000001.parquet")
    store = TrajectoryStore(tmp_path)
    assert store.rows(1, "explore", 1)["completion_text"].to_pylist() == ["2", "3"]
    assert store.query("select sum(reward) as r from trajectories").to_pylist() == [{"r": 1.0}]


def test_a_file_from_before_seals_is_read(tmp_path):
    path = tmp_path / "old.parquet"
    pq.write_table(TABLE, path)
    assert read_checked(path, SCHEMA, b"test.version").num_rows == 900


def test_a_file_that_another_program_wrote_anew_is_named(tmp_path):
    path = tmp_path / "new.parquet"
    write_whole(path, TABLE, tmp_path)
    assert read_whole(path).equals(TABLE)
    pq.write_table(pq.read_table(path).slice(1), path)
    with pytest.raises(StoreError, match="its checksum is missing"):
        read_checked(path, SCHEMA, b"test.version")
