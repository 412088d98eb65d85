"""S5 with a file of JSON lines, read once for each question; selection is given the rates."""

import json
import os
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

from contenders.measure import plain_write_s, read_work, report
from contenders.records import steps

from rloop.types import Completion, Trajectory

MAX_SUCCESS_RATE = 0.5
CAP = 4
COMPLETION = [field.name for field in fields(Completion)]


def main() -> None:
    """Store, query, select and report."""
    work = read_work()
    parts, count, num_steps = {"append": 0.0}, 0, 0
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "trajectories.jsonl"
        with path.open("w") as file:
            for _, groups in steps(work["shape"]):
                begin = time.perf_counter()
                rows = [t for group in groups for t in group.trajectories]
                file.writelines(json.dumps(as_row(row)) + "\n" for row in rows)
                file.flush()
                os.fsync(file.fileno())
                parts["append"] += time.perf_counter() - begin
                count += len(rows)
                num_steps += 1
        limits = {"append": plain_write_s(Path(folder), num_steps)}
        begin = time.perf_counter()
        rates = success_rates(path)
        parts["query"] = time.perf_counter() - begin
        begin = time.perf_counter()
        selected = select(path, rates)
        with (Path(folder) / "expert.jsonl").open("w") as file:
            file.writelines(json.dumps(row) + "\n" for row in selected)
        parts["select"] = time.perf_counter() - begin
    report(parts, count=count, check=len(selected), package="rloop-rl", limits=limits)


def as_row(trajectory: Trajectory) -> dict[str, Any]:
    """Return a trajectory as one flat record."""
    row = {name: getattr(trajectory.completion, name) for name in COMPLETION}
    row |= {"problem_id": trajectory.problem.problem_id, "member": trajectory.member}
    row |= {"verdict": trajectory.verdict.kind, "reward": trajectory.reward}
    return row | {"iteration": trajectory.place.iteration, "step": trajectory.place.step}


def read(path: Path) -> Iterator[dict[str, Any]]:
    """Yield every row."""
    with path.open() as file:
        yield from map(json.loads, file)


def success_rates(path: Path) -> dict[str, float]:
    """Return the fraction correct of each problem."""
    rewards: dict[str, list[float]] = defaultdict(list)
    for row in read(path):
        rewards[row["problem_id"]].append(row["reward"])
    return {problem: sum(values) / len(values) for problem, values in rewards.items()}


def select(path: Path, rates: dict[str, float]) -> list[dict[str, Any]]:
    """Return the newest different successes of each hard problem."""
    found: dict[str, dict[str, dict[str, Any]]] = defaultdict(dict)
    for row in read(path):
        problem = row["problem_id"]
        if row["verdict"] == "correct" and rates[problem] <= MAX_SUCCESS_RATE:
            found[problem][row["completion_text"]] = row
    return [row for rows in found.values() for row in list(rows.values())[-CAP:]]


if __name__ == "__main__":
    main()
