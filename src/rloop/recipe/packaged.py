"""The recipes that come with rloop: `rloop recipes` lists them, `rloop run demo` runs one."""

from collections.abc import Mapping
from itertools import takewhile
from pathlib import Path

FOLDER = Path(__file__).parents[1] / "recipes"


def packaged_recipes() -> Mapping[str, Path]:
    """Return the files of the package's recipes by name."""
    return {path.stem: path for path in sorted(FOLDER.glob("*.yaml"))}


def find_recipe(path: Path) -> Path:
    """Return a recipe's file: the one at `path`, else the package's recipe of that name.

    Example: the package's own file for Path("demo"), where no file `demo` is here.
    """
    return path if path.exists() else packaged_recipes().get(str(path), path)


def recipe_summary(path: Path) -> str:
    """Return the first sentence of the comment that a recipe begins with."""
    lines = path.read_text().splitlines()
    comment = takewhile(lambda line: line.startswith("#"), lines)
    return " ".join(line.lstrip("# ") for line in comment).partition(". ")[0].rstrip(".")
