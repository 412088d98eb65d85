"""Rows from a file of problems: JSON lines, gzip'd or not, parquet, CSV."""

import csv
import gzip
import json
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rloop.errors import TaskError

Row = dict[str, Any]
SUFFIXES = (".jsonl.gz", ".jsonl", ".parquet", ".csv")


def read_rows(path: Path) -> list[Row]:
    """Return a file's rows, column to value each; a TaskError says what is wrong."""
    if not path.is_file():
        raise TaskError(
            f"no file {path}: give a path relative to the current directory or a full one"
        )
    if not path.name.endswith(SUFFIXES):
        raise TaskError(f"{path} is of no known kind: use one of {', '.join(SUFFIXES)}")
    try:
        if path.suffix == ".parquet":
            return _parquet_rows(path)
        return list(_csv_rows(path) if path.suffix == ".csv" else _json_rows(path))
    except TaskError:
        raise
    except (OSError, EOFError, ValueError, csv.Error, zlib.error) as error:
        raise TaskError(f"{path} cannot be read: {error}") from error


def file_stem(path: Path) -> str:
    """Return a file's name without what says its kind: gsm8k_train of gsm8k_train.jsonl.gz."""
    suffix = next((suffix for suffix in SUFFIXES if path.name.endswith(suffix)), path.suffix)
    return path.name.removesuffix(suffix)


def _json_rows(path: Path) -> Iterator[Row]:
    open_text = gzip.open if path.suffix == ".gz" else open
    with open_text(path, "rt", encoding="utf-8") as lines:
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except json.JSONDecodeError as error:
                raise TaskError(
                    f"{path}, line {number}, is not JSON: {error.msg} at column {error.colno}. "
                    "Mend the line, or delete it."
                ) from error
            if not isinstance(row, dict):
                raise TaskError(f"{path}, line {number}, is not a JSON object: {line.strip()[:60]}")
            yield row


def _parquet_rows(path: Path) -> list[Row]:
    import pyarrow.parquet

    rows: list[Row] = pyarrow.parquet.read_table(path).to_pylist()
    return rows


def _csv_rows(path: Path) -> Iterator[Row]:
    with path.open(newline="", encoding="utf-8-sig") as lines:
        yield from csv.DictReader(lines)
