"""Numbers as a reader wants them, as percent, points, counts and durations."""

from rloop.evaluation.intervals import Estimate

MISSING = "--"
"""Shown where a number was not recorded."""


def percent(fraction: float | None) -> str:
    """Return 0.4123 as `41.2 %`."""
    return MISSING if fraction is None else f"{100 * fraction:.1f} %"


def percent_interval(estimate: Estimate) -> str:
    """Return an interval of fractions as `[35.0, 47.3]`, in percent."""
    return f"[{100 * estimate.low:.1f}, {100 * estimate.high:.1f}]"


def points(estimate: Estimate) -> str:
    """Return a difference of fractions as `+21.4`, in percentage points."""
    return f"{100 * estimate.value:+.1f}"


def points_interval(estimate: Estimate) -> str:
    """Return an interval of differences as `[+18.0, +24.9]`, in percentage points."""
    return f"[{100 * estimate.low:+.1f}, {100 * estimate.high:+.1f}]"


def count(number: float | None) -> str:
    """Return 1234567 as `1.23 M`, 23456 as `23.5 k`, 941 as `941`."""
    if number is None:
        return MISSING
    if number < 10_000:
        return f"{number:.0f}"
    for size, letter in ((1e9, "G"), (1e6, "M")):
        if number >= size:
            return f"{number / size:.2f} {letter}"
    return f"{number / 1e3:.1f}".removesuffix(".0") + " k"


def duration(seconds: float | None) -> str:
    """Return 3723 as `1 h 2 min`, 83 as `1 min 23 s`, 4.2 as `4.2 s`."""
    if seconds is None:
        return MISSING
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    hours, minutes, rest = whole // 3600, whole // 60 % 60, whole % 60
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def plural(number: int, noun: str) -> str:
    """Return `1 epoch`, `2 epochs`, `2 processes`."""
    ending = "" if number == 1 else "es" if noun.endswith("s") else "s"
    return f"{number} {noun}{ending}"
