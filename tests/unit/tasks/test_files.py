import csv
import gzip
import io
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rloop.errors import TaskError
from rloop.recipe.config import TaskConfig
from rloop.tasks.load import load_task
from rloop.tasks.readers import SUFFIXES, file_stem, read_rows

ROWS = [{"problem": "1 + 1?", "answer": "2"}, {"problem": "one,\ntwo \u00d7", "answer": "3"}]


def write(path, rows):
    name, is_zipped = path.name, path.suffix == ".gz"
    if name.endswith(".parquet"):
        pq.write_table(pa.Table.from_pylist(rows), path)
        return path
    if ".json" in name and ".jsonl" not in name:
        text = json.dumps(rows)
    elif ".jsonl" in name:
        text = "\n".join(json.dumps(row) for row in rows)
    else:
        lines = io.StringIO()
        writer = csv.DictWriter(lines, list(rows[0]), delimiter="\t" if ".tsv" in name else ",")
        writer.writeheader()
        writer.writerows(rows)
        text = lines.getvalue()
    path.write_bytes(gzip.compress(text.encode(), mtime=0) if is_zipped else text.encode())
    return path


def say(path, content):
    """Return what is said of a file with this content."""
    path.write_bytes(content)
    with pytest.raises(TaskError) as raised:
        read_rows(path)
    message = str(raised.value)
    assert message.startswith(str(path))
    assert "\n" not in message
    return message


@pytest.mark.parametrize("suffix", [*SUFFIXES, ".JSONL", ".Csv"])
def test_every_kind_of_file_gives_the_same_rows(tmp_path, suffix):
    path = write(tmp_path / f"sums{suffix.lower()}", ROWS).rename(tmp_path / f"sums{suffix}")
    assert read_rows(path) == ROWS
    assert file_stem(path) == "sums"


@pytest.mark.parametrize("suffix", [".jsonl", ".json", ".csv", ".tsv"])
@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32"])
def test_a_byte_order_mark_is_no_part_of_the_file(tmp_path, suffix, encoding):
    path = write(tmp_path / f"sums{suffix}", ROWS)
    path.write_bytes(path.read_bytes().decode().encode(encoding))
    assert read_rows(path) == ROWS


def test_a_byte_order_mark_between_joined_files_is_read_over(tmp_path):
    path = tmp_path / "joined.jsonl"
    path.write_bytes(b'\xef\xbb\xbf{"a": 1}\r\n\xef\xbb\xbf{"a": 2}\r\n')
    assert read_rows(path) == [{"a": 1}, {"a": 2}]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.txt", b"", "use one of .jsonl.gz, .jsonl, .json.gz, .json, .csv.gz, .csv, .tsv.gz, "),
        ("a.jsonl", b'{"a": 1}\n{"a"', "line 2, is not JSON: Expecting ':' delimiter (column 5)"),
        ("a.jsonl", b"[1, 2]\n", "line 1, is not a JSON object: [1, 2] (a file that is one JSON "),
        ("a.jsonl", b'[{"a": 1},\n{"a": 2}]', "line 1, is not JSON"),
        ("a.jsonl", b'{"a": 1}\n{"a": "\xe9"}', "line 2, is not UTF-8 (byte 0xe9): save the file"),
        (
            "a.jsonl",
            '{"a": 1}'.encode("utf-16-le"),
            "line 1, contains a zero byte, as UTF-16",
        ),
        (
            "a.jsonl",
            b'{"a": 1, "b": 2, "a": 3}',
            "line 1, is not JSON: the key 'a' appears tw",
        ),
        ("a.jsonl", b"[" * 100_000, "line 1, is not JSON: it is nested too deep"),
        ("a.json", b'[{"a": 1},\n 5]', "item 2 of the list, is not a JSON object: 5"),
        ("a.json", b'[{"a": 1},\n {"a" 5}]', "line 2, is not JSON: Expecting ':' delimiter (col"),
        (
            "a.json",
            b'{"data": [{"a": 1}]}',
            "one JSON object with the keys data, not a list of pro",
        ),
        ("a.jsonl.gz", b"not gzip", "cannot be read"),
        ("a.jsonl.gz", gzip.compress(b'{"a": 1}\n', mtime=0)[:-9], "cannot be read"),
        ("a.parquet", b"not parquet", "cannot be read"),
    ],
)
def test_a_bad_file_is_named_with_what_is_wrong(tmp_path, name, content, message):
    assert message in say(tmp_path / name, content)


def test_json_lines_may_be_called_json(tmp_path):
    path = tmp_path / "sums.json"
    path.write_text('{"a": 1}\n{"a": 2}\n')
    assert read_rows(path) == [{"a": 1}, {"a": 2}]
    path.write_text('{"a": 1}')
    assert read_rows(path) == [{"a": 1}]
    assert "line 2, is not JSON" in say(path, b'{"a": 1}\n{"a"')


def test_a_line_separator_inside_a_json_text_ends_no_line(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text('{"a": "1\u2028 2\x85"}\n', encoding="utf-8")
    assert read_rows(path)[0]["a"].startswith("1\u2028 2")


def test_numbers_of_json_keep_the_digits_that_stand_there(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text('{"a": [0.00001, 1e22, 2.50]}')
    numbers = read_rows(path)[0]["a"]
    assert [number.text for number in numbers] == ["0.00001", "1e22", "2.50"]
    assert numbers == [1e-05, 1e22, 2.5]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        (
            "a.csv",
            "problem,answer\nAdd 1, 2 and 3,6\n",
            "line 2, has 3 cells and the header 2: put",
        ),
        ("a.csv", "problem,answer\n\nhow,1\n2\n", "line 4, has 1 cells and the header 2: put"),
        ("a.csv", 'problem,answer\n"a\nb",1\nx,2,3\n', "line 4, has 3 cells"),
        ("a.csv", 'problem,answer\nx,1\n"y,2\nz,3\n', "line 3, cannot be read (unexpected end of "),
        ("a.csv", 'problem,answer\n"x" y,1\n', "line 2, cannot be read"),
        (
            "a.csv",
            "problem;answer\nx;1\n",
            "line 1, has one column, 'problem;answer', so its cells ",
        ),
        ("a.csv", "problem\tanswer\nx\t1\n", "separated by tabs: name it .tsv"),
        ("a.tsv", "problem,answer\nx,1\n", "separated by commas: name it .csv"),
        (
            "a.tsv",
            "problem\tanswer\nx\ty\t1\n",
            "line 2, has 3 cells and the header 2: put a cell ",
        ),
        ("a.csv", "problem,answer,answer\nx,1,2\n", "line 1, names the column 'answer' twice"),
    ],
)
def test_a_table_whose_cells_do_not_fit_its_header_is_named_by_line(tmp_path, name, text, message):
    assert message in say(tmp_path / name, text.encode())


@pytest.mark.parametrize(
    ("text", "rows"),
    [
        ('problem, answer\n"x, y", "1, 2"\n', [{"problem": "x, y", "answer": "1, 2"}]),
        (",problem,answer\n0,x,1\n", [{"column 1": "0", "problem": "x", "answer": "1"}]),
        ("problem,answer\nx,1\n,\n\n", [{"problem": "x", "answer": "1"}]),
        ("problem,answer\r\nx,0.00001\r\n", [{"problem": "x", "answer": "0.00001"}]),
        ('problem,answer\n5" pipe,1\n', [{"problem": '5" pipe', "answer": "1"}]),
    ],
)
def test_a_table_as_spreadsheets_and_pandas_write_it_is_read(tmp_path, text, rows):
    path = tmp_path / "a.csv"
    path.write_bytes(text.encode())
    assert read_rows(path) == rows


def test_a_parquet_table_gives_short_floats_and_refuses_a_column_twice(tmp_path):
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"a": pa.array([0.1, None], pa.float32())}), path)
    assert read_rows(path) == [{"a": 0.1}, {"a": None}]
    pq.write_table(pa.Table.from_arrays([pa.array([1]), pa.array([2])], ["a", "a"]), path)
    with pytest.raises(TaskError, match="two columns named 'a': rename one"):
        read_rows(path)


def test_a_missing_file_or_a_folder_is_one_sentence(tmp_path):
    with pytest.raises(TaskError, match=r"no file .*nowhere\.jsonl: give a path .*full"):
        read_rows(tmp_path / "nowhere.jsonl")
    with pytest.raises(TaskError, match="is a folder: name a file in it"):
        read_rows(tmp_path)


@pytest.mark.parametrize("column", ["problem", "answer", "solution", "id", "note"])
@pytest.mark.parametrize("suffix", [".jsonl", ".json"])
def test_half_a_character_anywhere_is_named_with_its_row(tmp_path, column, suffix):
    good = {"problem": "1+1=\U0001f600 \\ud800", "answer": "2", "id": "0"}
    bad = {"deep": ["a\ud800b"]} if column == "note" else "a\ude00b"
    texts = [json.dumps(good), json.dumps({**good, column: bad})]
    path = tmp_path / f"odd{suffix}"
    path.write_text("\n".join(texts) if suffix == ".jsonl" else "[" + ",\n".join(texts) + "]")
    with pytest.raises(TaskError, match=r"\(row 2\) contains an unpaired surrogate, "):
        load_task(TaskConfig(source=f"file:{path}"), data_dir=None)
