"""What all contenders share: the work they read and the one line of JSON they print.

Standard library only: a contender may run in an environment without rloop.
"""

import json
import resource
import sys
from importlib import metadata
from pathlib import Path
from typing import Any


def read_work() -> dict[str, Any]:
    """Return the work file named on the command line."""
    work: dict[str, Any] = json.loads(Path(sys.argv[1]).read_text())
    return work


def report(parts: dict[str, float], *, count: int, check: int, package: str) -> None:
    """Print the result: seconds of each part, and what was done in them.

    `count` is what the rate is of; `check` must be the same number for every contender.
    """
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    result = {
        "parts": parts,
        "count": count,
        "check": check,
        "peak_bytes": peak * (1 if sys.platform == "darwin" else 1024),
        "version": f"{package} {metadata.version(package)}",
    }
    _print(result)


def skip(reason: str) -> None:
    """Print why there is no result."""
    _print({"skipped": reason})


def reward(number: int, member: int) -> float:
    """Return the reward of a member of problem `number`'s group: every other group is mixed."""
    return float(number % 2 == 0 and member % 2 == 0)


def stored_completions(work: dict[str, Any]) -> list[tuple[list[int], list[int]]]:
    """Return (prompt ids, completion ids) of S3: problems in turn, each its own text repeated."""
    shape = work["S3"]
    pairs = []
    for index, length in enumerate(shape["lengths"]):
        ids = work["prompts"][index % shape["problems"]]["ids"]
        pairs.append((ids, (ids * (length // len(ids) + 1))[:length]))
    return pairs


def _print(result: dict[str, Any]) -> None:
    # Its own line, whatever else the libraries have printed.
    sys.stdout.write(f"\n{json.dumps(result)}\n")
    sys.stdout.flush()
