"""Warnings by `logging` reach the console, inside the block only."""

import io
import logging

import pytest

from rloop.observe.console import Console
from rloop.observe.heard import heard


def test_a_warning_of_rloop_is_a_line_of_the_console():
    screen = io.StringIO()
    with heard(Console(screen)):
        logging.getLogger("rloop.engines").warning("Out of memory with %s=%d", "a.b", 8)
        logging.getLogger("rloop.engines").info("not worth a line")
        logging.getLogger("other").error("not ours")
    assert screen.getvalue() == "Warning: Out of memory with a.b=8\n"


def test_nothing_is_heard_after_a_block_that_failed():
    screen = io.StringIO()
    with pytest.raises(KeyError), heard(Console(screen)):
        raise KeyError("x")
    logging.getLogger("rloop").warning("later")
    assert screen.getvalue() == ""
