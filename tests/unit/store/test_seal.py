"""The seal of a parquet file: what it covers, who sees it, and the headers it finds by itself."""

import io
from pathlib import Path

import duckdb
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rloop.errors import StoreError
from rloop.store.parquet import read_checked, read_whole, write_whole
from rloop.store.seal import BrokenSeal, _page_headers, check_seal, seal
from rloop.store.thrift import read_page_header

SCHEMA = pa.schema({"n": pa.int64(), "text": pa.string()}, metadata={b"test.version": "1"})
TABLE = pa.table({"n": list(range(900)), "text": [f"row {n}" * 9 for n in range(900)]}, SCHEMA)


def write_in_groups(path: Path) -> Path:
    """Write three row groups of two columns, one of them with a dictionary, and seal them."""
    with path.open("w+b") as file:
        pq.write_table(
            TABLE, file, row_group_size=300, write_page_checksum=True, use_dictionary=["n"]
        )
        seal(file)
    return path


def headers(path: Path) -> list[tuple[int, int]]:
    with path.open("rb") as file:
        return list(_page_headers(file, pq.read_metadata(path)))


def test_headers_and_pages_fill_every_column_without_a_gap(tmp_path):
    path = write_in_groups(tmp_path / "a.parquet")
    found = headers(path)
    assert len(found) == 3 * (2 + 1)  # in each group a dictionary and a page of `n`, one of `text`
    with path.open("rb") as file:
        ends = [sum(read_page_header(file, at)) + at for at, _ in found]
    metadata = pq.read_metadata(path)
    columns = [metadata.row_group(g).column(c) for g in range(3) for c in range(2)]
    starts = {c.dictionary_page_offset or c.data_page_offset for c in columns}
    # Each page begins where one ends, or where a column does.
    assert {at for at, _ in found} - set(ends) <= starts
    assert sum(e - at for e, (at, _) in zip(ends, found, strict=True)) == sum(
        c.total_compressed_size for c in columns
    )


def test_a_flip_in_any_byte_of_any_header_breaks_the_seal(tmp_path):
    path = write_in_groups(tmp_path / "a.parquet")
    whole = path.read_bytes()
    assert check_seal(path)
    for offset, length in headers(path):
        for at in range(offset, offset + length):
            path.write_bytes(whole[:at] + bytes([whole[at] ^ 4]) + whole[at + 1 :])
            with pytest.raises(BrokenSeal, match="not as it was written"):
                check_seal(path)


def test_other_readers_of_parquet_do_not_see_it(tmp_path):
    path = write_in_groups(tmp_path / "a.parquet")
    assert pq.read_table(path).equals(TABLE)
    assert pd.read_parquet(path)["n"].sum() == 899 * 900 // 2
    with duckdb.connect() as connection:
        found = connection.execute(f"select sum(n), count(text) from '{path}'").fetchall()
    assert found == [(899 * 900 // 2, 900)]


def test_a_file_from_before_seals_is_read(tmp_path):
    path = tmp_path / "old.parquet"
    pq.write_table(TABLE, path)
    assert not check_seal(path)
    assert read_checked(path, SCHEMA, b"test.version").num_rows == 900


def test_a_file_that_another_program_wrote_anew_is_named(tmp_path):
    path = tmp_path / "new.parquet"
    write_whole(path, TABLE, tmp_path)
    assert read_whole(path).equals(TABLE)
    pq.write_table(pq.read_table(path).slice(1), path)
    with pytest.raises(StoreError, match="its seal is broken or was taken off"):
        read_checked(path, SCHEMA, b"test.version")


def test_a_header_longer_than_one_read_is_found_whole():
    """A struct by hand: i32 fields 1 to 3, then field 5, a struct with a binary of 9,000 bytes.

    0x15 is "the next field, i32"; 0x2c is "two fields on, struct"; 0x18 is "the next field,
    binary", its length 9,000 as a varint: 0xa8 0x46. Zigzag: 100 is written as 200, 0xc8 0x01.
    """
    inner = b"\x18\xa8\x46" + b"x" * 9000 + b"\x00"
    header = b"\x15\x00" + b"\x15\x02" + b"\x15\xc8\x01" + b"\x2c" + inner + b"\x00"
    file = io.BytesIO(b"PAR1" + header + bytes(100))
    assert read_page_header(file, 4) == (len(header), 100)
    with pytest.raises(IndexError):
        read_page_header(io.BytesIO(header[:50]), 0)


def test_kinds_of_fields_that_are_passed_over():
    """True (0x11), a byte (0x13), a double (0x17), a list of two i32 (0x19 0x25), a list of three
    structs (0x19 0x3c), then the size, 7, in field 3 given by its number (0x05, zigzag 6 and 14).
    """
    header = b"\x11" + b"\x13\x09" + b"\x17" + bytes(8) + b"\x19\x25\x02\x04"
    header += b"\x19\x3c\x00\x00\x00" + b"\x05\x06\x0e" + b"\x00"
    assert read_page_header(io.BytesIO(header), 0) == (len(header), 7)
