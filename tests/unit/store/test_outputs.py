import json
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rloop.disk import new_path
from rloop.errors import ConfigError, StoreError
from rloop.store.export import SUFFIXES, write_file, write_shards

SCHEMA = pa.schema({"number": pa.int64(), "text": pa.string()})
HOSTILE = [
    'say "hi", then\n,leave\r\n',
    "\\n is not \n",
    "</script><script>alert(1)</script>",
    "=1+1",
    "\u2028\ufeff\U0001f600 \\boxed{\\frac{1}{2}}",
    "tab\tand 'quotes'",
    "",
]


def tables(*texts):
    """One table a text, numbered from 0."""
    return [pa.table({"number": [i], "text": [t]}, schema=SCHEMA) for i, t in enumerate(texts)]


def texts_of(jsonl):
    # Lines end in \n alone: splitlines would also cut at what JSON allows inside a string.
    lines = jsonl.read_bytes().decode().split("\n")
    return [json.loads(line)["text"] for line in lines if line]


def test_hostile_text_survives_every_kind_of_file(tmp_path):
    files = [tmp_path / f"all{suffix}" for suffix in SUFFIXES]
    for file in files:
        assert write_file(file, tables(*HOSTILE), SCHEMA) == len(HOSTILE)
    parquet, csv, jsonl = files
    assert pd.read_parquet(parquet)["text"].tolist() == HOSTILE
    assert pd.read_csv(csv, keep_default_na=False)["text"].tolist() == HOSTILE
    assert texts_of(jsonl) == HOSTILE


@settings(max_examples=25, deadline=None)
@given(texts=st.lists(st.text(st.characters(exclude_categories=["Cs"])), min_size=1, max_size=4))
def test_any_text_survives_parquet_and_json_lines(tmp_path_factory, texts):
    folder = tmp_path_factory.mktemp("any")
    write_file(folder / "a.jsonl", tables(*texts), SCHEMA)
    write_file(folder / "a.parquet", tables(*texts), SCHEMA)
    assert texts_of(folder / "a.jsonl") == texts
    assert pq.read_table(folder / "a.parquet")["text"].to_pylist() == texts


def test_shards_are_cut_by_size_and_hold_every_row_once(tmp_path):
    two = 2 * tables("a")[0].nbytes
    assert write_shards(tmp_path, "train", tables(*"abcde"), SCHEMA, shard_bytes=two) == 5
    files = sorted(tmp_path.iterdir())
    assert [file.name for file in files] == [f"train-0000{i}.parquet" for i in range(3)]
    found = [pq.read_table(file)["text"].to_pylist() for file in files]
    assert found == [["a", "b"], ["c", "d"], ["e"]]


def test_no_rows_are_no_shard(tmp_path):
    assert write_shards(tmp_path / "data", "train", tables(), SCHEMA) == 0
    assert list((tmp_path / "data").iterdir()) == []


def test_what_fails_on_the_way_leaves_nothing(tmp_path):
    def torn():
        yield from tables("a")
        raise StoreError("step-000002.parquet is torn")

    for suffix in SUFFIXES:
        target = tmp_path / f"all{suffix}"
        with (
            pytest.raises(StoreError, match=r"^step-000002\.parquet is torn$"),
            new_path(target) as path,
        ):
            write_file(path, torn(), SCHEMA)
        assert list(tmp_path.iterdir()) == []


def test_nothing_is_overwritten_and_a_missing_folder_is_said(tmp_path):
    (tmp_path / "there").mkdir()
    with pytest.raises(ConfigError, match="there exists"), new_path(tmp_path / "there"):
        pass
    target = Path(tmp_path / "no" / "all.csv")
    with pytest.raises(StoreError, match="there is no folder"), new_path(target):
        pass
