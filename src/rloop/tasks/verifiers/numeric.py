r"""`numeric`: the number that a completion ends on against a reference that is one number.

A \boxed{}, an <answer></answer>, "#### 5" or "The answer is 5." decides where there is one,
wherever it stands; else the last number of the text, unless it is part of something else: an
operand (2 + 3), a list (4, 5), an alternative (4 or 5), negated (not 5), a bound (at least 5), a
power (x^5), or words of the question. Numbers are compared as `math` compares them.
"""

import re
from functools import lru_cache

from rloop.tasks.verifiers import numbers
from rloop.tasks.verifiers.answers import Step, find_answer, repeats, sentences, without_thoughts
from rloop.tasks.verifiers.equality import why_different
from rloop.tasks.verifiers.latex import clean
from rloop.tasks.verifiers.reading import read_value
from rloop.tasks.verifiers.units import question_words
from rloop.tasks.verifiers.values import Named, Quantity
from rloop.types import Problem, Verdict

MAX_CHARS = 1000
_BEFORE = re.compile(
    r"(?:[+*/^_\u00d7\u00f7]|\\(?:times|cdot|div)|[\d)]\s*-|\d\s*,|\d\s*:"
    r"|\b(?:plus|minus|times|over|by|divided\s+by|multiplied\s+by|modulo|mod|of\s+\d+\s+and"
    r"|between|from"
    r"|not|never|n't|least|most|than|up\s+to|over|under|above|below|almost|nearly|neither|nor|or"
    r"|instead\s+of|rather\s+than|step|question|problem|part|option|line|number|equation|case)"
    r"|\d[\w\s]{0,12}\band)\s*[$\\({]*\s*-?$",
    re.IGNORECASE,
)
_AFTER = re.compile(
    r"\s*(?:[+*^_!]|/\s*\d|-\s*\d|\u00d7|\u00f7|\\(?:times|cdot|div)|:\d|,\s*\d"
    r"|(?:st|nd|rd|th)\b|\b(?:or|plus|minus|times|divided|multiplied|million|billion|thousand"
    r"|hundred)\b)",
    re.IGNORECASE,
)


def judge(problem: Problem, text: str) -> Verdict:
    """Compare the completion's number with the reference."""
    return explain(problem, text)[0]


def explain(problem: Problem, text: str) -> tuple[Verdict, list[Step]]:
    """Judge and return the steps on the way."""
    steps: list[Step] = []
    known = question_words(problem.question)
    reference = _read(problem.answer, known)
    if reference is None:
        reason = (
            f"reference {problem.answer!r:.80} is not one number; math compares expressions, lists "
            "and tuples, exact compares texts"
        )
        return Verdict(kind="error", reason=reason), steps
    found, reason = find_number(text, problem.question)
    steps.append(("found", found or "none"))
    if found is None:
        return Verdict(kind="wrong", reason=reason), steps
    value = _read(found, known)
    steps.append(("parsed", value.formula.text if value else "no number"))
    shown = found[:200]
    if value is None:
        return Verdict(kind="wrong", reason="no single number in the answer", answer=shown), steps
    reason = why_different(reference, value)
    steps.append(("compared", reason or "equal"))
    if reason:
        reason = "another number" if reason.startswith("not equal") else reason
        return Verdict(kind="wrong", reason=reason, answer=shown), steps
    return Verdict(kind="correct", answer=shown), steps


def find_number(text: str, question: str) -> tuple[str | None, str]:
    """Return the text of the number that a completion names, or None and why there is none."""
    known = question_words(question)
    found, reason = find_answer(text, question)
    if found is not None:
        if found.is_hedged:
            return None, "the statement is negated, a bound or a guess"
        value = _read(found.text, known)
        if found.later is not None and value is not None:
            later = _read(found.later, known)
            if later is not None and why_different(value, later):
                return None, "a statement behind the box names another number"
        if found.source in ("box", "tag") or value is not None:
            return found.text, ""
        if found.source == "statement":
            return _last_free(found.text) or (None, "no number in the statement")
    elif not reason.startswith(("no statement", "the last \\boxed", "the last line does not")):
        return None, reason
    return _last_of(text, question)


def _last_of(text: str, question: str) -> tuple[str | None, str]:
    """Return the last number of a free text, from its last sentence that has one."""
    visible, _ = without_thoughts(text)
    for sentence in reversed(sentences(visible)):
        if numbers.last_number(sentence) is None:
            continue
        if sentence.rstrip(" *_\"'$").endswith("?"):
            return None, "its last number stands in a question"
        if question and repeats(sentence, question):
            return None, "its last number is the question's"
        return _last_free(sentence) or (None, "its last number is part of an expression or a guess")
    return None, "no number in the completion"


def _last_free(sentence: str) -> tuple[str, str] | None:
    """Return the last number of a sentence where it stands for itself, with the unit behind it."""
    place = numbers.last_number_span(sentence)
    if place is None:
        return None
    start, end = place
    before, after = sentence[max(0, start - 40) : start], sentence[end : end + 30]
    if _BEFORE.search(before) or _AFTER.match(after) or (before and before[-1].isalpha()):
        return None
    if re.match(r"[A-Za-z]", after) and not re.match(r"[A-Za-z]{2,}", after):
        return None
    return sentence[start:end].strip(), ""


@lru_cache(maxsize=8192)
def _read(text: str, known: frozenset[str]) -> Quantity | None:
    """Return the number that a whole text is, with its unit; None for anything else."""
    value = read_value(clean(text), known) if len(text) <= MAX_CHARS else None
    if isinstance(value, Named):
        value = value.value
    if not isinstance(value, Quantity) or value.formula.symbols:
        return None
    is_plain = value.formula.is_number or numbers.is_simple(value.formula)
    return value if is_plain else None
