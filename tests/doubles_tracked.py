"""A scripted run that other trackers follow, in a process of its own: `FOLDER die|resume SINK...`.

Trackers read their variables when they are imported, and some print; a process shows both.
"""

import sys
from pathlib import Path

from doubles_runs import begin, killed_at, scripted, toy_recipe, watched

from rloop.session.process import resume


def main(folder: Path, part: str, sinks: list[str]) -> int:
    """Begin a run that dies one step after a saved point, or resume it; it is `folder/run`."""
    if part == "resume":
        return resume(folder / "run", scripted())
    return begin(toy_recipe(folder, sinks=sinks), folder, watched(killed_at("explore", 1, 4)))[0]


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2], sys.argv[3:]))
