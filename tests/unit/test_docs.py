"""The reference pages say what the code says."""

import re
import runpy
from pathlib import Path

import pytest
import typer
from doubles_runs import begin, logged, scripted, toy_recipe

from rloop.cli import app
from rloop.loop import alarms
from rloop.store.schema import SCHEMA

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
        "rloop new",
        "rloop recipes",
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


def explained(page: str) -> set[str]:
    """Return what stands in backquotes on a reference page."""
    return set(re.findall(r"`([^`]+)`", (GENERATE.parent / page).read_text()))


def test_every_alarm_is_explained():
    source = Path(alarms.__file__).read_text()
    assert set(re.findall(r'what="(\w+)"', source)) - explained("alarms.md") == set()


def test_every_column_of_a_trajectory_is_explained():
    assert set(SCHEMA.names) - explained("run-directory.md") == set()


def test_every_file_of_a_run_and_every_logged_metric_is_explained(tmp_path):
    recipe = toy_recipe(tmp_path)
    code, run_dir = begin(recipe, tmp_path, scripted())
    assert code == 0
    paths = " ".join(explained("run-directory.md"))
    assert [p.name for p in run_dir.iterdir() if p.name not in paths] == []
    keys = {key for line in logged(run_dir) for key in line if "/" in key}
    names = {re.sub(r"(_diff)?(_low|_high)?$", "", key.split("/")[-1], count=1) for key in keys}
    patterns = {"avg@N": r"avg@\d+", "maj@N": r"maj@\d+", "pass@K": r"pass@\d+"}
    patterns["cover@TAU"] = r"cover@[\d.]+"
    for name, pattern in patterns.items():
        names = {name if re.fullmatch(pattern, found) else found for found in names}
    assert names - explained("metrics.md") - {"kl_base_mean"} == set()
