"""From measurements to medians, ratios and distances to the limit; and those as a table."""

from collections.abc import Sequence
from statistics import median
from typing import Any

from limits import needed_flops
from work_sets import OURS, WorkSet

from rloop.tables import format_value, print_table

COLUMNS = ("part", "contender", "median s", "rounds", "rate", "x rloop", "peak", "of limit")


def summarize(
    work_set: WorkSet, work: dict[str, Any], measured: dict[str, list[dict[str, Any]]]
) -> dict[str, Any]:
    """Return the JSON of a work set; `measured` holds each contender's results, round by round.

    A part's `times_rloop` is its median over rloop's; `limit_s` is what the matrix products alone
    would take.
    """
    done = {name: rounds for name, rounds in measured.items() if _problem(rounds) is None}
    checks = {result["check"] for rounds in done.values() for result in rounds}
    flops = needed_flops(work_set.name, work)
    limit_s = flops / work["machine"]["flops_per_s"] if flops else None
    ours = _medians(done[OURS]) if OURS in done else {}
    return {
        "work": work_set.sentence.format(**work[work_set.name]),
        "unit": work_set.unit,
        "is_same_work": len(checks) <= 1,
        "limit_s": limit_s,
        "contenders": {
            name: _summarize_contender(rounds, ours, limit_s) for name, rounds in done.items()
        },
        "absent": {
            name: reason for name, rounds in measured.items() if (reason := _problem(rounds))
        },
        "failed": any("failed" in result for rounds in measured.values() for result in rounds),
    }


def _summarize_contender(
    rounds: Sequence[dict[str, Any]], ours: dict[str, float], limit_s: float | None
) -> dict[str, Any]:
    parts = {}
    for part, seconds in _medians(rounds).items():
        parts[part] = {
            "median_s": seconds,
            "all_s": [result["parts"][part] for result in rounds],
            "rate_per_s": rounds[0]["count"] / seconds,
            "times_rloop": seconds / ours[part] if part in ours else None,
            "of_limit_frac": limit_s / seconds if limit_s else None,
        }
    return {
        "version": rounds[0]["version"],
        "count": rounds[0]["count"],
        "peak_bytes": int(median(result["peak_bytes"] for result in rounds)),
        "parts": parts,
    }


def _medians(rounds: Sequence[dict[str, Any]]) -> dict[str, float]:
    return {part: median(r["parts"][part] for r in rounds) for part in rounds[0]["parts"]}


def _problem(rounds: Sequence[dict[str, Any]]) -> str | None:
    """Return why a contender has no figures; one failed round is enough."""
    reasons = [result.get("skipped") or result.get("failed") for result in rounds]
    return next((reason for reason in reasons if reason), None)


def print_set(name: str, found: dict[str, Any], labels: dict[str, str]) -> None:
    """Print a work set as a table."""
    parts = {part for one in found["contenders"].values() for part in one["parts"]}
    order = [part for one in found["contenders"].values() for part in one["parts"]]
    rows = [
        _row(part, labels[contender], one, found["unit"])
        for part in sorted(parts, key=order.index)
        for contender, one in found["contenders"].items()
        if part in one["parts"]
    ]
    print_table(COLUMNS, rows, f"{name} {found['work']}")


def notes(found: dict[str, Any], labels: dict[str, str]) -> list[str]:
    """Return what a reader of the table must know besides it."""
    lines = [f"{labels[contender]}: {reason}." for contender, reason in found["absent"].items()]
    if not found["is_same_work"]:
        lines.append("The contenders did different amounts of work: the ratios mean nothing.")
    return lines


def _row(part: str, label: str, one: dict[str, Any], unit: str) -> tuple[object, ...]:
    figures = one["parts"][part]
    return (
        part,
        label,
        float(figures["median_s"]),
        " ".join(format_value(seconds) for seconds in figures["all_s"]),
        f"{format_value(figures['rate_per_s'])} {unit}/s",
        _or_dash(figures["times_rloop"], "{:.2f}"),
        format_value(one["peak_bytes"], "bytes"),
        _or_dash(figures["of_limit_frac"], "{:.1%}"),
    )


def _or_dash(value: float | None, form: str) -> str:
    return "-" if value is None else form.format(value)
