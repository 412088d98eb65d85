"""Where a run stands: running or not, phase by phase, and how long the RL steps will take.

Knows the keys of a manifest and of the logs; judges nothing.
"""

import os
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, Literal

from rloop.report.formatting import percent
from rloop.report.tables import TaskTable
from rloop.run_directory import Run, iteration_seconds, sampled_tokens

RECENT_S = 60.0
"""A run that wrote this recently is taken to be running where its lock cannot be seen."""
NUM_STEPS_TIMED = 10
"""RL steps whose median time stands for those to come."""
MIN_STEPS_TIMED = 3

StateName = Literal["running", "complete", "stopped"]
Status = Literal["done", "now", "to come"]


@dataclass(frozen=True, slots=True)
class State:
    """Whether a run is going on. Example: State("running", 1767225600.0)"""

    name: StateName
    changed_s: float
    """When it last wrote, in seconds since 1970."""

    @property
    def ago(self) -> str:
        """Return how long ago it last wrote, in its largest unit."""
        age_s = time.time() - self.changed_s
        for unit, size in (("days", 86400), ("h", 3600), ("min", 60), ("s", 1)):
            if age_s >= size:
                return f"{age_s // size:.0f} {unit} ago"
        return "just now"


@dataclass(frozen=True, slots=True, kw_only=True)
class Phase:
    """One phase of one iteration.

    Example: Phase(iteration=2, name="explore", status="now", step=4, num_steps=20, seconds=31.0,
    tokens=4096, left_s=124.0)
    """

    iteration: int
    name: str
    status: Status
    step: int
    """Steps done; 0 where the phase has none."""
    num_steps: int | None
    """Steps in all, None where the phase has none or they are not known yet."""
    seconds: float | None
    tokens: int | None
    """Sampled in it."""
    left_s: float | None = None
    """For the rest of its steps at the pace of the last ones; None where that is a guess."""


def run_state(run: Run, changed_s: float) -> State:
    """Return whether the run is complete, going on or stopped; `changed_s` is its last write."""
    if run.is_complete:
        return State("complete", changed_s)
    is_recent = time.time() - changed_s < RECENT_S
    is_running = is_recent or is_locked(run.directory / ".lock")
    return State("running" if is_running else "stopped", changed_s)


def is_locked(path: Path) -> bool:
    """Whether a process of this machine holds the lock, asked without touching it (Linux)."""
    try:
        status = os.stat(path)
        lines = Path("/proc/locks").read_text().splitlines()
    except OSError:
        return False
    device = f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}"
    return any(f" {device}:{status.st_ino} " in line and "FLOCK" in line for line in lines)


def run_phases(run: Run, *, is_running: bool) -> list[Phase]:
    """Return every phase of the run, done and to come; the first that is not done is `now`."""
    spent = {(r["iteration"], r["phase"]): r["seconds"] for r in iteration_seconds(run.events)}
    waiting = [key for key in run.expected_phases if key not in run.phases]
    now = waiting[0] if waiting and is_running else ""
    found = []
    for key in run.expected_phases:
        number, _, name = key.partition("/")
        kind, _, policy = name.partition("/")
        iteration = int(number)
        lines = [row for row in run.rows(kind) if row.get("iteration") == iteration]
        seconds = spent.get((iteration, kind))
        if policy:
            lines = [row for row in lines if row.get("policy") == policy]
            seconds = _evaluation_seconds(run, key)
        status: Status = "done" if key in run.phases else "now" if key == now else "to come"
        times = [row["explore/step_s"] for row in lines if row.get("explore/step_s") is not None]
        step = max((int(row.get("step", 0)) for row in lines), default=0)
        num_steps = _num_steps(run, kind, iteration)
        is_paced = status == "now" and num_steps and len(times) >= MIN_STEPS_TIMED
        found.append(
            Phase(
                iteration=iteration,
                name=name,
                status=status,
                step=step if num_steps else 0,
                num_steps=num_steps,
                # A phase is timed when it ends.
                seconds=seconds if status == "done" else sum(times) or None,
                tokens=sampled_tokens(lines),
                left_s=((num_steps or 0) - step) * median(times[-NUM_STEPS_TIMED:])
                if is_paced
                else None,
            )
        )
    return found


def _evaluation_seconds(run: Run, key: str) -> float | None:
    """Return how long the evaluation of a kept policy took; events of an iteration are in order."""
    iteration = int(key.split("/")[0])
    done = [k for k in run.phases if k.startswith(f"{iteration}/evaluate/")]
    timed = [
        event["seconds"]
        for event in run.events
        if (event.get("iteration"), event.get("phase")) == (iteration, "evaluate")
        and not event.get("step")
        and "error" not in event
    ]
    return dict(zip(done, timed, strict=False)).get(key)


def _num_steps(run: Run, kind: str, iteration: int) -> int | None:
    """Return how many steps a phase has: given for RL, from examples and batches for tuning."""
    config, done = run.config, run.phases
    if kind == "explore":
        ended = done.get(f"{iteration}/explore", {}).get("steps")
        return int(ended or config["explore"]["steps"])
    if kind == "coldstart":
        num_examples = done.get("0/problems", {}).get("counts", {}).get("coldstart")
    elif kind == "finetune":
        num_examples = done.get(f"{iteration}/select", {}).get("kept_count")
    else:
        return None
    tuning = config[kind]
    if not num_examples or not tuning.get("batch_size"):
        return None
    return int(tuning["epochs"] * -(-num_examples // tuning["batch_size"]))


def where(phases: list[Phase]) -> tuple[str, int, int]:
    """Return where a run is in words, and its RL steps done and in all."""
    explorations = [phase for phase in phases if phase.name == "explore"]
    done = sum(phase.step for phase in explorations)
    total = sum(phase.num_steps or 0 for phase in explorations)
    now = next((phase for phase in phases if phase.status == "now"), None)
    if now is None:
        return "", done, total
    text = f"iteration {now.iteration}, {now.name}" if now.iteration else now.name
    if now.num_steps:
        text += f", step {now.step} of {now.num_steps}"
    return text, done, total


def last_numbers(tables: list[TaskTable]) -> list[dict[str, Any]]:
    """Return, for each task, the policy measured last and its headline metrics as text."""
    found = []
    for table in tables:
        row = table.outcome or table.rows[-1]
        cells = [(name, row.cells[name].value) for name in table.headline_metrics]
        text = ", ".join(f"{name} {percent(value.value)}" for name, value in cells if value)
        found.append({"task": table.task, "policy": row.policy, "text": text})
    return found
