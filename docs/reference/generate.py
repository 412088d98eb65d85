"""Write cli.md, config.md and api.md from the code: `python docs/reference/generate.py`.

`tests/unit/test_docs.py` fails where a page is behind.
"""

import inspect
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import typer

import rloop
from rloop.cli import app
from rloop.recipe.keys import RecipeField, recipe_fields

FOLDER = Path(__file__).parent


def pages() -> dict[Path, str]:
    """Return each generated page and its text."""
    return {
        FOLDER / "cli.md": cli_page(),
        FOLDER / "config.md": config_page(),
        FOLDER / "api.md": api_page(),
    }


def cli_page() -> str:
    """Return every command with its arguments and example."""
    lines = [
        "# Commands",
        "",
        "Results go to standard output, progress to standard error. Exit codes: 0 done, 1 an error",
        "in one line, 2 usage or recipe, 130 interrupted after everything was saved.",
        "",
    ]
    for name, command in commands(typer.main.get_command(app), "rloop"):
        arguments = [p for p in command.params if p.param_type_name == "argument"]
        usage = " ".join([name, *(p.name.removesuffix("_path").upper() for p in arguments)])
        lines += [f"## {name}", "", inspect.cleandoc(command.help or ""), "", f"    {usage}", ""]
        rows = [(", ".join(p.opts), p.help or "", default_of(p)) for p in options(command)]
        lines += table(("option", "meaning", "default"), rows) if rows else []
    return finish(lines)


def commands(command: Any, name: str) -> Iterator[tuple[str, Any]]:
    """Yield every command below a group with its full name."""
    children = getattr(command, "commands", None)
    if children is None:
        yield name, command
        return
    for child in children.values():
        yield from commands(child, f"{name} {child.name}")


def options(command: Any) -> list[Any]:
    """Return a command's options but --help."""
    return [p for p in command.params if p.param_type_name == "option" and p.name != "help"]


def default_of(parameter: Any) -> str:
    """Return an option's default; empty where it is off or none."""
    return "" if parameter.default in (None, False) else f"`{parameter.default}`"


def config_page() -> str:
    """Return every key of a recipe, one table for each section."""
    lines = [
        "# Recipe keys",
        "",
        "What a recipe may say, as `rloop config` prints it. N stands for an entry's place in a",
        "list, from 0: `--set tasks.train.0.size=100`.",
        "",
    ]
    fields = list(recipe_fields().values())
    sections = list(dict.fromkeys(section_of(field) for field in fields))
    for section in sections:
        rows = [
            (f"`{field.key}`", field.type, f"`{field.default}`", field.description)
            for field in fields
            if section_of(field) == section
        ]
        lines += [f"## {section}", "", *table(("key", "value", "default", "meaning"), rows)]
    return finish(lines)


def section_of(field: RecipeField) -> str:
    """Return the first part of a key that has parts below it, else `the run`."""
    head, dot, _ = field.key.partition(".")
    return head if dot or "mapping" in field.type else "the run"


def api_page() -> str:
    """Return what `import rloop` offers, with its signatures and docstrings."""
    lines = [
        "# Python API",
        "",
        "What the command line does, from Python: the same recipes, the same run directories.",
        "`import rloop` imports nothing heavy; names below `rloop.` that are not here may change.",
        "`examples/first_run.ipynb` uses all of it.",
        "",
    ]
    for name in (name for name in rloop.__all__ if not name.startswith("_")):
        found = getattr(rloop, name)
        lines += documented(f"rloop.{name}", found, "##")
        if inspect.isclass(found):
            for key, member in vars(found).items():
                if not key.startswith("_"):
                    lines += documented(f"{name}.{key}", member, "###")
    return finish(lines)


def documented(name: str, found: Any, heading: str) -> list[str]:
    """Return a heading, a signature and a docstring."""
    is_property = isinstance(found, property)
    signature = "" if is_property else str(inspect.signature(found)).replace("self, ", "")
    signature = signature.replace("(self)", "()")
    signature = re.sub(r"Optional\[(Literal\[.*?\])\]", r"\1 | None", signature)
    signature = re.sub(r"\b(?:pathlib|typing|collections\.abc|rloop\.api)\.", "", signature)
    told, _, example = inspect.cleandoc(found.__doc__ or "").partition("\n\nExample: ")
    shown = ["", f"    {example}"] if example else []
    return [f"{heading} {name}", "", f"    {name}{signature}", "", told, *shown, ""]


def table(columns: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> list[str]:
    """Return a Markdown table and an empty line."""
    cells = [columns, tuple("---" for _ in columns), *rows]
    escaped = [[cell.replace("|", "\\|") for cell in row] for row in cells]
    return [*(f"| {' | '.join(row)} |" for row in escaped), ""]


def finish(lines: list[str]) -> str:
    """Return lines as a file's text."""
    return "\n".join(lines).rstrip() + "\n"


if __name__ == "__main__":
    for path, text in pages().items():
        path.write_text(text)
