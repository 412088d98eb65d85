"""A checksum of what parquet leaves without one: the footer and the headers of the pages.

Parquet's own checksums cover the bytes of pages. A flipped bit in a page's header or in the footer
can still give fewer rows, other values or a crash, unnoticed. So a seal stands between the last
page and the footer, where readers of parquet do not look:

    u64 offset, u32 length    of each page header, in order
    16 bytes                  blake2b of the above, of those headers and of the footer
    u32 number of headers, then b"rloopsum"

The footer says that there is one (`rloop.seal`), so that a broken seal is not taken for none.
"""

import hashlib
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import pyarrow.parquet as pq

from rloop.store.thrift import read_page_header

SEAL_KEY = b"rloop.seal"
"""In a parquet file's metadata; its value is the version of the form above."""
_MAGIC = b"rloopsum"
_ENTRY = struct.Struct("<QI")
_END = struct.Struct("<16sI8s")
_FOOTER_END = struct.Struct("<I4s")


class BrokenSeal(Exception):
    """The bytes are not those that were sealed."""


def seal(file: BinaryIO) -> None:
    """Put a seal into a parquet file that is open for reading and writing."""
    file.flush()
    metadata = pq.read_metadata(file)
    headers = list(_page_headers(file, metadata))
    start, footer = _footer(file)
    entries = b"".join(_ENTRY.pack(*place) for place in headers)
    file.seek(start)
    file.truncate()
    digest = _digest(file, headers, entries, footer)
    file.seek(start)
    file.write(entries + _END.pack(digest, len(headers), _MAGIC) + footer)


def check_seal(path: Path) -> bool:
    """Return whether a parquet file has a seal; BrokenSeal when it does not hold."""
    with path.open("rb") as file:
        start, footer = _footer(file)
        if start < _END.size:
            return False
        file.seek(start - _END.size)
        digest, count, magic = _END.unpack(file.read(_END.size))
        if magic != _MAGIC:
            return False
        first = start - _END.size - count * _ENTRY.size
        if first < 0:
            raise BrokenSeal("its seal names more pages than there is room for")
        file.seek(first)
        entries = file.read(count * _ENTRY.size)
        headers = list(_ENTRY.iter_unpack(entries))
        if any(offset + length > first for offset, length in headers):
            raise BrokenSeal("its seal names bytes beyond the pages")
        if _digest(file, headers, entries, footer) != digest:
            raise BrokenSeal("its footer or a page header is not as it was written")
    return True


def _footer(file: BinaryIO) -> tuple[int, bytes]:
    """Return where a parquet file's footer begins, and all from there on."""
    size = file.seek(0, 2)
    if size < _FOOTER_END.size:
        raise BrokenSeal(f"it has {size} bytes")
    file.seek(size - _FOOTER_END.size)
    length, magic = _FOOTER_END.unpack(file.read())
    start = size - _FOOTER_END.size - length
    if magic != b"PAR1" or start < 0:
        raise BrokenSeal("it does not end as a parquet file does")
    file.seek(start)
    return start, file.read()


def _page_headers(file: BinaryIO, metadata: pq.FileMetaData) -> Iterator[tuple[int, int]]:
    """Yield offset and length of every page header (bytes)."""
    for number in range(metadata.num_row_groups):
        group = metadata.row_group(number)
        for index in range(group.num_columns):
            column = group.column(index)
            at = column.dictionary_page_offset or column.data_page_offset
            end = at + column.total_compressed_size
            while at < end:
                length, body = read_page_header(file, at)
                yield at, length
                at += length + body


def _digest(file: BinaryIO, headers: list[tuple[int, int]], entries: bytes, footer: bytes) -> bytes:
    found = hashlib.blake2b(entries, digest_size=16)
    for offset, length in headers:
        file.seek(offset)
        found.update(file.read(length))
    found.update(footer)
    return found.digest()
