"""Parquet files that are whole or not there, and that say what they are.

Parquet has checksums of pages, not of its footer (row counts, statistics, names, types). So each
file has one between the last page and the footer, where other readers do not look:

    16 bytes  blake2b of the footer
    u32       0 (files of earlier versions: the number of pages, and the hash covers more)
    8 bytes   rloopsum

The footer says that there is one (`rloop.seal`), so that a broken one is not taken for none. Page
headers have no checksum; `rloop store verify` counts the rows. Knows nothing of columns' meaning.
"""

import hashlib
import struct
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from rloop.disk import written_whole
from rloop.errors import StoreError

SEAL_KEY = b"rloop.seal"
_CHECKSUM = struct.Struct("<16sI8s")
_MAGIC = b"rloopsum"
_FOOTER_END = struct.Struct("<I4s")
IntArray = npt.NDArray[np.int64]
GROUP_BYTES = 2**27
"""A row group, before compression: what is held at once when rows are taken or streamed."""


def write_whole(path: Path, table: pa.Table, run_dir: Path, **options: Any) -> None:  # noqa: ANN401 (pyarrow's own)
    """Write a parquet file with checksums under a temporary name, then rename it.

    An old file is replaced. Raises StoreError when the disk is full; nothing is left behind then.
    `options` go to pyarrow.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    marks = {**(table.schema.metadata or {}), SEAL_KEY: b"1"}
    written = pa.BufferOutputStream()
    pq.write_table(
        table.replace_schema_metadata(marks),
        written,
        write_page_checksum=True,
        row_group_size=max(1, table.num_rows * GROUP_BYTES // max(1, table.nbytes)),
        **{"compression": "zstd", **options},
    )
    data = memoryview(written.getvalue())
    length, _ = _FOOTER_END.unpack(data[-_FOOTER_END.size :])
    start = len(data) - _FOOTER_END.size - length
    digest = hashlib.blake2b(data[start:], digest_size=16).digest()
    with written_whole(path, run_dir) as file:
        file.write(data[:start])
        file.write(_CHECKSUM.pack(digest, 0, _MAGIC))
        file.write(data[start:])


def read_checked(
    path: Path, schema: pa.Schema, key: bytes, older: Sequence[pa.Schema] = ()
) -> pq.FileMetaData:
    """Return a file's footer after checking that it is one of ours, whole, and of a version read.

    `key` is the metadata key of the version that `schema` and the `older` ones carry.
    """
    try:
        is_sealed = _check_footer(path)
        metadata = pq.read_metadata(path)
        found = metadata.schema.to_arrow_schema()
    except (pa.ArrowException, OSError, UnicodeDecodeError, _Broken) as error:
        raise damaged(path, error) from error
    if not is_sealed and SEAL_KEY in (found.metadata or {}):
        raise damaged(path, _Broken("its checksum is missing"))
    known = {known.metadata[key].decode(): known for known in (*older, schema)}
    version = (found.metadata or {}).get(key, b"").decode(errors="replace")
    if not version:
        raise StoreError(
            f"{path} was not written by rloop (it has no {key.decode()} version); move it "
            "elsewhere."
        )
    if version not in known:
        raise StoreError(
            f"{path} has {key.decode()} version {version}, this rloop reads "
            f"version {', '.join(known)}. Read it with the rloop that wrote it."
        )
    if not found.equals(known[version]):
        odd = set(found).symmetric_difference(known[version]) or {"their order"}
        raise StoreError(
            f"{path} has other columns than rloop writes: "
            f"{', '.join(sorted(str(field) for field in odd))}; move it elsewhere."
        )
    return metadata


def read_whole(path: Path, wanted: pa.Schema | None = None) -> pa.Table:
    """Read the wanted columns of a file, page by page against their checksums.

    One that the file lacks, since an older rloop wrote it, is null.
    """
    try:
        file = pq.ParquetFile(path, page_checksum_verification=True)
        found = file.read(wanted and wanted.names)
    except (pa.ArrowException, OSError) as error:
        raise damaged(path, error) from error
    _check_rows(path, found, file.metadata.num_rows)
    return _in_full(found, wanted)


def read_groups(path: Path, wanted: pa.Schema | None = None) -> Iterator[pa.Table]:
    """Yield the row groups of a file, as `read_whole` reads it."""
    try:
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            for number in range(file.num_row_groups):
                found = file.read_row_group(number, wanted and wanted.names)
                _check_rows(path, found, file.metadata.row_group(number).num_rows)
                yield _in_full(found, wanted)
    except (pa.ArrowException, OSError) as error:
        raise damaged(path, error) from error


def read_rows(path: Path, rows: IntArray, wanted: pa.Schema) -> pa.Table:
    """Read some rows of a file, in the order given; only the row groups that hold them are read."""
    try:
        file = pq.ParquetFile(path, page_checksum_verification=True)
        sizes = [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)]
        ends = np.cumsum(sizes)
        groups = np.searchsorted(ends, rows, side="right")
        chosen, position = np.unique(groups, return_inverse=True)
        read = file.read_row_groups(chosen.tolist(), wanted.names, use_threads=False)
    except (pa.ArrowException, OSError) as error:
        raise damaged(path, error) from error
    _check_rows(path, read, int(np.asarray(sizes)[chosen].sum()))
    skipped = (ends[chosen] - np.cumsum(np.asarray(sizes)[chosen]))[position]
    return _in_full(read, wanted).take(rows - skipped)


def _in_full(table: pa.Table, wanted: pa.Schema | None) -> pa.Table:
    """Return the wanted columns in order, those that are not there as nulls."""
    if wanted is None:
        return table
    there = set(table.column_names)
    columns = [
        table[field.name] if field.name in there else pa.nulls(len(table), field.type)
        for field in wanted
    ]
    return pa.table(columns, schema=wanted)


class _Broken(Exception):
    """The bytes are not those that were written."""


def _check_footer(path: Path) -> bool:
    """Return whether a parquet file has our checksum; raise `_Broken` when it does not hold."""
    with path.open("rb") as file:
        size = file.seek(0, 2)
        if size < _FOOTER_END.size:
            raise _Broken(f"it has {size} bytes")
        file.seek(size - _FOOTER_END.size)
        length, magic = _FOOTER_END.unpack(file.read())
        start = size - _FOOTER_END.size - length
        if magic != b"PAR1" or start < 0:
            raise _Broken("it does not end like a parquet file")
        end = start - _CHECKSUM.size
        if end < 0:
            return False
        file.seek(end)
        digest, num_pages, mark = _CHECKSUM.unpack(file.read(_CHECKSUM.size))
        footer = file.read()
    if mark != _MAGIC:
        return False
    # What else the hash of an earlier version covers is no longer read: such a footer is trusted.
    if num_pages == 0 and hashlib.blake2b(footer, digest_size=16).digest() != digest:
        raise _Broken("its footer has changed since it was written")
    return True


def _check_rows(path: Path, table: pa.Table, num_rows: int) -> None:
    """Raise StoreError where pages hold other rows than the footer says."""
    if table.num_rows != num_rows:
        raise damaged(path, _Broken(f"{table.num_rows:,} of {num_rows:,} rows can be read"))


def damaged(path: Path, error: Exception) -> StoreError:
    """Return the error for a file that cannot be read."""
    lines = str(error).splitlines() or [type(error).__name__]
    return StoreError(
        f"{path} is torn or not a parquet file ({lines[0]}); restore it from a backup, or continue "
        "without it: `rloop store verify RUN --quarantine` says what is lost."
    )
