"""O3: how long `rloop --help` and `rloop check` take, and whether they import what is heavy."""

import subprocess
import sys
import time
from pathlib import Path
from statistics import median

from contenders.measure import read_work, report

HEAVY = ("torch", "transformers", "trl", "verl", "ray")
RLOOP = str(Path(sys.executable).with_name("rloop"))
ROOT = Path(__file__).parents[2]
COMMANDS = {"--help": ["--help"], "check": ["check", "recipes/demo.yaml"]}


def main() -> None:
    """Start each command and report; the number to check is that of heavy packages imported."""
    times = read_work()["shape"]["times"]
    parts = {
        name: median(start_s(arguments) for _ in range(times))
        for name, arguments in COMMANDS.items()
    }
    imported = set().union(*map(heavy_imports, COMMANDS.values()))
    report(parts, count=1, check=len(imported), package="rloop-rl")


def start_s(arguments: list[str]) -> float:
    """Return the seconds of a command, from start to exit."""
    begin = time.perf_counter()
    subprocess.run([RLOOP, *arguments], cwd=ROOT, capture_output=True, check=True)
    return time.perf_counter() - begin


def heavy_imports(arguments: list[str]) -> set[str]:
    """Return the heavy packages that a command imports."""
    command = [sys.executable, "-X", "importtime", RLOOP, *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    return imported & set(HEAVY)


if __name__ == "__main__":
    main()
