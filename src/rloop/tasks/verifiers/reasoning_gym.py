r"""`reasoning_gym`: the data set's own scorer, made binary, on an answer taken from free text.

The answer is taken from the last <answer></answer>; else the last \boxed{}; else, where the
reference is a number, the number that `numeric` finds; else as many lines as the reference has:
after such a phrase, of the last code block, or the last.
Quotes, emphasis and closing punctuation may stand around it; it may follow an "=" or, being one
word, end the line.
A score counts as correct from 1 - 1e-6 on; scorers that run or wave through text are replaced.
"""

import json
from collections.abc import Callable, Iterable, Mapping
from contextlib import nullcontext
from functools import lru_cache
from typing import Any

import reasoning_gym

from rloop.tasks.verifiers.answers import after_phrase, bare, last_box, last_fence, last_tag
from rloop.tasks.verifiers.gym_checkers import CHECKERS
from rloop.tasks.verifiers.gym_guard import ExecutionRefused, guarded
from rloop.tasks.verifiers.numbers import last_number, whole_number_text
from rloop.tasks.verifiers.numeric import find_number
from rloop.tasks.verifiers.statements import last_lines
from rloop.types import Problem, Verdict

CORRECT_FROM = 1.0 - 1e-6
# Their scorers compare boards of tuples, which JSON turns into lists.
_TUPLE_DATASETS = ("arc_agi", "rearc")

# The scorer has worked on the reference (the self-test), so what it raises is due to the answer.
_UNREADABLE = (ValueError, LookupError, TypeError, AttributeError, ArithmeticError, RecursionError)

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
    """Score the answers that the completion may mean; the first that is right decides."""
    score = _scorer(dataset_key(problem))
    answers = find_answers(text, problem.answer, problem.question)
    if not answers:
        # Some text always means something, unless it is a number that is wanted.
        missing = "no number in the completion" if text.strip() else "an empty completion"
        return Verdict(kind="wrong", reason=missing)
    reason = "wrong by the data set's scorer"
    for answer in answers:
        try:
            value = score(answer, problem.answer, _entry(problem))
        except _UNREADABLE as error:
            reason = f"the data set's scorer cannot read the answer: {error}"[:200]
            continue
        except ExecutionRefused as error:
            reason = f"the data set's scorer tried to run the answer ({error})"
            return Verdict(kind="error", reason=reason, answer=answer[:200])
        if value >= CORRECT_FROM:
            return Verdict(kind="correct", answer=answer[:200])
    return Verdict(kind="wrong", reason=reason, answer=answers[-1][:200])


def find_answers(text: str, reference: str, question: str = "") -> list[str]:
    """Return what the completion may mean as its answer, as written first, then barer forms."""
    marked = last_tag(text) or last_box(text)[0]
    if whole_number_text(reference) is not None:
        return _unique([_number_text(find_number(text, question)[0] or "", reference), marked])
    if marked is not None:
        return _unique([marked, bare(marked)])
    num_lines = len(reference.strip().splitlines())
    if num_lines > 1:
        answers = [last_lines(text, num_lines), after_phrase(text, num_lines), last_fence(text)]
        return _unique(answers)
    line = last_lines(text)
    found = after_phrase(line) or line
    answers = [line, found, bare(found)]
    if "=" in found and "=" not in reference:
        answers.append(bare(found.rpartition("=")[2]))
    if len(reference.split()) == 1 and found:
        answers.append(bare(found.split()[-1]))
    return _unique(answers)


def _number_text(text: str, reference: str) -> str | None:
    """Return the last number of a text as a scorer reads it: no separators, 8.00 as 8 for 8."""
    number = last_number(text)
    if number is None:
        return None
    digits = number.text.replace(",", "").removesuffix("%").rstrip("\\ ")
    is_plain = number.value is not None and "e" not in digits.casefold()
    if is_plain and reference.strip("+-").isdigit() and "." in digits and "/" not in digits:
        digits = digits.rstrip("0").rstrip(".")
    return digits


def _unique(answers: Iterable[str | None]) -> list[str]:
    return list(dict.fromkeys(answer for answer in answers if answer and answer.strip()))


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
