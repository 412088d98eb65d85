r"""`exact`: the answer, taken from free text, equal to the reference but for case and dressing.

The answer is what stands in the last \boxed{}, else between the last <answer></answer>, else
behind "answer is" on the last line, else the last line; thoughts do not count. White space is
collapsed and case ignored; quotes, emphasis, \text{}, closing punctuation and parentheses around
a single letter do not count.
"""

import re
import unicodedata

from rloop.tasks.verifiers.answers import (
    Step,
    after_phrase,
    bare,
    find_answer,
    last_box,
    last_tag,
    without_end_tokens,
    without_thoughts,
)
from rloop.tasks.verifiers.statements import last_lines
from rloop.types import Problem, Verdict

_FORMAT = re.compile(r"\\(?:text|textbf|textit|mathrm|mathbf|mbox|boxed)\{([^{}]*)\}")
_APPOSITION = re.compile(r",\s+(?:the|an?|which|who)\s+(?!.*\b(?:or|and|not)\b)", re.IGNORECASE)
"""Paris, the capital of France."""
_WHOSE = re.compile(r"\bwhose\s+answer\b", re.IGNORECASE)


def judge(problem: Problem, text: str) -> Verdict:
    """Compare the completion's answer with the reference as normalised text."""
    return explain(problem, text)[0]


def explain(problem: Problem, text: str) -> tuple[Verdict, list[Step]]:
    """Judge and return the steps on the way."""
    reference = _normalise(problem.answer)
    if not reference:
        return Verdict(kind="error", reason="the reference answer is empty"), []
    visible, reason = without_thoughts(without_end_tokens(text))
    answers = [] if reason else _answers(visible, problem.answer)
    if reason or not any(answers):
        return Verdict(kind="wrong", reason=reason or "an empty completion"), []
    found = answers[-1][:200]
    steps = [
        ("found", found),
        ("normalised", _normalise(answers[-1])),
        ("reference normalised", reference),
    ]
    if any(_normalise(answer) == reference for answer in answers):
        return Verdict(kind="correct", answer=found), steps
    return Verdict(kind="wrong", reason="another answer", answer=found), steps


def _answers(text: str, reference: str) -> list[str]:
    found, reason = find_answer(text)
    if (
        found is not None
        and found.source in ("box", "tag")
        and (last_box(text)[0] or last_tag(text))
    ):
        return [last_box(found.text)[0] or found.text]
    is_refused = any(words in reason for words in ("not name", "taken back", "question"))
    is_refused = is_refused or _WHOSE.search(text) is not None
    num_lines = len([line for line in reference.splitlines() if line.strip()])
    if num_lines > 1:
        lines = None if is_refused else after_phrase(text, num_lines)
        return [lines or last_lines(text, num_lines)]
    is_stated = found is not None and found.source == "statement" and not found.is_hedged
    if found is not None and is_stated and not is_refused:
        return [found.text if "," in reference else _APPOSITION.split(found.text)[0]]
    line = re.sub(r"^\s*[-*\u2022]\s+", "", last_lines(text))
    if is_refused:
        return [line]
    return [line, after_phrase(line) or line]


def _normalise(text: str) -> str:
    text = unicodedata.normalize("NFC", text)
    if not bare(text):
        return text.strip()
    previous = None
    while previous != text:
        previous = text
        text = bare(_FORMAT.sub(r"\1", text))
        text = re.sub(r"^[(\[]\s*(\w)\s*[)\]]$", r"\1", text)
    return " ".join(text.split()).casefold()
