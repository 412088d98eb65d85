"""The commands that begin: `rloop run`, `rloop new`, `rloop recipes`."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from rloop.cli.options import (
    DataOption,
    ModelOption,
    RecipeOrNone,
    SetOption,
    TasksOption,
    VerifierOption,
)
from rloop.cli.tables import print_table
from rloop.errors import ConfigError


def run(  # noqa: PLR0913 (one for each option)
    recipe_path: RecipeOrNone = None,
    model: ModelOption = None,
    tasks: TasksOption = None,
    data: DataOption = None,
    verifier: VerifierOption = None,
    overrides: SetOption = None,
    out: Annotated[
        Path | None, typer.Option(help="New run directory; runs/NAME when absent.")
    ] = None,
    *,
    print_recipe: Annotated[
        bool, typer.Option("--print-recipe", help="Print the recipe and start nothing.")
    ] = False,
) -> None:
    """Run a recipe from its base policy to the last iteration, or RLoop of a model on problems.

    Without a recipe, --model with --task or --data makes one, with values for this machine, and
    prints it; `rloop new` writes it to a file.

    Example: rloop run --model Qwen/Qwen2.5-1.5B-Instruct --task gsm8k
    """
    from rloop.recipe.load import load_recipe, load_text, recipe_yaml

    if recipe_path is not None and (model or tasks or data or verifier):
        raise ConfigError("Give a recipe, or --model with --task or --data, not both.")
    text = None
    if recipe_path is not None:
        recipe = load_recipe(recipe_path, overrides or ())
    else:
        text = _starter(model, tasks, data, verifier, overrides)
        recipe = load_text(text)
    if print_recipe:
        sys.stdout.write(text or recipe_yaml(recipe))
        return
    if text is not None:
        sys.stderr.write(f"{text}\n")
    from rloop.engines.registry import build_engine
    from rloop.session.process import start

    run_dir = out or Path("runs") / recipe.name
    end(
        start(recipe_path or Path("recipe.yaml"), recipe, run_dir, build_engine, text=text), run_dir
    )


def new(
    path: Annotated[Path, typer.Argument(help="New file.")],
    model: ModelOption = None,
    tasks: TasksOption = None,
    data: DataOption = None,
    verifier: VerifierOption = None,
    overrides: SetOption = None,
) -> None:
    """Write a commented recipe of a model and problems, with values for this machine.

    Example: rloop new mine.yaml --model Qwen/Qwen2.5-1.5B-Instruct --data my.csv
    """
    if path.exists():
        raise ConfigError(f"{path} exists. Give another name; nothing is overwritten.")
    if data is not None and path.parent.resolve() != Path.cwd():
        data = data.resolve()  # paths of a recipe start at its folder
    text = _starter(model, tasks, data, verifier, overrides)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    sys.stdout.write(f"{path}\nCheck it: rloop check {path}\nRun it: rloop run {path}\n")


def recipes() -> None:
    """List the recipes that come with rloop; each runs by its name.

    Example: rloop recipes
    """
    from rloop.recipe.packaged import packaged_recipes, recipe_summary

    rows = [(name, recipe_summary(path), str(path)) for name, path in packaged_recipes().items()]
    print_table(("name", "what it does", "file"), rows)


def end(code: int, run_dir: Path) -> None:
    """Write the report of what there is, say where it lies, and exit."""
    from rloop.report.page import write_report

    sys.stderr.write(f"Report: {write_report(run_dir)}\n")
    raise typer.Exit(code)


def _starter(
    model: str | None,
    tasks: Sequence[str] | None,
    data: Path | None,
    verifier: str | None,
    overrides: Sequence[str] | None,
) -> str:
    """Return the text of the recipe that options ask for."""
    from rloop.check.starter import starter_recipe

    sources = [*(tasks or ()), *([f"file:{data}"] if data else [])]
    return starter_recipe(model or "", sources, verifier=verifier, overrides=overrides or ())
