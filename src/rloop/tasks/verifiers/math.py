r"""`math`: the final answer, read step by step, has the value of the reference.

Four steps, each a function with its own table of cases: find the answer (answers.py), rewrite it
into one spelling (latex.py), parse it into a value (reading.py), compare (equality.py). What cannot
be parsed is compared as text. Nothing is ever evaluated as code. It runs in the main thread of a
worker process: an alarm after a second of processor time stands around it.
"""

import re
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from fractions import Fraction
from functools import lru_cache

from rloop.tasks.verifiers.answers import Step, find_answer, last_box
from rloop.tasks.verifiers.choice import is_choice_letter, read_letter
from rloop.tasks.verifiers.echo import is_unworked
from rloop.tasks.verifiers.equality import why_different
from rloop.tasks.verifiers.formula import Formula
from rloop.tasks.verifiers.latex import clean, split_top, words
from rloop.tasks.verifiers.reading import read_value
from rloop.tasks.verifiers.statements import Found
from rloop.tasks.verifiers.units import question_words
from rloop.tasks.verifiers.values import Quantity, Several, Value, Words, describe
from rloop.types import Problem, Verdict

LIMIT_S = 1.0
MAX_ANSWER_CHARS = 1000
MIN_QUESTION_WORDS = 2
"""A shorter question says nothing of what is asked for."""
_NUMBER = r"(?:\u27e6usd\u27e7\s*)?\d+(?:[.,]\d+)*"
_UNIT = r"(?:\s*\\?%|\s*\u27e6.*|\s+(?!sin|cos|tan|log|exp)[A-Za-z]{2,}.*)?"
_LABEL = re.compile(
    rf"\+?{_NUMBER}(?:\s*-\s*{_NUMBER})+{_UNIT}"
    rf"|{_NUMBER}(?:\s*[a-z]{{1,3}})?(?:\s*x\s*{_NUMBER}(?:\s*[a-z]{{1,3}})?)+{_UNIT}"
    rf"|{_NUMBER}\s+to\s+{_NUMBER}.*|{_NUMBER}\s*[A-Za-z]+\s+{_NUMBER}\s*[A-Za-z]+"
    rf"|{_NUMBER}\s+[a-z]{{1,3}}[23]"
    r"|\d+\s*/\s*\d+\s*/\s*\d+|0[xX][0-9A-Fa-f]+"
    r"|(?!\d+[eE]\d+$)(?=.*[A-Za-z]\d)[A-Za-z0-9]+|[A-Z][a-z]{2,}"
)
"""A reference that only looks like a formula: 5-10 minutes, 2024-05-01, 10 x 20, 2 h 30 min, N2O.

Worked out, one range or date would equal another.
"""


class LimitReached(BaseException):
    """The alarm rang; not an `Exception`, so that nothing on the way catches it."""


def judge(problem: Problem, text: str) -> Verdict:
    """Find the completion's answer and compare it with the reference."""
    return explain(problem, text)[0]


def explain(problem: Problem, text: str) -> tuple[Verdict, list[Step]]:
    """Judge and return the steps on the way."""
    steps: list[Step] = []
    try:
        with _alarm(LIMIT_S):
            return _explain(problem, text, steps), steps
    except LimitReached:
        reason = f"no verdict within the limit of {LIMIT_S:g} s of processor time"
        return Verdict(kind="error", reason=reason, answer=steps[0][1] if steps else None), steps
    except (RecursionError, MemoryError):
        return Verdict(kind="wrong", reason="an answer nested too deeply"), steps


def _explain(problem: Problem, text: str, steps: list[Step]) -> Verdict:
    reference = problem.answer.strip()
    if not reference:
        return Verdict(kind="error", reason="the reference answer is empty")
    found, reason = find_answer(text, problem.question)
    if found is None:
        return Verdict(kind="wrong", reason=reason)
    shown = found.text[:200]
    steps.append((f"found ({found.source})", shown))
    if len(found.text) > MAX_ANSWER_CHARS:
        reason = f"an answer longer than {MAX_ANSWER_CHARS} characters"
        return Verdict(kind="wrong", reason=reason, answer=shown)
    reason = _why_wrong(problem, found, steps)
    later = found.later if not reason else None
    if later is not None and _names_another(problem, later):
        reason = "a statement behind the box names another answer"
    if reason:
        return Verdict(kind="wrong", reason=reason, answer=shown)
    return Verdict(kind="correct", answer=shown)


def _names_another(problem: Problem, later: str) -> bool:
    """Whether a later text is a value, and not the reference's."""
    value = read_value(_cleaned(later), question_words(problem.question))
    parts = value.parts if isinstance(value, Several) else (value,)
    is_value = all(not isinstance(part, Words) or len(part.text) == 1 for part in parts)
    return is_value and bool(_why_text(problem.answer, later, problem.question, []))


def _why_wrong(problem: Problem, found: Found, steps: list[Step]) -> str:
    if found.is_hedged:
        same = _same_text(_cleaned(problem.answer), _cleaned(found.text))
        return "" if same else "the statement is negated, a bound or a guess"
    if is_choice_letter(problem.answer):
        letter = read_letter(found.text)
        steps.append(("letter", letter or "none"))
        if letter is not None:
            wanted = read_letter(problem.answer)
            return "" if letter == wanted else "another letter"
    reason = _why_text(problem.answer, found.text, problem.question, steps)
    if not reason and is_unworked(problem.answer, found.text, problem.question):
        return "the question's own expression, not worked out"
    return reason


def _why_text(reference: str, answer: str, question: str, steps: list[Step]) -> str:
    """Return why one text does not stand for the same answer as another, "" where it does."""
    wanted, found = _cleaned(reference), _cleaned(answer)
    steps += [("normalised", found), ("reference normalised", wanted)]
    if not found:
        return "nothing is left of the answer"
    if wanted == found or _same_text(wanted, found):
        steps.append(("compared", "the same text"))
        return ""
    if _is_label(wanted):
        return "" if _spelled(wanted) == _spelled(found) else "another text; it is not worked out"
    known = question_words(question)
    target = read_value(wanted, known)
    reason = ""
    for reading in _readings(found, target, question):
        value = _with_percent(read_value(reading, known), target, question)
        reason = why_different(target, value)
        if not reason:
            break
    steps += [("parsed", describe(value)), ("reference parsed", describe(target))]
    steps.append(("compared", reason or "equal"))
    return reason


def _readings(found: str, target: Value, question: str) -> Iterator[str]:
    """Yield an answer as written, then in the other ways that it may be meant."""
    yield found
    if isinstance(target, Several) and re.fullmatch(r"-?\d{1,3}(?:,\d{3})+", found):
        yield found.replace(",", ", ")
    exact, about, rounded = found.partition(r"\approx")
    if about and isinstance(target, Quantity) and target.half_step is not None and exact.strip():
        yield rounded.strip()
    name, equals, value = found.partition("=")
    asked, named = re.sub(r"[\s$]", "", clean(question)), re.sub(r"\s", "", name)
    is_sum = re.fullmatch(r"[A-Za-z](?:[+-][A-Za-z])+", named) is not None
    is_asked = len(named) > 1 and (is_sum or named in asked) and f"{named}=" not in asked
    if equals and is_asked and isinstance(target, Quantity):
        yield value.strip()  # m + n = 313 where m + n is asked for


def _with_percent(value: Value, target: Value, question: str) -> Value:
    """Return 20% as 0.2 where neither the reference nor the question speaks of percent."""
    if not isinstance(value, Quantity) or value.unit != "percent":
        return value
    if not isinstance(target, Quantity) or target.unit == "percent":
        return value
    if len(question.split()) < MIN_QUESTION_WORDS or re.search(
        r"%|percent", question, re.IGNORECASE
    ):
        return value
    tree = ("div", value.formula.tree, ("num", Fraction(100)))
    return replace(value, formula=Formula(f"{value.formula.text}/100", tree), unit="")


@lru_cache(maxsize=8192)
def _cleaned(text: str) -> str:
    r"""Return a text in one spelling; of a sentence around a \\boxed{}, what stands in the box."""
    return clean(last_box(text)[0] or text)


def _same_text(left: str, right: str) -> bool:
    return bool(left) and words(left) == words(right)


def _is_label(wanted: str) -> bool:
    """Whether a reference only looks like a formula, or an item of a list does that is no name."""
    parts = [part.strip() for part in split_top(wanted.strip("()"), ",;")]
    return _LABEL.fullmatch(wanted) is not None or any(
        _LABEL.fullmatch(part) and not part.isalpha() for part in parts
    )


def _spelled(label: str) -> str:
    r"""Return a label without spaces, dollar signs and other marks. Example: "5 m^{2}" -> "5m2"."""
    return re.sub(r"[\s_^{}\\]|(?<=\d),(?=\d{3})", "", words(label.replace("\u27e6usd\u27e7", "")))


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
