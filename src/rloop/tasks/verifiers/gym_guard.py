"""A guard around foreign scorers: while it is up, nothing may be compiled, executed or opened.

reasoning-gym's scorers see text that a model wrote. Those known to run it have checkers of our own;
the guard catches the ones nobody knows of, at the moment they try.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager

_FORBIDDEN = ("compile", "exec", "open", "os.", "subprocess.", "socket.", "ctypes.", "import")


class ExecutionRefused(BaseException):
    """A scorer tried to run text; not an `Exception`, so that no scorer swallows it."""


class _Guard:
    """Set by `guarded`, read by the audit hook, which can never be removed."""

    is_up = False
    is_installed = False
    refused = ""


def _audit(event: str, args: tuple[object, ...]) -> None:
    if _Guard.is_up and event.startswith(_FORBIDDEN):
        _Guard.refused = event
        raise ExecutionRefused(event)


@contextmanager
def guarded() -> Iterator[None]:
    """Raise `ExecutionRefused` when the block compiles, executes, imports or opens anything.

    It is raised at the end of the block too, should a bare `except:` inside have swallowed it.
    """
    if not _Guard.is_installed:
        sys.addaudithook(_audit)
        _Guard.is_installed = True
    _Guard.is_up, _Guard.refused = True, ""
    try:
        yield
    finally:
        _Guard.is_up = False
    if _Guard.refused:
        raise ExecutionRefused(_Guard.refused)
