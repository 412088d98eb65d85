"""Where the time and the sampled tokens of a run went, phase by phase."""

from collections.abc import Sequence
from dataclasses import dataclass

from rloop.report.run_record import Row, RunRecord

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
    seconds = {phase: _seconds(record.events, phase) for phase in PHASES}
    tokens = {phase: _tokens(record.rows(phase)) for phase in PHASES}
    total = sum(spent for spent in seconds.values() if spent is not None)
    return [
        PhaseBudget(
            phase=phase,
            seconds=spent,
            share=spent / total if spent is not None and total else None,
            tokens=tokens[phase],
            tokens_per_s=(tokens[phase] or 0) / spent if spent and tokens[phase] else None,
        )
        for phase, spent in seconds.items()
        if spent is not None or tokens[phase] is not None
    ]


def _seconds(events: Sequence[Row], phase: str) -> float | None:
    spans = [event["seconds"] for event in events if event.get("name") == phase]
    return sum(spans) if spans else None


def _tokens(rows: Sequence[Row]) -> int | None:
    """Return tokens sampled; an evaluate line has a count for each task."""
    found = [
        value
        for row in rows
        for key, value in row.items()
        if key.endswith("/sampled_tokens_count") and value is not None
    ]
    return int(sum(found)) if found else None
