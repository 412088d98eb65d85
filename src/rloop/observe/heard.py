"""Warnings that rooms below the loop give by `logging`, shown on the console."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from rloop.observe.console import Console


class _Handler(logging.Handler):
    """Hands warnings to a console."""

    def __init__(self, console: Console) -> None:
        super().__init__(logging.WARNING)
        self._console = console

    def emit(self, record: logging.LogRecord) -> None:
        self._console.warn(record.getMessage())


@contextmanager
def heard(console: Console) -> Iterator[None]:
    """Show what the logger `rloop` warns of inside the block; nothing else is changed."""
    logger, handler = logging.getLogger("rloop"), _Handler(console)
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
