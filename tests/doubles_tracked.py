"""A scripted run that other trackers follow, in a process of its own: `FOLDER die|resume SINK...`.

Trackers read their variables when they are imported, and some print; a process shows both.
"""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from doubles_runs import begin, half_right, scripted, toy_recipe
from doubles_scripted import ScriptedEngine

from rloop.config import Recipe
from rloop.engines.base import Engine, ExploreStep, Verify
from rloop.loop.session import resume


class Dying(ScriptedEngine):
    """Dies at the third step of the first exploration, one after its last saved point."""

    def explore(self, *args: Any, **kwargs: Any) -> Iterator[ExploreStep]:
        """Yield steps up to the fatal one."""
        for step in super().explore(*args, **kwargs):
            yield step
            if step.step == 3:
                raise SystemExit("killed")


def dying(recipe: Recipe, verify: Verify) -> Engine:
    """Return an engine that dies."""
    return Dying(recipe, verify, half_right)


def main(folder: Path, part: str, sinks: list[str]) -> int:
    """Begin a run that dies, or resume it; it lies in `folder/run`."""
    if part == "resume":
        return resume(folder / "run", scripted())
    return begin(toy_recipe(folder, sinks=sinks), folder, dying)[0]


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2], sys.argv[3:]))
