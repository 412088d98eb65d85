import csv
import gzip
import json
import re

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rloop.config import TaskConfig
from rloop.errors import TaskError
from rloop.tasks.files import file_stem, read_rows
from rloop.tasks.sources import load_task

ROWS = [{"problem": "1 + 1?", "answer": "2"}, {"problem": "one,\ntwo \u00d7", "answer": "3"}]


def write(path, rows):
    text = "".join(json.dumps(row) + "\n" for row in rows)
    if path.suffix == ".gz":
        path.write_bytes(gzip.compress(text.encode()))
    elif path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    elif path.suffix == ".csv":
        with path.open("w", newline="", encoding="utf-8") as lines:
            writer = csv.DictWriter(lines, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    else:
        path.write_text(text + "\n")
    return path


@pytest.mark.parametrize("suffix", [".jsonl", ".jsonl.gz", ".parquet", ".csv"])
def test_every_kind_of_file_gives_the_same_rows(tmp_path, suffix):
    path = write(tmp_path / f"sums{suffix}", ROWS)
    assert read_rows(path) == ROWS
    assert file_stem(path) == "sums"


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.txt", b"", "use one of .jsonl.gz, .jsonl, .parquet, .csv"),
        ("a.jsonl", b'{"a": 1}\n{"a"', "line 2, is not JSON"),
        ("a.jsonl", b"[1, 2]\n", "line 1, is not a JSON object: [1, 2]"),
        ("a.jsonl", b"\xff\xfe", "cannot be read"),
        ("a.jsonl.gz", b"not gzip", "cannot be read"),
        ("a.jsonl.gz", gzip.compress(b'{"a": 1}\n')[:-9], "cannot be read"),
        ("a.parquet", b"not parquet", "cannot be read"),
    ],
)
def test_a_bad_file_is_named_with_what_is_wrong(tmp_path, name, content, message):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(TaskError, match=re.escape(message)) as raised:
        read_rows(path)
    assert str(path) in str(raised.value)


def test_a_missing_file_is_one_sentence(tmp_path):
    with pytest.raises(TaskError, match=r"no file .*nowhere\.jsonl: give a path"):
        read_rows(tmp_path / "nowhere.jsonl")


@pytest.mark.parametrize("column", ["problem", "answer", "id"])
def test_half_a_character_in_a_row_is_named_with_its_row(tmp_path, column):
    rows = [{"problem": "1+1=", "answer": "2", "id": str(i)} for i in range(2)]
    rows[1][column] = "\ud800"
    path = tmp_path / "odd.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(TaskError, match="row 2, holds half a character"):
        load_task(TaskConfig(source=f"file:{path}"), data_dir=None)
