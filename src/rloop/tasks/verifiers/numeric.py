r"""`numeric`: the number that a completion ends on against a reference that is one number.

A \boxed{}, an <answer></answer>, "#### 5" or "The answer is 5." decides where there is one,
wherever it stands; else the last number of the text, unless it is part of something else: an
operand (2 + 3), a list (4, 5), an alternative (4 or 5), negated (not 5), a bound (at least 5), a
power (x^5), or words of the question. Numbers are compared as `math` compares them.
"""

import re
from functools import lru_cache

from rloop.tasks.verifiers import numbers
from rloop.tasks.verifiers.answers import Step, find_answer, with_ascii_numbers, without_thoughts
from rloop.tasks.verifiers.echo import is_unworked
from rloop.tasks.verifiers.equality import why_different
from rloop.tasks.verifiers.latex import clean
from rloop.tasks.verifiers.reading import read_value
from rloop.tasks.verifiers.statements import repeats, sentences
from rloop.tasks.verifiers.units import question_words
from rloop.tasks.verifiers.values import Named, Quantity
from rloop.types import Problem, Verdict

MAX_CHARS = 1000
_BEFORE = re.compile(
    r"(?:[+*/^_\u00d7\u00f7\u00b1\u221a\u2260\u2215\u2022&%=\uff0b<>\u2264\u2265~]"
    r"|\\(?:times|cdot|div|pm|sqrt|log|ln|neq?|leq?|geq?)"
    r"|\b(?:log|ln|sqrt|sin|cos|tan)|[\d)]\s*-|\d\s*[,;:]"
    r"|\b(?:plus|minus|times|over|by|divided\s+by|multiplied\s+by|modulo|mod|of\s+\d+\s+and"
    r"|between|from"
    r"|no\s+answer|(?:not|never|cannot|[a-z]+n't)(?:\s+(?:be|equal(?:\s+to)?"
    r"|(?:think|believe|know)(?:\s+\w+){0,4}))?|least|most|than|up\s+to|over"
    r"|under|above|below|almost|nearly|neither|nor|or|maybe"
    r"|perhaps|possibly|versus|vs|twice|double|half(?:\s+of)?|if(?:\s+\w+){0,2}|triple|third\s+of|quarter\s+of|root\s+of|let\s+\w+\s*=|assume|chapter|page|remainder|guess|instead\s+of"
    r"|rather\s+than|step|question|problem|part|option|line|number|equation"
    r"|case|hundred|thousand|million|billion)|[A-Za-z]\(|\d\s+(?:[a-z]+[,;]\s*)?"
    r"|\d[\w\s]{0,12}\b(?:and|to))\s*[$\\({*]*\s*-?$",
    re.IGNORECASE,
)
_AFTER = re.compile(
    r"\*{0,2}\s*(?:[+^_!]|\*(?![*\s.,]|$)(?=\s*\d)|\*\s+-?\d|x\s*\d|/\s*\d|-\s*\d|\u00d7|\u00f7|\\(?:times"
    r"|cdot|div)|:\d"
    r"|,\s*\d|[.'|]+\d|(?:st|nd|rd|th)\b|\btimes\s+(?:\d|as)|is\s+(?:wrong|not|incorrect)"
    r"|\s+(?:squared|cubed)\b|[\u2080-\u2089]"
    r"|\s+and\s+(?:a\s+|one\s+)?(?:half|quarter|third|\w+\s+quarters)|\s+(?:a\s+)?half\b"
    r"|\b(?:or|plus|minus|divided|multiplied)\b)",
    re.IGNORECASE,
)
_GLUED = re.compile(r"(?:[^\W\d_]|\d[.'|]*)$")
"""What stands right before the end of something longer: v5, 7.0.5, 3..5, 2'5."""
_RESULT = re.compile(
    r"(?<!\d[A-Za-z])(?<!\d[A-Za-z]\s)=\s*(?:\\[(\[]\s*)?(?:\\?[$\u20ac\u00a3]\s*)?\**(?=-?\s*[$\u20ac"
    r"\u00a3]?\d|-?\s*\.\d)"
)
"""A number behind an equals sign is a result, whatever the sentence goes on to say."""


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
    if not reason and is_unworked(problem.answer, found, problem.question):
        reason = "the question's own expression, not worked out"
    steps.append(("compared", reason or "equal"))
    if reason:
        reason = "another number" if reason.startswith("not equal") else reason
        return Verdict(kind="wrong", reason=reason, answer=shown), steps
    return Verdict(kind="correct", answer=shown), steps


def find_number(text: str, question: str) -> tuple[str | None, str]:
    """Return the text of the number that a completion names, or None and why there is none."""
    known = question_words(question)
    found, reason = find_answer(text, question)
    if found is not None and found.source in ("box", "tag"):
        later = _read(found.later, known) if found.later is not None else None
        value = _read(found.text, known)
        if later is not None and value is not None and why_different(value, later):
            return None, "a statement behind the box names another number"
        return found.text, ""
    if found is not None and found.source == "statement":
        if found.is_hedged:
            return None, "the statement is negated, a bound or a guess"
        stated = found.text.rstrip("!")
        if _read(stated, known) is not None:
            return stated, ""
        return _number_in(_plain(stated)) or (None, "no number in the statement")
    if found is not None and found.source == "whole text" and _read(found.text, known) is not None:
        return found.text, ""
    if found is None and reason.startswith(("it ends", "the boxed", "the answer", "the statement")):
        return None, reason
    return _last_of(text, question)


def _last_of(text: str, question: str) -> tuple[str | None, str]:
    """Return the last number of a free text, from its last sentence that has one."""
    visible, reason = without_thoughts(text)
    if reason or (question and repeats(visible, question)):
        return None, reason or "the completion repeats the question"
    for sentence in reversed([_plain(sentence) for sentence in sentences(visible)]):
        if numbers.last_number_span(sentence) is None:
            continue
        if sentence.rstrip(" *_\"'$").endswith("?") and not _RESULT.search(sentence):
            return None, "its last number stands in a question"
        if question and repeats(sentence, question):
            return None, "its last number is the question's"
        return _number_in(sentence) or (None, "its last number is part of an expression or a guess")
    return None, "no number in the completion"


def _plain(sentence: str) -> str:
    """Return a sentence without emphasis, its digits and minus signs in ASCII."""
    sentence = re.sub(r"\*\*|__", "", with_ascii_numbers(sentence)).replace("\u2019", "'")
    sentence = re.sub(r"(?<![\d)]\s)\b(?:negative|minus)\s+(?=\d)", "-", sentence)
    return re.sub(r"(?<!\S)\*(\S[^*]*\S|\S)\*(?![\w*])", r"\1", sentence)


def _number_in(sentence: str) -> tuple[str, str] | None:
    """Return the number that a sentence states: behind its last "=", else its last one."""
    results = [
        found for found in _RESULT.finditer(sentence) if sentence[found.start() - 1] not in "!<>"
    ]
    if results:
        start = results[-1].end()
        place = numbers.first_number_span(sentence[start:])
        if place is not None and not _AFTER.match(sentence[start + place[1] :]):
            end = start + place[1]
            return sentence[results[-1].start() + 1 : end].strip(" *") + _factor(sentence[end:]), ""
        return None
    place = numbers.last_number_span(sentence)
    if place is None:
        return None
    start, end = place
    before, after = sentence[max(0, start - 40) : start], sentence[end : end + 30]
    if _BEFORE.search(before) or _AFTER.match(after) or _GLUED.search(before):
        return None
    if re.match(r"[A-Za-z]", after) and not re.match(r"[A-Za-z]{2,}", after):
        return None
    return sentence[start:end].strip() + _factor(sentence[end:]), ""


def _factor(after: str) -> str:
    """Return a factor that stands right behind a number: 1 million."""
    found = re.match(r"\s+(dozens?|hundreds?|thousands?|millions?|billions?|trillions?)\b", after)
    return found[0] if found else ""


@lru_cache(maxsize=8192)
def _read(text: str, known: frozenset[str]) -> Quantity | None:
    """Return the number that a whole text is, with its unit; None for anything else."""
    text = clean(text) if len(text) <= MAX_CHARS else ""
    value = read_value(text, known)
    for side in text.split("=") if isinstance(value, Quantity) and "=" in text else ():
        if numbers.read_number(side.strip()) is not None:
            value = read_value(side.strip(), known)  # 7 = 3 + 4
    if isinstance(value, Named):
        value = value.value
    if not isinstance(value, Quantity) or value.formula.symbols:
        return None
    is_plain = value.formula.is_number or numbers.is_simple(value.formula)
    return value if is_plain else None
