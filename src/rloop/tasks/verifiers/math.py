r"""`math`: the final answer, read step by step, has the value of the reference.

Four steps, each a function with its own table of cases: find the answer (answers.py), rewrite it
into one spelling (latex.py), parse it into a value (values.py), compare (equality.py). What this
parser cannot read is compared by math-verify, which reads more LaTeX and knows less of structure,
and only where both sides are plain expressions. Nothing is ever evaluated as code. It runs in the
main thread of a worker process: an alarm after a second of processor time stands around it.
"""

import logging
import re
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache

import math_verify

from rloop.tasks.verifiers.answers import Found, Step, find_answer, last_box
from rloop.tasks.verifiers.choice import is_choice_letter, read_letter
from rloop.tasks.verifiers.echo import is_unworked
from rloop.tasks.verifiers.equality import why_different
from rloop.tasks.verifiers.latex import clean, words
from rloop.tasks.verifiers.reading import read_value
from rloop.tasks.verifiers.units import question_words
from rloop.tasks.verifiers.values import Value, Words, describe
from rloop.types import Problem, Verdict

LIMIT_S = 1.0
MAX_ANSWER_CHARS = 1000

# It warns that its limits are off; ours are on.
logging.getLogger("math_verify").setLevel(logging.CRITICAL)


class LimitReached(BaseException):
    """The alarm rang; not an `Exception`, so that sympy and math-verify let it through."""


def warm_up() -> None:
    """Fill the caches of what judging needs; math-verify is slow the first time."""
    for answer in (
        r"\lim_{x \to 0} x",
        r"\sum_{i=1}^n i",
        r"x \oplus y",
        r"\vec{a} \times \vec{b}",
    ):
        _by_math_verify(answer, answer + "+1")


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
    except RecursionError:
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
    if later is not None and _why_text(reference, later, problem.question, []):
        reason = "a statement behind the box names another answer"
    for other in found.others if reason and _is_several(reference) else ():
        joined: list[Step] = [("found (all boxes)", other[:200])]
        if not _why_text(reference, other, problem.question, joined):
            steps[:] = joined
            return Verdict(kind="correct", answer=other[:200])
    if reason:
        return Verdict(kind="wrong", reason=reason, answer=shown)
    return Verdict(kind="correct", answer=shown)


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


def _is_several(reference: str) -> bool:
    return bool(re.search(r"[,;]|\\pm|\band\b|\bor\b", clean(reference)))


def _why_text(reference: str, answer: str, question: str, steps: list[Step]) -> str:
    """Return why one text does not stand for the same answer as another, "" where it does."""
    wanted, found = _cleaned(reference), _cleaned(answer)
    steps += [("normalised", found), ("reference normalised", wanted)]
    if not found:
        return "nothing is left of the answer"
    if wanted == found or _same_text(wanted, found):
        steps.append(("compared", "the same text"))
        return ""
    known = question_words(question)
    value, target = read_value(found, known), read_value(wanted, known)
    steps += [("parsed", describe(value)), ("reference parsed", describe(target))]
    reason = why_different(target, value)
    if reason and _is_open(value, target, found, wanted):
        steps.append(("compared", "by math-verify"))
        return "" if _by_math_verify(wanted, found) else "not equal to the reference"
    steps.append(("compared", reason or "equal"))
    return reason


@lru_cache(maxsize=8192)
def _cleaned(text: str) -> str:
    r"""Return a text in one spelling; of a sentence around a \\boxed{}, what stands in the box."""
    return clean(last_box(text)[0] or text)


def _same_text(left: str, right: str) -> bool:
    return bool(left) and words(left) == words(right)


def _is_open(value: Value, target: Value, found: str, wanted: str) -> bool:
    """Whether neither could be read although both look like formulas: math-verify may tell."""
    both = isinstance(value, Words) and isinstance(target, Words)
    return both and all("\\" in text and "\u27e6" not in text for text in (found, wanted))


def _by_math_verify(reference: str, answer: str) -> bool:
    gold, found = (
        list(math_verify.parse(f"\\boxed{{{text}}}", parsing_timeout=None))[:1]
        for text in (reference, answer)
    )
    if not gold or not found or isinstance(gold[0], str) or isinstance(found[0], str):
        return False
    if type(gold[0]).__name__ != type(found[0]).__name__:
        return False
    return bool(math_verify.verify(gold, found, timeout_seconds=None))


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
