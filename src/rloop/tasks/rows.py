"""Rows to problems: which column holds what, which rows are wanted, what goes along as metadata."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from rloop.errors import ConfigError, TaskError
from rloop.types import Problem

Row = dict[str, Any]
_USUAL_COLUMNS = {
    "problem": ("problem", "question"),
    "answer": ("answer",),
    "solution": ("solution",),
    "id": ("id",),
}


def filter_rows(rows: Sequence[Row], filters: Mapping[str, Any], source: str) -> list[Row]:
    """Keep rows whose columns equal the value, or one of the values, that `filters` gives.

    Values are compared as they are and as text, so that 5 in a recipe finds "5" in a CSV file.
    """
    for column in filters:
        if rows and not any(column in row for row in rows):
            raise TaskError(_no_column(f"filters: {column}", column, rows[0], source))
    return [row for row in rows if all(_fits(row, *wanted) for wanted in filters.items())]


def _fits(row: Row, column: str, wanted: object) -> bool:
    choices = wanted if isinstance(wanted, list | tuple) else [wanted]
    value = row.get(column)
    return any(value == choice or str(value) == str(choice) for choice in choices)


def find_columns(row: Row, fields: Mapping[str, str], source: str) -> dict[str, str]:
    """Return the column of `problem`, `answer` and, where there is one, `solution` and `id`."""
    unknown = set(fields) - set(_USUAL_COLUMNS)
    if unknown:
        names = ", ".join(_USUAL_COLUMNS)
        raise ConfigError(f"fields may name {names}, got {sorted(unknown)[0]!r}.")
    columns = {}
    for name, usual in _USUAL_COLUMNS.items():
        column = fields.get(name) or next((c for c in usual if c in row), None)
        if column in row:
            columns[name] = str(column)
        elif name in fields or name in ("problem", "answer"):
            raise TaskError(_no_column(f"fields: {name}", column or usual[0], row, source))
    return columns


def to_problem(
    row: Row, columns: Mapping[str, str], *, index: int, place: str, verifier: str
) -> Problem:
    """Return the problem a row holds; `place` is `task/split`, all other columns are metadata."""
    key = _text(row.get(columns["id"])) if "id" in columns else str(index)
    problem_id = f"{place}/{key}"
    question, answer = _text(row.get(columns["problem"])), _text(row.get(columns["answer"]))
    _check_unicode(f"{problem_id}{question}{answer}", index, place)
    for name, text in (("problem", question), ("answer", answer)):
        if not text.strip():
            value = row.get(columns[name])
            raise TaskError(
                f"{problem_id} (row {index + 1}) has no {name}: column {columns[name]!r} holds "
                f"{value!r:.60}. Mend the row, or leave it out with `filters`"
            )
    rest = {name: value for name, value in row.items() if name not in columns.values()}
    return Problem(
        problem_id=problem_id,
        task=place.rpartition("/")[0],
        question=question,
        answer=answer,
        verifier=verifier,
        solution=_text(row.get(columns["solution"])) or None if "solution" in columns else None,
        metadata=json.loads(json.dumps(rest, default=str)),
    )


def _check_unicode(text: str, index: int, place: str) -> None:
    """Raise TaskError for half a character: no file and no tokenizer can hold it."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise TaskError(
            f"{place}, row {index + 1}, holds half a character ({text[error.start]!r}, a lone "
            "surrogate). Write the file as UTF-8."
        ) from error


def _text(value: object) -> str:
    """Return text and numbers as text, 5.0 as 5; nothing for anything else."""
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
        value = int(value)
    return str(value) if isinstance(value, str | int | float) and value == value else ""


def _no_column(setting: str, column: str, row: Row, source: str) -> str:
    return f"{source} has no column {column!r} ({setting}); it has {', '.join(map(str, row))}"
