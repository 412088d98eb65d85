"""README's and the tutorial's commands, run in their order on a tiny model in place of theirs."""

import re
import shlex
import shutil
from pathlib import Path

import pytest
import yaml

from rloop.cli import app

ROOT = Path(__file__).parents[2]
STAND_INS = {"RECIPE": "recipes/demo.yaml", "RUN": "runs/demo"}


def commands(page: str) -> list[list[str]]:
    """Return a page's `rloop` and `make` commands as arguments, comments left out: indented lines,
    and what stands in backticks with an argument.
    """
    text = (ROOT / page).read_text()
    lines = re.findall(r"^    ((?:rloop|make) .*)$|`((?:rloop|make) [^`]+)`", text, re.MULTILINE)
    found = [shlex.split(block or inline, comments=True) for block, inline in lines]
    return [[STAND_INS.get(word, word) for word in words] for words in found]


@pytest.fixture
def clone(tmp_path, monkeypatch):
    """A folder with the recipes' names, in which each is the tiny recipe with less to do."""
    recipe = yaml.safe_load((ROOT / "recipes" / "tiny.yaml").read_text())
    recipe["explore"] |= {"steps": 2}
    recipe["coldstart"]["epochs"] = 10
    recipe["evaluate"] |= {"samples": 4, "k": [1, 4]}
    (tmp_path / "recipes").mkdir()
    for path in (ROOT / "recipes").glob("*.yaml"):
        recipe["name"] = path.stem
        (tmp_path / "recipes" / path.name).write_text(yaml.safe_dump(recipe))
    rows = [f"What is {n} + {n}?,{2 * n}" for n in range(9)]
    (tmp_path / "my_problems.csv").write_text("\n".join(["question,answer", *rows]))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.slow
@pytest.mark.parametrize("page", ["README.md", "docs/tutorial.md"])
def test_every_command_of_a_page_runs(clone, page):
    makefile = (ROOT / "Makefile").read_text()
    for name, *arguments in commands(page):
        if name == "make":
            assert f"\n{arguments[0]}:" in makefile
            continue
        if arguments[0] == "view":  # it goes on until Ctrl-C; test_view_browser.py opens it
            continue
        if arguments == ["run", "recipes/demo.yaml"]:
            shutil.rmtree(clone / "runs" / "demo", ignore_errors=True)
        if arguments == ["new"]:  # README names the command, and its options a line before
            arguments += ["my.yaml", "--model", "random:llama-2x64", "--data", "my_problems.csv"]
        elif "--model" in arguments:  # without the hub; a random model alone has nothing to select
            arguments[arguments.index("--model") + 1] = "random:llama-2x64"
            arguments.append("--print-recipe")
        if "--seeds" in arguments:  # one seed takes as many paths of the code as three
            arguments[arguments.index("--seeds") + 1] = "1"
        with pytest.raises(SystemExit) as end:
            app(arguments)
        assert end.value.code in (0, None), arguments


def test_a_page_has_commands():
    assert ["rloop", "check", "recipes/demo.yaml"] in commands("README.md")
    assert ["rloop", "resume", "runs/demo"] in commands("docs/tutorial.md")
