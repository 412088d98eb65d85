"""Arguments and options that several commands have."""

from pathlib import Path
from typing import Annotated

import typer

RecipeArgument = Annotated[Path, typer.Argument(help="Recipe, a YAML file.")]
RunArgument = Annotated[Path, typer.Argument(help="Run directory.")]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Change a value; may be given again."),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
