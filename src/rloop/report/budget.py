"""Where the time and the sampled tokens of a run went, phase by phase."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
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
    spent: dict[str, float] = defaultdict(float)
    for event, seconds in _own_seconds(events):
        spent[event["phase"]] += seconds
    return dict(spent)


def iteration_seconds(events: Sequence[Row]) -> list[Row]:
    """Return the same by iteration, as rows: iteration, phase, seconds."""
    spent: dict[tuple[int, str], float] = defaultdict(float)
    for event, seconds in _own_seconds(events):
        spent[event["iteration"], event["phase"]] += seconds
    return [
        {"iteration": iteration, "phase": phase, "seconds": seconds}
        for (iteration, phase), seconds in sorted(spent.items())
    ]


def _own_seconds(events: Sequence[Row]) -> Iterator[tuple[Row, float]]:
    """Yield events with their time, and those around them again with the time to take away."""
    around: list[Row] = []
    timed = [event for event in events if event.get("phase") and "seconds" in event]
    for event in sorted(timed, key=lambda event: (event["start"], -event["seconds"])):
        while around and event["start"] >= around[-1]["start"] + around[-1]["seconds"] - CLOCK_S:
            around.pop()
        if around:
            yield around[-1], -event["seconds"]
        yield event, event["seconds"]
        around.append(event)


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
