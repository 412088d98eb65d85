r"""`math`: mathematical equality by math-verify, on the last \boxed{} or else the final statement.

math-verify's own limits are turned off: one alarm after a second of processor time stands around
parsing and comparing together, so this runs in the main thread of a worker process only. When it
rings the verdict is an `error`. Known ways of math-verify 0.9: 50\% equals 50 and 0.5, units are
dropped, `x = 5` equals 5, and an expression not worked out (5 + 3) equals its value.
"""

import logging
import re
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

import math_verify

from rloop.tasks.verifiers.answers import final_statement, last_box, with_ascii_numbers
from rloop.types import Problem, Verdict

LIMIT_S = 1.0
MAX_ANSWER_CHARS = 1000
_BASE = re.compile(r"\d_\{?(\d+)\}?\W*$")
"""The base of a number at the end of an answer, 2516_8; math-verify drops it."""

# It warns that its limits are off; ours are on.
logging.getLogger("math_verify").setLevel(logging.CRITICAL)


class LimitReached(BaseException):
    """The alarm rang; not an `Exception`, so that sympy and math-verify let it through."""


WARM_UP = (
    "8", r"\frac{1}{2}", r"\sqrt{2}", r"x^3-3x^2+1", r"\sin(x)+\cos(\pi/4)", r"-8-8\sqrt{3} i",
    r"\{1,2\}", "[0,3)", "(1,2)", r"y^{\prime}+r y=0", r"\begin{pmatrix} 1 \\ 2 \end{pmatrix}",
    r"-\tau \ln \Delta", r"e^{2x}", "x>3", r"50\%", r"5\text{ cm}",
)  # fmt: skip
"""One of each kind: sympy is slow the first time that it meets one."""


def warm_up() -> None:
    """Import and fill the caches of all that judging needs, about a second."""
    for answer in WARM_UP:
        _compare(answer, rf"\boxed{{{answer}}}", answer)


def judge(problem: Problem, text: str) -> Verdict:
    """Parse the completion's answer and compare it with the reference."""
    answer, reason = _find(with_ascii_numbers(text))
    if answer is None:
        return Verdict(kind="wrong", reason=reason)
    shown = answer.removeprefix("\\boxed{").removesuffix("}" if "\\boxed{" in answer else "")[:200]
    if len(answer) > MAX_ANSWER_CHARS:
        reason = f"an answer longer than {MAX_ANSWER_CHARS} characters"
        return Verdict(kind="wrong", reason=reason, answer=shown)
    try:
        with _alarm(LIMIT_S):
            return _compare(problem.answer, answer, shown)
    except LimitReached:
        reason = f"math-verify did not finish within its limit of {LIMIT_S:g} s of processor time"
        return Verdict(kind="error", reason=reason, answer=shown)


def _find(text: str) -> tuple[str | None, str]:
    """Return the answer as math-verify should read it, or None and why there is none."""
    box, is_closed = last_box(text)
    if box is not None:
        return f"\\boxed{{{box}}}", ""
    if not is_closed:
        return None, "the last \\boxed{} is not closed"
    statement = final_statement(text)[-MAX_ANSWER_CHARS:]
    if statement.endswith(("=", "?")):
        return None, "the completion ends without a statement"
    return (statement, "") if statement else (None, "an empty completion")


def _compare(reference: str, answer: str, shown: str) -> Verdict:
    gold = _parse_reference(reference)
    if not gold:
        reason = f"math-verify cannot read the reference answer {reference!r}"
        return Verdict(kind="error", reason=reason, answer=shown)
    found = _parse(answer)
    if not found:
        return Verdict(kind="wrong", reason="no mathematical answer found", answer=shown)
    bases = _BASE.search(reference), _BASE.search(answer)
    if bases[0] and bases[1] and bases[0][1] != bases[1][1]:
        return Verdict(kind="wrong", reason="a number in another base", answer=shown)
    if math_verify.verify(list(gold), found, timeout_seconds=None):
        return Verdict(kind="correct", answer=shown)
    return Verdict(kind="wrong", reason="not equal to the reference", answer=shown)


def _parse(text: str) -> list[Any]:
    """Return math-verify's readings of a text: an expression, then the text itself."""
    return list(math_verify.parse(text, parsing_timeout=None))


@lru_cache(maxsize=4096)
def _parse_reference(reference: str) -> tuple[Any, ...]:
    return tuple(_parse(f"\\boxed{{{reference}}}"))


@contextmanager
def _alarm(seconds: float) -> Iterator[None]:
    """Raise `LimitReached` in the main thread when the block takes more processor time."""

    def ring(signum: int, frame: object) -> None:
        raise LimitReached

    before = signal.signal(signal.SIGVTALRM, ring)
    signal.setitimer(signal.ITIMER_VIRTUAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0.0)
        signal.signal(signal.SIGVTALRM, before)
