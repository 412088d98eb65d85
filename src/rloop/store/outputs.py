"""Files and folders for others, written whole or not at all, from streams of tables."""

import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from rloop.errors import ConfigError, StoreError
from rloop.store.parquet import GROUP_BYTES

SHARD_BYTES = 2**29
"""A shard of several, before compression."""
SUFFIXES = {".parquet": "parquet", ".csv": "csv", ".jsonl": "json"}


@contextmanager
def new_path(target: Path) -> Iterator[Path]:
    """Yield a path to write a file or a folder at; it becomes `target` when all went well."""
    if target.exists():
        raise ConfigError(f"{target} exists. Choose another name.")
    if not target.parent.is_dir():
        raise StoreError(f"{target} could not be written: there is no folder {target.parent}.")
    with tempfile.TemporaryDirectory(prefix=".export-", dir=target.parent) as folder:
        temporary = Path(folder) / target.name
        yield temporary
        temporary.rename(target)


def write_file(path: Path, tables: Iterable[pa.Table], schema: pa.Schema) -> int:
    """Write a .parquet, .jsonl or .csv file; return the number of rows."""
    if path.suffix == ".parquet":
        return _write_parquet(path, _merged(tables, GROUP_BYTES), schema)
    counted = _Counted(tables)
    batches = (batch for table in counted for batch in table.to_batches())
    name = str(path).replace("'", "''")
    with duckdb.connect() as connection:
        # One thread: the stream is read by one, and rows held back for their order cost memory.
        connection.execute("set threads = 1")
        connection.register("rows", pa.RecordBatchReader.from_batches(schema, batches))
        try:
            connection.execute(f"copy rows to '{name}' (format {SUFFIXES[path.suffix]})")
        except duckdb.Error as error:
            told = StoreError(f"{path.name} could not be written: {error}")
            raise counted.error or told from error
    return counted.num_rows


def write_shards(folder: Path, name: str, tables: Iterable[pa.Table], schema: pa.Schema) -> int:
    """Write `name-00000.parquet`, ... of bounded size into a folder; return the number of rows.

    No file is written when there is no row.
    """
    folder.mkdir(parents=True, exist_ok=True)
    num_rows = 0
    for number, shard in enumerate(_shards(_merged(tables, GROUP_BYTES))):
        num_rows += _write_parquet(folder / f"{name}-{number:05d}.parquet", shard, schema)
    return num_rows


def _write_parquet(path: Path, tables: Iterable[pa.Table], schema: pa.Schema) -> int:
    counted = _Counted(tables)
    with pq.ParquetWriter(path, schema, compression="zstd", write_page_checksum=True) as writer:
        for table in counted:
            writer.write_table(table.cast(schema), row_group_size=max(1, table.num_rows))
    return counted.num_rows


def _merged(tables: Iterable[pa.Table], num_bytes: int) -> Iterator[pa.Table]:
    """Yield the same rows in tables of about so many bytes; none without rows."""
    held: list[pa.Table] = []
    size = 0
    for table in filter(len, tables):
        held.append(table)
        size += table.nbytes
        if size >= num_bytes:
            yield pa.concat_tables(held)
            held, size = [], 0
    if held:
        yield pa.concat_tables(held)


def _shards(tables: Iterator[pa.Table]) -> Iterator[Iterator[pa.Table]]:
    """Yield iterators over the tables, each of about a shard's bytes, to be used in turn."""

    def shard(first: pa.Table) -> Iterator[pa.Table]:
        size = first.nbytes
        yield first
        while size < SHARD_BYTES and (table := next(tables, None)) is not None:
            size += table.nbytes
            yield table

    while (first := next(tables, None)) is not None:
        yield shard(first)


class _Counted:
    """Tables that are counted while they pass."""

    def __init__(self, tables: Iterable[pa.Table]) -> None:
        self._tables = tables
        self.num_rows = 0
        self.error: StoreError | None = None
        """What ended them early; DuckDB hands on its text only."""

    def __iter__(self) -> Iterator[pa.Table]:
        try:
            for table in self._tables:
                self.num_rows += table.num_rows
                yield table
        except StoreError as error:
            self.error = error
            raise
