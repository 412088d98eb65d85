"""Rows of problems: from a file (JSON lines, a JSON list, parquet, CSV or TSV), or from the hub."""

import csv
import gzip
import io
import json
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from rloop.errors import TaskError

Row = dict[str, Any]
HUB_LIMIT_S = 10.0
"""How long the hub may take to say that it is there."""
_TEXT_SUFFIXES = (".jsonl", ".json", ".csv", ".tsv")
SUFFIXES = (*(s + end for s in _TEXT_SUFFIXES for end in (".gz", "")), ".parquet")
_DELIMITERS = {".csv": ",", ".tsv": "\t"}
_DELIMITER_NAMES = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}
_BYTE_ORDER_MARKS = (
    (b"\xff\xfe\x00\x00", "utf-32"),
    (b"\x00\x00\xfe\xff", "utf-32"),
    (b"\xff\xfe", "utf-16"),
    (b"\xfe\xff", "utf-16"),
)


class WrittenFloat(float):
    """A number of a JSON file with the digits that stand there: 0.00001, not 1e-05."""

    text: str

    def __new__(cls, text: str) -> "WrittenFloat":
        """Read the number."""
        number = super().__new__(cls, text)
        number.text = text
        return number


def read_rows(path: Path) -> list[Row]:
    """Return a file's rows, column to value each; a TaskError says what is wrong, and where."""
    if path.is_dir():
        raise TaskError(f"{path} is a folder: name a file in it")
    if not path.is_file():
        raise TaskError(
            f"no file {path}: give a path from the recipe's folder, from the current directory, "
            f"{Path.cwd()}, or a full one"
        )
    suffix = _suffix(path)
    if not suffix:
        raise TaskError(f"{path} has an unsupported file type: use one of {', '.join(SUFFIXES)}")
    try:
        if suffix == ".parquet":
            return _parquet_rows(path)
        text = _read_text(path)
    except TaskError:
        raise
    except (OSError, EOFError, ValueError, NotImplementedError, zlib.error) as error:
        raise TaskError(f"{path} cannot be read: {' '.join(str(error).split())}") from error
    kind = suffix.removesuffix(".gz")
    if kind in _DELIMITERS:
        return list(_csv_rows(path, text, _DELIMITERS[kind]))
    return _json_list(path, text) if kind == ".json" else list(_json_lines(path, text))


def file_stem(path: Path) -> str:
    """Return a file's name without what says its kind: gsm8k_train of gsm8k_train.jsonl.gz."""
    return path.name[: -len(suffix)] if (suffix := _suffix(path)) else path.stem


def _suffix(path: Path) -> str:
    """Return the one of SUFFIXES that a file has, else nothing."""
    return next((suffix for suffix in SUFFIXES if path.name.lower().endswith(suffix)), "")


def _read_text(path: Path) -> str:
    data = path.read_bytes()
    if path.name.lower().endswith(".gz"):
        data = gzip.decompress(data)
    encoding = next((name for mark, name in _BYTE_ORDER_MARKS if data.startswith(mark)), "utf-8")
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise TaskError(
            f"{path}, line {line}, is not {encoding.upper()} (byte 0x{data[error.start]:02x}): "
            "save the file as UTF-8"
        ) from error
    if "\0" in text:
        line = text.count("\n", 0, text.index("\0")) + 1
        raise TaskError(
            f"{path}, line {line}, contains a zero byte, as UTF-16 without a byte order "
            "mark would: "
            "save the file as UTF-8"
        )
    return text.lstrip("\ufeff")


def _load_json(text: str) -> Any:  # noqa: ANN401 (JSON)
    """Return a JSON value; ValueError for what is none, nests too deep, or repeats a key."""
    try:
        return json.loads(text, parse_float=WrittenFloat, object_pairs_hook=_object)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def _object(pairs: list[tuple[str, Any]]) -> Row:
    row = dict(pairs)
    if len(row) < len(pairs):
        raise ValueError(f"the key {_repeated([name for name, _ in pairs])!r} appears twice")
    return row


def _repeated(names: Sequence[str]) -> str | None:
    """Return the first name that stands there more than once."""
    return next((name for name, count in Counter(names).items() if count > 1), None)


def _reason(error: ValueError) -> str:
    if isinstance(error, json.JSONDecodeError):
        return f"{error.msg} (column {error.colno})"
    return str(error)


def _json_lines(path: Path, text: str) -> Iterator[Row]:
    for number, line in enumerate(io.StringIO(text, newline=None), start=1):
        text = line.strip().lstrip("\ufeff")
        if not text:
            continue
        try:
            row = _load_json(text)
        except ValueError as error:
            raise TaskError(
                f"{path}, line {number}, is not JSON: {_reason(error)}. Each line must be one "
                f"whole object{_list_remedy(text)}: fix the line, or delete it."
            ) from error
        if not isinstance(row, dict):
            raise TaskError(
                f"{path}, line {number}, is not a JSON object: {text[:60]}{_list_remedy(text)}"
            )
        yield row


def _list_remedy(line: str) -> str:
    return " (a file that is one JSON list ends in .json)" if line.startswith("[") else ""


def _json_list(path: Path, text: str) -> list[Row]:
    """Return the rows of a JSON list, or of JSON lines under another name."""
    if not text.strip():
        return []
    try:
        value = _load_json(text)
    except ValueError as error:
        if isinstance(error, json.JSONDecodeError) and error.msg == "Extra data":
            return list(_json_lines(path, text))
        line = f", line {error.lineno}," if isinstance(error, json.JSONDecodeError) else ""
        raise TaskError(f"{path}{line} is not JSON: {_reason(error)}. Fix it") from error
    if isinstance(value, dict):
        return [_only_row(path, value)]
    rows = value if isinstance(value, list) else [value]
    for number, row in enumerate(rows, start=1):
        if not isinstance(row, dict):
            raise TaskError(
                f"{path}, item {number} of the list, is not a JSON object: {str(row)[:60]}"
            )
    return rows


def _only_row(path: Path, value: Row) -> Row:
    """Return an object of plain values; TaskError for one that holds a table."""
    inner = [name for name, held in value.items() if isinstance(held, list | dict)]
    if inner:
        raise TaskError(
            f"{path} is one JSON object with the keys {', '.join(value)}, not a list of problems: "
            f"save the list alone (is it {inner[0]!r}?), [{{...}}, {{...}}]"
        )
    return value


def _parquet_rows(path: Path) -> list[Row]:
    import pyarrow as pa
    import pyarrow.parquet

    table = pa.parquet.ParquetFile(path).read()
    if (repeated := _repeated(table.column_names)) is not None:
        raise TaskError(f"{path} has two columns named {repeated!r}: rename one")
    for index, column in enumerate(table.schema):
        if column.type == pa.float32():  # 0.1, not 0.10000000149
            shortest = table[index].cast(pa.string()).cast(pa.float64())
            table = table.set_column(index, column.name, shortest)
    rows: list[Row] = table.to_pylist()
    return rows


def _csv_rows(path: Path, text: str, delimiter: str) -> Iterator[Row]:
    lines = _csv_lines(path, text, delimiter)
    _, header = next(lines, (0, []))
    names = _column_names(path, header, delimiter)
    for number, cells in lines:
        if len(cells) != len(names):
            raise TaskError(
                f"{path}, line {number}, has {len(cells)} cells and the header {len(names)}: put a "
                f"cell that holds {_DELIMITER_NAMES[delimiter]}, quotes or line breaks in double "
                "quotes, and leave no cell out"
            )
        yield dict(zip(names, cells, strict=True))


def _column_names(path: Path, header: Sequence[str], delimiter: str) -> list[str]:
    """Return the header's names; one that is empty, as pandas' index has it, goes by its place."""
    for other, name in _DELIMITER_NAMES.items():
        if len(header) == 1 and other != delimiter and other in header[0]:
            kind = {",": "name it .csv", "\t": "name it .tsv"}.get(
                other, f"save it with {_DELIMITER_NAMES[delimiter]}"
            )
            raise TaskError(
                f"{path}, line 1, has one column, {header[0]!r:.60}, so its cells seem to be "
                f"separated by {name}: {kind}"
            )
    names = [name.strip() or f"column {place}" for place, name in enumerate(header, start=1)]
    if (repeated := _repeated(names)) is not None:
        raise TaskError(f"{path}, line 1, names the column {repeated!r} twice: rename one")
    return names


def _csv_lines(path: Path, text: str, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """Yield the cells of each row that is not empty, and the line where it begins."""
    # `problem, answer`: what stands behind the space may be quoted.
    is_spaced = f"{delimiter} " in text.partition("\n")[0]
    reader = csv.reader(
        io.StringIO(text, newline=""),
        delimiter=delimiter,
        strict=True,
        skipinitialspace=is_spaced,
    )
    while True:
        number = reader.line_num + 1
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            raise TaskError(
                f"{path}, line {number}, cannot be read ({error}): close every double quote, and "
                "write one inside a cell twice"
            ) from error
        if any(cell.strip() for cell in cells):
            yield number, cells


def read_hub_rows(name: str, config: str | None, split: str) -> list[Row]:
    """Return the rows of one split on the hub; TaskError says what is missing or out of reach."""
    try:
        import datasets
    except ImportError as error:
        raise TaskError(
            f"hub:{name} needs the package datasets: pip install 'rloop-rl[hub]'"
        ) from error
    where = f"hub:{name}, split {split!r},"
    if silence := why_out_of_reach(name):
        raise TaskError(
            f"{where} cannot be read: the Hub does not answer ({silence}): check the connection, "
            "set HF_HUB_OFFLINE=1 to read what is in its cache, or put the file in tasks.data_dir"
        )
    try:
        return [dict(row) for row in datasets.load_dataset(name, config, split=split)]
    except (OSError, ValueError, RuntimeError, KeyError) as error:
        raise TaskError(
            f"{where} cannot be read ({_one_line(error)}): check the name, the split and the "
            "connection, or put the file in tasks.data_dir"
        ) from error
    except Exception as error:  # DatasetGenerationError, and what else `datasets` has
        raise TaskError(
            f"{where} exists but cannot be read ({_one_line(_cause(error))}): its files have "
            "different columns, or one is damaged. Choose some with params: "
            "{name: CONFIGURATION}, or "
            "download one and use file:PATH"
        ) from error


def why_out_of_reach(name: str) -> str:
    """Return why the Hub does not answer about a data set; nothing when it does, or is not asked.

    `datasets` by itself would try again for half a minute.
    """
    from huggingface_hub import HfApi, constants
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    if constants.HF_HUB_OFFLINE:
        return ""
    try:
        HfApi().dataset_info(name, timeout=HUB_LIMIT_S)
    except (HfHubHTTPError, HFValidationError):
        return ""  # an answer, which `datasets` puts into words
    except Exception as error:  # noqa: BLE001 -- whatever the hub's HTTP client of the day raises
        return str(error) or type(error).__name__
    return ""


def _cause(error: BaseException) -> BaseException:
    """Return what an error was raised from at first: the outer ones say only that there was one."""
    while error.__cause__ is not None:
        error = error.__cause__
    return error


def _one_line(error: BaseException) -> str:
    """Return an error's words on one line, the middle left out where there are many."""
    words = " ".join(str(error).split()) or type(error).__name__
    return words if len(words) <= 320 else f"{words[:200]} ... {words[-100:]}"
