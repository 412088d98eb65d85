"""House rules that a machine can check: sizes, layers, light doors, recipes that load."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from rloop.recipe.load import load_recipe

ROOT = Path(__file__).parents[2]
SOURCES = sorted((ROOT / "src").rglob("*.py"))
TESTS = sorted((ROOT / "tests").rglob("*.py"))
RECIPES = sorted((ROOT / "recipes").glob("*.yaml"))
INITS = [p for p in SOURCES if p.name == "__init__.py" and p.parent.name not in ("rloop", "cli")]
HEAVY = ("torch", "transformers", "trl", "verl", "ray", "vllm")


def run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def tool(name: str) -> str:
    return str(Path(sys.executable).with_name(name))


def test_no_file_is_longer_than_a_reader_can_hold():
    long = {path.name: len(path.read_text().splitlines()) for path in SOURCES}
    assert {name: lines for name, lines in long.items() if lines > 400} == {}
    tests = {path.name: len(path.read_text().splitlines()) for path in TESTS}
    assert {name: lines for name, lines in tests.items() if lines > 500} == {}


def test_no_function_is_longer_than_fifty_lines():
    long = [
        f"{path.name}:{node.lineno} {node.name}"
        for path in SOURCES
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef) and (node.end_lineno or 0) - node.lineno >= 50
    ]
    assert long == []


def test_a_command_is_at_most_twenty_five_lines_below_its_help():
    tree = ast.parse((ROOT / "src/rloop/cli/commands.py").read_text())
    long = [
        node.name
        for node in tree.body
        if isinstance(node, ast.FunctionDef)
        and (node.end_lineno or 0) - (node.body[0].end_lineno or 0) > 25
    ]
    assert long == []


@pytest.mark.parametrize("path", INITS, ids=str)
def test_an_init_holds_a_docstring_only(path):
    body = ast.parse(path.read_text()).body
    assert len(body) == 1
    assert isinstance(body[0], ast.Expr)
    assert isinstance(body[0].value, ast.Constant)


def test_sources_are_ascii_without_unfinished_business():
    for path in SOURCES + TESTS:
        text = path.read_text()
        assert text.isascii(), path
        if path != Path(__file__):
            assert not [word for word in ("TODO", "FIXME", "XXX") if word in text], path


def test_imports_go_one_way():
    done = run(tool("lint-imports"), "--no-cache")
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("arguments", [["check", "-q"], ["format", "--check", "-q"]])
def test_ruff_has_nothing_to_say(arguments):
    done = run(tool("ruff"), *arguments, "src", "tests", "docs", "examples", "proof")
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.name)
def test_every_recipe_loads(path):
    assert load_recipe(path).name


@pytest.mark.parametrize(
    "arguments",
    [["--help"], ["run", "--help"], ["config"], ["check", "recipes/tiny.yaml"]],
    ids=" ".join,
)
def test_light_commands_import_no_torch(arguments):
    code = f"""
import sys
from rloop.cli import main
sys.argv = ["rloop", *{arguments!r}]
try:
    main()
except SystemExit as end:
    assert not end.code, end.code
print("heavy:", [name for name in {HEAVY!r} if name in sys.modules])
"""
    done = run(sys.executable, "-c", code)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "heavy: []"
