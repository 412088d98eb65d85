"""Arguments and options that several commands have."""

from pathlib import Path
from typing import Annotated

import typer

from rloop.recipe.packaged import find_recipe


def _found(path: Path | None) -> Path | None:
    return None if path is None else find_recipe(path)


RECIPE_HELP = "A YAML file, or the name of one of `rloop recipes`."
RecipeArgument = Annotated[Path, typer.Argument(help=RECIPE_HELP, callback=_found)]
RecipeOrNone = Annotated[
    Path | None, typer.Argument(metavar="[RECIPE]", help=RECIPE_HELP, callback=_found)
]
RunArgument = Annotated[Path, typer.Argument(help="Run directory.")]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Change a value; may be given again."),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
ModelOption = Annotated[
    str | None,
    typer.Option("--model", help="Instead of a recipe: a model to train, as policy.path names it."),
]
TasksOption = Annotated[
    list[str] | None,
    typer.Option(
        "--task",
        metavar="SOURCE",
        help="Problems, as a task's source names them; may be given again.",
    ),
]
DataOption = Annotated[
    Path | None,
    typer.Option(
        "--data",
        exists=True,
        dir_okay=False,
        help="A file of problems and answers: CSV, JSON lines or parquet.",
    ),
]
VerifierOption = Annotated[
    str | None,
    typer.Option("--verifier", help="What judges answers: math, numeric, exact, choice, ..."),
]
