import pytest

from rloop.evaluation.intervals import Estimate
from rloop.report.formatting import (
    count,
    duration,
    percent,
    percent_interval,
    points,
    points_interval,
)
from rloop.text import visible


@pytest.mark.parametrize(
    ("number", "shown"),
    [
        (None, "--"),
        (0, "0"),
        (9_999, "9999"),
        (23_456, "23.5 k"),
        (800_000, "800 k"),
        (1.5e9, "1.50 G"),
    ],
)
def test_counts_are_short(number: float | None, shown: str) -> None:
    assert count(number) == shown


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(None, "--"), (4.2, "4.2 s"), (59.7, "1 min 0 s"), (83, "1 min 23 s"), (3723, "1 h 2 min")],
)
def test_durations_have_two_units_at_most(seconds: float | None, shown: str) -> None:
    assert duration(seconds) == shown


def test_fractions_are_percent_and_differences_are_points() -> None:
    estimate = Estimate(value=0.2141, low=-0.01, high=0.3)
    assert percent(0.41234) == "41.2 %"
    assert percent(None) == "--"
    assert percent_interval(estimate) == "[-1.0, 30.0]"
    assert points(estimate) == "+21.4"
    assert points_interval(estimate) == "[-1.0, +30.0]"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\n\tb", "a\n\tb"),
        ("a\r\nb\rc", "a\nb<U+000D>c"),
        ("\x1b[31m", "<U+001B>[31m"),
        ("\x00\x7f\x9b", "<U+0000><U+007F><U+009B>"),
        ("ab\u202ecd\u2066", "ab<U+202E>cd<U+2066>"),
        ("zero\u200bwidth\ufeff", "zero<U+200B>width<U+FEFF>"),
        ("lone \ud800", "lone <U+D800>"),
        ("caf\u00e9 \u2211 \U0001f600", "caf\u00e9 \u2211 \U0001f600"),
    ],
)
def test_control_characters_are_shown_and_not_obeyed(text: str, shown: str) -> None:
    assert visible(text) == shown
