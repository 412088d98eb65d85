"""The command line: arguments to calls; the only place that exits."""

from rloop.cli.commands import app, main

__all__ = ["app", "main"]
