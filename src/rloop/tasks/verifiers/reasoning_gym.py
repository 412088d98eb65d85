r"""`reasoning_gym`: the data set's own scorer, made binary, on the one answer that a text names.

Where the reference is a number, the answer is the number that `numeric` finds, else the text that
`exact` finds; a reference of one word may also end a last line such as "So it is false." A
completion that repeats the question has none. Quotes, emphasis and closing punctuation may stand
around an answer. A score counts as correct from 1 - 1e-6 on; scorers that run or wave through text
are replaced.
"""

import json
import re
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from decimal import Decimal
from fractions import Fraction
from functools import lru_cache
from typing import Any

import reasoning_gym

from rloop.tasks.verifiers.answers import (
    after_phrase,
    bare,
    with_ascii_numbers,
    without_end_tokens,
    without_thoughts,
)
from rloop.tasks.verifiers.exact import FENCE_LINE, find_text
from rloop.tasks.verifiers.gym_checkers import (
    CHECKERS,
    EQUATIONS,
    SAME_LENGTH,
    ExecutionRefused,
    guarded,
)
from rloop.tasks.verifiers.latex import clean
from rloop.tasks.verifiers.numbers import read_number
from rloop.tasks.verifiers.numeric import find_number
from rloop.tasks.verifiers.reading import read_value
from rloop.tasks.verifiers.statements import is_echo, repeats, sentences
from rloop.tasks.verifiers.units import question_words
from rloop.tasks.verifiers.values import Named, Quantity
from rloop.types import Problem, Verdict

CORRECT_FROM = 1.0 - 1e-6
# Their scorers compare boards of tuples, which JSON turns into lists.
_TUPLE_DATASETS = ("arc_agi", "rearc")

# The scorer has worked on the reference (the self-test), so what it raises is due to the answer.
_UNREADABLE = (ValueError, LookupError, TypeError, AttributeError, ArithmeticError, RecursionError)

_SAID = re.compile(
    r"(?P<head>.*(?:\b(?:is|are|was|were|be|equals?|gives?|gets?|becomes?|makes?|took|takes)\b"
    r"|[=:\u2192]\s))\s*(?P<value>\S+)",
    re.IGNORECASE | re.DOTALL,
)
_UNSURE = re.compile(
    r"\b(?:not|never|if|whether|maybe|perhaps|possibly|might|may|could|or|either|neither|nor"
    r"|wrong|incorrect|false|doubt|guess|suppose|assume|unless|unlikely|answer)\b|n't\b",
    re.IGNORECASE,
)

Score = Callable[[str, str, Mapping[str, Any]], float]
"""(answer, reference, the entry's metadata) -> score."""


def dataset_key(problem: Problem) -> str:
    """Return what one scorer serves: the data set and its parameters."""
    metadata = problem.metadata
    return json.dumps([metadata.get("dataset"), metadata.get("params")], sort_keys=True)


def prepare(problem: Problem) -> None:
    """Build the data set's scorer and try it on the reference, so that it imports all it needs."""
    score = _scorer(dataset_key(problem))
    score(problem.answer, problem.answer, _entry(problem))


def judge(problem: Problem, text: str) -> Verdict:
    """Score the one answer that the completion names, as it is written and without quotes."""
    score = _scorer(dataset_key(problem))
    found, reason = find_named(problem, text)
    if found is None:
        return Verdict(kind="wrong", reason=reason)
    reason = "wrong by the data set's scorer"
    is_reference = bare(found).split() == bare(problem.answer).split()
    for answer in [problem.answer] if is_reference else dict.fromkeys((found, bare(found))):
        try:
            value = score(answer, problem.answer, _entry(problem))
        except _UNREADABLE as error:
            reason = f"the data set's scorer cannot read the answer: {error}"[:200]
            continue
        except ExecutionRefused as error:
            reason = f"the data set's scorer tried to run the answer ({error})"
            return Verdict(kind="error", reason=reason, answer=found[:200])
        if value >= CORRECT_FROM:
            return Verdict(kind="correct", answer=found[:200])
    return Verdict(kind="wrong", reason=reason, answer=found[:200])


def find_named(problem: Problem, text: str) -> tuple[str | None, str]:
    """Return the one answer that a completion names, or None and why there is none."""
    text, reason = without_thoughts(text)
    text = without_end_tokens(text).strip()
    if reason or not text:
        return None, reason or "an empty completion"
    if _is_question(text, problem):
        return None, "the completion repeats the question"
    if len(problem.answer.strip().splitlines()) == 1:
        text = FENCE_LINE.sub("", text)  # one line in a block
    if read_number(with_ascii_numbers(problem.answer)) is not None:
        return _number(problem, text)
    found, reason = find_text(text, problem.answer)
    if found is None:
        return None, reason
    dataset = problem.metadata.get("dataset")
    if _is_question(found, problem):
        return None, "the answer repeats the question"
    if len(problem.answer.split()) == 1 < len(found.split()) and after_phrase(text) is None:
        found = found if dataset in EQUATIONS else _last_word(problem, found)
    if "=" in found and "=" not in problem.answer and dataset not in EQUATIONS:
        found = found.rpartition("=")[2].strip()
    if dataset in SAME_LENGTH and len(found.split()) > len(problem.answer.split()):
        return None, "more words than an answer has"
    return (found, "") if bare(found) or found == problem.answer else (None, "an empty answer")


def _is_question(text: str, problem: Problem) -> bool:
    """Whether a text repeats the question; the reference may stand in it as well."""
    is_reference = bare(text).split() == problem.answer.split()
    return is_echo(text, problem.question, share=0.3) and not is_reference


def _number(problem: Problem, text: str) -> tuple[str | None, str]:
    """Return the digits of the one number that a text names, as a scorer reads them."""
    found, reason = find_number(text, problem.question)
    if found is None:
        return None, reason
    value = read_value(clean(found), question_words(problem.question))
    if isinstance(value, Named):
        value = value.value
    if not isinstance(value, Quantity) or value.formula.tree[0] not in ("num", "dec"):
        return None, "no single number in the answer"
    number, digits = Fraction(value.formula.tree[1]), value.formula.text.replace(",", "").strip()
    if value.unit == "percent" and not re.search(r"%|percent|\bper cent", problem.question):
        number, digits = number / 100, ""
    if number.denominator == 1 and problem.answer.strip("+-").isdigit():
        return str(number), ""  # 8 for 8.00
    if re.fullmatch(r"-?[\d.]+", digits):
        return digits, ""
    is_decimal = value.half_step is not None or not digits
    decimal = Decimal(number.numerator) / Decimal(number.denominator)
    return (f"{decimal:f}" if is_decimal else str(number)), ""


def _last_word(problem: Problem, line: str) -> str:
    """Return the word that the last sentence ends in, behind "is", "=" and the like.

    The line itself where there is none; nothing where it is a question, negated or a guess.
    """
    sentence = sentences(line)[-1].strip()
    found = _SAID.fullmatch(sentence)
    if found is None:
        return line
    if sentence.rstrip("*\"'` ").endswith("?") or _UNSURE.search(found["head"]):
        return ""
    return "" if repeats(sentence, problem.question) else str(found["value"])


@lru_cache(maxsize=64)
def _scorer(key: str) -> Score:
    dataset, params = json.loads(key)
    checker = CHECKERS.get(dataset)
    if checker is not None:
        return checker
    source = reasoning_gym.create_dataset(dataset, **{**params, "seed": 0, "size": 1})

    def score(answer: str, reference: str, metadata: Mapping[str, Any]) -> float:
        entry = {"question": "", "answer": reference, "metadata": dict(metadata)}
        with guarded() if answer != reference else nullcontext():
            return float(source.score_answer(answer, entry))

    return score


def _entry(problem: Problem) -> Mapping[str, Any]:
    entry: Mapping[str, Any] = problem.metadata["entry"]
    if problem.metadata["dataset"] in _TUPLE_DATASETS:
        return {key: _as_tuples(value) for key, value in entry.items()}
    return entry


def _as_tuples(value: Any) -> Any:  # noqa: ANN401 -- JSON values of any depth
    return tuple(_as_tuples(item) for item in value) if isinstance(value, list) else value
