"""Where the time and the sampled tokens of a run went, phase by phase."""

from collections.abc import Sequence
from dataclasses import dataclass

from rloop.report.run_record import Row, RunRecord

CLOCK_S = 0.002
"""Starts are logged in milliseconds."""

PHASES = ("coldstart", "explore", "select", "finetune", "evaluate")


@dataclass(frozen=True, slots=True, kw_only=True)
class PhaseBudget:
    """One phase over all iterations.

    Example: PhaseBudget(phase="explore", seconds=412.0, share=0.71, tokens=182_000,
    tokens_per_s=441.7)
    """

    phase: str
    seconds: float | None
    share: float | None
    """Part of the time of all phases."""
    tokens: int | None
    """Sampled in it; None where the phase samples nothing."""
    tokens_per_s: float | None


def phase_budgets(record: RunRecord) -> list[PhaseBudget]:
    """Return the budget of each phase that ran, in the order of the method."""
    seconds = phase_seconds(record.events)
    tokens = {phase: _tokens(record.rows(phase)) for phase in PHASES}
    total = sum(seconds.values())
    return [
        PhaseBudget(
            phase=phase,
            seconds=seconds.get(phase),
            share=seconds[phase] / total if phase in seconds and total else None,
            tokens=tokens[phase],
            tokens_per_s=_rate(tokens[phase], seconds.get(phase)),
        )
        for phase in PHASES
        if phase in seconds or tokens[phase] is not None
    ]


def phase_seconds(events: Sequence[Row]) -> dict[str, float]:
    """Return the time of each phase; an event inside another one counts for its own phase alone.

    Example: an exploration of 100 s with an evaluation of 20 s in it gives explore 80, evaluate 20.
    """
    spent: dict[str, float] = {}
    around: list[Row] = []
    timed = [event for event in events if event.get("phase") and "seconds" in event]
    for event in sorted(timed, key=lambda event: (event["start"], -event["seconds"])):
        while around and event["start"] >= around[-1]["start"] + around[-1]["seconds"] - CLOCK_S:
            around.pop()
        if around:
            spent[around[-1]["phase"]] -= event["seconds"]
        spent[event["phase"]] = spent.get(event["phase"], 0.0) + event["seconds"]
        around.append(event)
    return spent


def _rate(tokens: int | None, seconds: float | None) -> float | None:
    return tokens / seconds if tokens and seconds else None


def _tokens(rows: Sequence[Row]) -> int | None:
    """Return tokens sampled; an evaluate line has a count for each task."""
    found = [
        value
        for row in rows
        for key, value in row.items()
        if key.endswith("/sampled_tokens_count") and value is not None
    ]
    return int(sum(found)) if found else None
