"""From measurements to medians, ratios and distances to the limit; and those as a table."""

from collections.abc import Sequence
from statistics import median
from typing import Any

from limits import limit_s
from work_sets import OURS, WorkSet

from rloop.cli.tables import print_table
from rloop.text import format_value

COLUMNS = ("part", "contender", "median s", "rounds", "rate", "x rloop", "peak", "of limit")


def summarize(
    work_set: WorkSet, work: dict[str, Any], measured: dict[str, list[dict[str, Any]]]
) -> dict[str, Any]:
    """Return the JSON of a work set; `measured` holds each contender's results, round by round.

    A part's `times_rloop` is its median over rloop's; `limit_s` is the least that the machine would
    take by `limits.py`; a contender may give limits of its own for its parts.
    """
    done = {name: rounds for name, rounds in measured.items() if _problem(rounds) is None}
    checks = {result["check"] for rounds in done.values() for result in rounds}
    least_s = limit_s(work_set.kind, work)
    ours = _medians(done[OURS]) if OURS in done else {}
    return {
        "work": work_set.sentence.format(**work["shape"]),
        "unit": work_set.unit,
        "is_same_work": len(checks) <= 1,
        "limit_s": least_s,
        **{key: work[key] for key in ("model", "dtype", "device", "machine") if key in work},
        "contenders": {
            name: _summarize_contender(rounds, ours, least_s) for name, rounds in done.items()
        },
        "absent": {
            name: reason for name, rounds in measured.items() if (reason := _problem(rounds))
        },
        "failed": any("failed" in result for rounds in measured.values() for result in rounds),
    }


def _summarize_contender(
    rounds: Sequence[dict[str, Any]], ours: dict[str, float], least_s: float | None
) -> dict[str, Any]:
    medians = _medians(rounds)
    own = {part: median(r["limits"][part] for r in rounds) for part in rounds[0].get("limits", {})}
    limits = own or (dict.fromkeys(medians, least_s) if least_s else {})
    parts = {}
    for part, seconds in medians.items():
        parts[part] = {
            "median_s": seconds,
            "all_s": [result["parts"][part] for result in rounds],
            "rate_per_s": rounds[0]["count"] / seconds,
            "times_rloop": seconds / ours[part] if part in ours else None,
            "of_limit_frac": limits[part] / seconds if part in limits else None,
        }
    return {
        "version": rounds[0]["version"],
        "count": rounds[0]["count"],
        "check": rounds[0]["check"],
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


def print_goals(name: str, goals: Sequence[dict[str, Any]], *, is_full: bool) -> None:
    """Print what was wanted of a work set beside what was found."""
    if not goals:
        return
    rows = [
        (
            goal["goal"],
            f"at {'least' if goal['is_least'] else 'most'} {format_value(goal['wanted'])}",
            _or_dash(goal["found"], "{:.3g}"),
            {True: "yes", False: "no", None: "not measured"}[goal["is_met"]],
        )
        for goal in goals
    ]
    size = "" if is_full else ", which are for the full size"
    print_table(("goal", "wanted", "found", "met"), rows, f"{name} goals{size}")


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
        f"{format_value(figures['rate_per_s'])} {unit}/s" if unit else "-",
        _or_dash(figures["times_rloop"], "{:.2f}"),
        format_value(one["peak_bytes"], "bytes"),
        _or_dash(figures["of_limit_frac"], "{:.1%}"),
    )


def _or_dash(value: float | None, form: str) -> str:
    return "-" if value is None else form.format(value)
