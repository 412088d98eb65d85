"""What all contenders share: the work they read and the one line of JSON they print.

Standard library only: a contender may run in an environment without rloop.
"""

import json
import os
import resource
import sys
import time
from importlib import metadata
from pathlib import Path
from typing import Any


def read_work() -> dict[str, Any]:
    """Return the work file named on the command line."""
    work: dict[str, Any] = json.loads(Path(sys.argv[1]).read_text())
    return work


def report(
    parts: dict[str, float],
    *,
    count: int,
    check: int,
    package: str,
    limits: dict[str, float] | None = None,
) -> None:
    """Print the result: seconds of each part, and what was done in them.

    `count` is what the rate is of; `check` must be the same number for every contender. `limits`
    holds the least seconds that a part could take.
    """
    result = {
        "parts": parts,
        "limits": limits or {},
        "count": count,
        "check": check,
        "peak_bytes": _peak_bytes(),
        "version": f"{package} {metadata.version(package)}",
    }
    _print(result)


def plain_write_s(folder: Path, num_steps: int) -> float:
    """Return the seconds for as many bytes as a folder holds, in `num_steps` writes and fsyncs."""
    total = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    piece = os.urandom(total // num_steps)
    path = folder / "plain"
    begin = time.perf_counter()
    with path.open("wb", buffering=0) as file:
        for _ in range(num_steps):
            file.write(piece)
            os.fsync(file.fileno())
    seconds = time.perf_counter() - begin
    path.unlink()
    return seconds


def skip(reason: str) -> None:
    """Print why there is no result."""
    _print({"skipped": reason})


def reward(number: int, member: int) -> float:
    """Return the reward of a member of problem `number`'s group: every other group is mixed."""
    return float(number % 2 == 0 and member % 2 == 0)


def stored_completions(work: dict[str, Any]) -> list[tuple[list[int], list[int]]]:
    """Return (prompt ids, completion ids) to learn: problems in turn, their text repeated."""
    shape = work["shape"]
    pairs = []
    for index, length in enumerate(shape["lengths"]):
        ids = work["prompts"][index % shape["problems"]]["ids"]
        pairs.append((ids, (ids * (length // len(ids) + 1))[:length]))
    return pairs


def _peak_bytes() -> int:
    """Return the peak memory of the device where there was work on a GPU, else of the process."""
    torch = sys.modules.get("torch")
    if torch and torch.cuda.is_initialized():
        return int(torch.cuda.max_memory_allocated())
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak * (1 if sys.platform == "darwin" else 1024)


def _print(result: dict[str, Any]) -> None:
    # Its own line, whatever else the libraries have printed.
    sys.stdout.write(f"\n{json.dumps(result)}\n")
    sys.stdout.flush()
