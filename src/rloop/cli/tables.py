"""Results on standard output: rows as an aligned table for people, or as JSON for programs."""

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from rich.text import Text

from rloop.text import format_value

PIPE_WIDTH = 10_000
"""Columns where standard output is no terminal: wide enough that no row is wrapped."""


def print_table(columns: Sequence[str], rows: Sequence[Sequence[object]], title: str = "") -> None:
    """Print rows under their column names; numbers to the right, text as it is."""
    table = Table(box=SIMPLE_HEAD, title=title or None, title_justify="left", pad_edge=False)
    for index, name in enumerate(columns):
        is_number = bool(rows) and all(isinstance(row[index], int | float) for row in rows)
        table.add_column(Text(name), justify="right" if is_number else "left", overflow="fold")
    for row in rows:
        table.add_row(*(Text(format_value(value)) for value in row))
    if sys.stdout.isatty():
        Console().print(table)
        return
    console = Console(width=PIPE_WIDTH)
    with console.capture() as capture:
        console.print(table)
    sys.stdout.writelines(f"{line.rstrip()}\n" for line in capture.get().splitlines())


def print_json(found: Any) -> None:  # noqa: ANN401 (a record or a list of them)
    """Print one record, or a list of records, as JSON with one key a field."""
    plain = as_mappings(found) if isinstance(found, list) else as_mappings([found])[0]
    sys.stdout.write(json.dumps(plain, indent=2, default=str) + "\n")


def print_records(rows: list[Any], *, as_json: bool) -> None:
    """Print records as JSON, or as a table whose columns are their fields."""
    if as_json:
        return print_json(rows)
    records = as_mappings(rows)
    print_table(list(records[0]) if records else [], [list(record.values()) for record in records])


def as_mappings(rows: Sequence[Any]) -> list[dict[str, Any]]:
    """Return records (dataclasses or mappings) as mappings from field to value."""
    return [row if isinstance(row, dict) else asdict(row) for row in rows]


@contextmanager
def progress_bar(what: str) -> Iterator[Callable[[int, int], None]]:
    """Show a bar on standard error while a block works, where that is a terminal.

    The block calls what it is given with how much is done, of how much.
    """
    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bars:
        bar = bars.add_task(what, total=None)
        yield lambda done, total: bars.update(bar, completed=done, total=total)
