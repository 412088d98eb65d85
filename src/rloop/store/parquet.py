"""Parquet files that are whole or not there, and that say what they are.

Knows nothing of what the columns mean.
"""

from collections.abc import Iterator, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from rloop.disk import written_whole
from rloop.errors import StoreError
from rloop.store.seal import SEAL_KEY, BrokenSeal, check_seal, seal

IntArray = npt.NDArray[np.int64]
GROUP_BYTES = 2**27
"""A row group, before compression: what is held at once when rows are taken or streamed."""


def write_whole(path: Path, table: pa.Table, run_dir: Path, **options: Any) -> None:  # noqa: ANN401 (pyarrow's own)
    """Write a sealed parquet file under a temporary name, then rename it; an old one is replaced.

    Raises StoreError when the disk is full; nothing is left behind then. `options` go to pyarrow.
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
    # Sealed in memory, where looking at every page header costs no call of the system.
    memory = BytesIO(written.getvalue())
    seal(memory)
    with written_whole(path, run_dir) as file:
        file.write(memory.getbuffer())


def read_checked(
    path: Path, schema: pa.Schema, key: bytes, older: Sequence[pa.Schema] = ()
) -> pq.FileMetaData:
    """Return a file's footer after checking that it is one of ours, whole, and of a version read.

    `key` is the metadata key of the version that `schema` and the `older` ones carry.
    """
    try:
        is_sealed = check_seal(path)
        metadata = pq.read_metadata(path)
        found = metadata.schema.to_arrow_schema()
    except (pa.ArrowException, OSError, UnicodeDecodeError, BrokenSeal) as error:
        raise damaged(path, error) from error
    if not is_sealed and SEAL_KEY in (found.metadata or {}):
        raise damaged(path, BrokenSeal("its seal is broken or was taken off"))
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
            f"version {' and '.join(known)}. Read it with the rloop that wrote it."
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
        return _in_full(file.read(wanted and wanted.names), wanted)
    except (pa.ArrowException, OSError) as error:
        raise damaged(path, error) from error


def read_groups(path: Path, wanted: pa.Schema | None = None) -> Iterator[pa.Table]:
    """Yield the row groups of a file, as `read_whole` reads it."""
    try:
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            for number in range(file.num_row_groups):
                found = file.read_row_group(number, wanted and wanted.names)
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


def damaged(path: Path, error: Exception) -> StoreError:
    """Return the error for a file that cannot be read."""
    lines = str(error).splitlines() or [type(error).__name__]
    return StoreError(
        f"{path} is torn or not a parquet file ({lines[0]}); restore it from a backup, or go on "
        "without it: `rloop store verify RUN --set-aside` says what that costs."
    )
