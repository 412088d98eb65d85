"""The reference pages say what the code says."""

import re
import runpy
from pathlib import Path

import pytest
import typer

from rloop.cli import app

GENERATE = Path(__file__).parents[2] / "docs" / "reference" / "generate.py"
GENERATED = runpy.run_path(str(GENERATE))
COMMANDS = dict(GENERATED["commands"](typer.main.get_command(app), "rloop"))


@pytest.mark.parametrize("path", GENERATED["pages"](), ids=lambda path: path.name)
def test_a_generated_page_is_up_to_date(path):
    text = GENERATED["pages"]()[path]
    assert path.read_text() == text, "run `make docs`"


def test_the_commands_are_those_of_the_design():
    assert list(COMMANDS) == [
        "rloop run",
        "rloop resume",
        "rloop check",
        "rloop judge",
        "rloop eval",
        "rloop report",
        "rloop compare",
        "rloop sweep",
        "rloop view",
        "rloop export",
        "rloop config",
        "rloop doctor",
        "rloop store sql",
        "rloop store show",
        "rloop store export",
        "rloop store verify",
        "rloop store rescore",
    ]


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_says_what_it_does_and_shows_an_example(name):
    text = COMMANDS[name].help or ""
    assert text.split()[0][0].isupper()
    assert f"Example: {name}" in text


@pytest.mark.parametrize("name", COMMANDS)
def test_every_parameter_of_a_command_has_help(name):
    silent = [p.name for p in COMMANDS[name].params if p.name != "help" and not p.help]
    assert silent == []


def test_every_promise_names_tests_that_exist():
    tests = Path(__file__).parents[1]
    text = (GENERATE.parents[1] / "explanation" / "reliability.md").read_text()
    source = ""
    for quoted in re.findall(r"`([^`]+)`", text):
        path, _, name = quoted.rpartition(": ")
        file = path if path.endswith(".py") else name
        if file.endswith(".py"):
            source = (tests / file).read_text()
        if name.startswith("test_"):
            assert f"def {name}(" in source, quoted
