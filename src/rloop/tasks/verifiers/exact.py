r"""`exact`: the answer, taken from free text, equal to the reference but for case and dressing.

The answer is what stands in the last \boxed{} or <answer></answer>; else, for a reference of
several lines, as many lines behind "answer:", the last code block, or the last lines; else what
"The answer is" names, or the last line. Thoughts do not count, nor what is negated, taken back or
one of several. White space is collapsed and case ignored; quotes, emphasis, \text{}, closing
punctuation and parentheses around a single letter do not count.
"""

import re
import unicodedata

from rloop.tasks.verifiers.answers import (
    Step,
    after_phrase,
    bare,
    find_answer,
    without_end_tokens,
    without_thoughts,
)
from rloop.tasks.verifiers.boxes import JOINT, find_boxes, find_tags
from rloop.tasks.verifiers.statements import last_lines, named_answer
from rloop.types import Problem, Verdict

_FORMAT = re.compile(r"\\(?:text|textbf|textit|mathrm|mathbf|mbox|boxed)\{([^{}]*)\}")
_APPOSITION = re.compile(r",\s+(?:the|an?|which|who)\s+(?!.*\b(?:or|and|not)\b)", re.IGNORECASE)
"""Paris, the capital of France."""
_WHOSE = re.compile(r"\bwhose\s+answer\s+(?:is|was|would)\b", re.IGNORECASE)
_FENCE = re.compile(r"```[^\n]*\n(.*?)```", re.DOTALL)
FENCE_LINE = re.compile(r"^[ \t]*```[\w+-]*[ \t]*$\n?", re.MULTILINE)
_PERHAPS = re.compile(r"\b(?:maybe|perhaps|possibly)\b[\s$:]*$", re.IGNORECASE)
_OTHERWISE = re.compile(r"[\s.,;)*\"'`]*(?:or|alternatively)\b", re.IGNORECASE)


def judge(problem: Problem, text: str) -> Verdict:
    """Compare the completion's answer with the reference as normalised text."""
    return explain(problem, text)[0]


def explain(problem: Problem, text: str) -> tuple[Verdict, list[Step]]:
    """Judge and return the steps on the way."""
    reference = _normalise(problem.answer)
    if not reference:
        return Verdict(kind="error", reason="the reference answer is empty"), []
    found, reason = find_text(text, problem.answer)
    if found is None:
        return Verdict(kind="wrong", reason=reason), []
    if "," not in problem.answer:
        found = _APPOSITION.split(found)[0]
    steps = [
        ("found", found[:200]),
        ("normalised", _normalise(found)),
        ("reference normalised", reference),
    ]
    if _normalise(found) == reference:
        return Verdict(kind="correct", answer=found[:200]), steps
    return Verdict(kind="wrong", reason="another answer", answer=found[:200]), steps


def find_text(text: str, reference: str) -> tuple[str | None, str]:
    """Return the text that a completion names as its answer, or None and why there is none.

    Of the reference only its form counts: how many lines it has, how its sentences end.
    """
    text, reason = without_thoughts(without_end_tokens(text))
    if reason or not text.strip():
        return None, reason or "an empty completion"
    if _WHOSE.search(text):
        return None, "the statement does not name the answer"
    found, reason = _marked(text)
    if found is not None or reason:
        return found, reason
    is_long = len(reference.strip().splitlines()) > 1
    return _lines(reference, text) if is_long else _line(reference, text)


def _marked(text: str) -> tuple[str | None, str]:
    """Return what the last tag or box holds; no reason where there is neither."""
    boxes, is_unclosed = find_boxes(text)
    if is_unclosed:
        return None, "the last \\boxed{} is not closed"
    marks = [*find_tags(text), *boxes]
    if not marks:
        return None, ""
    *others, mark = sorted(marks, key=lambda mark: mark.end)
    if any(JOINT.fullmatch(text[m.end : mark.start]) and m.text not in mark.text for m in others):
        return None, "the answer is one of several"
    reason = _why_refused(text[: mark.start], text[mark.end :])
    if reason:
        return None, reason
    inner = mark.text
    while marks := [m for m in (*find_tags(inner), *find_boxes(inner)[0]) if m.text != inner]:
        mark = max(marks, key=lambda mark: mark.end)
        if inner[: mark.start].strip(" $\n") or inner[mark.end :].strip(" $.\n"):
            break
        inner = mark.text
    return FENCE_LINE.sub("", inner).strip("\n"), ""


def _why_refused(before: str, after: str) -> str:
    """Return why an answer between these texts does not count: negated, taken back, "" if not."""
    before = re.sub(r"\\(?=[bf]\w*box)|</?answer>|\\boxed", " ", before, flags=re.IGNORECASE)
    after = re.sub(r"</?answer>|\\boxed", " ", after, flags=re.IGNORECASE)
    found, reason = find_answer(rf"{before.rstrip()} \boxed{{1}}{after}")
    if found is not None and (_OTHERWISE.match(after) or _PERHAPS.search(before)):
        return "the answer is one of several"
    return reason if found is None else ""


def _lines(reference: str, text: str) -> tuple[str | None, str]:
    """Return an answer of several lines: a code block, or lines behind a phrase or at the end."""
    num_lines = len(reference.strip().splitlines())
    fences = list(_FENCE.finditer(text))
    rest = text[fences[-1].end() :] if fences else text
    num_stated = sum(bool(line.strip()) for line in reference.splitlines())
    stated = after_phrase(rest, num_stated)
    if stated is not None and (not fences or len(stated.splitlines()) == num_stated):
        reason = named_answer(rest)[1]
        return (None, reason) if reason else (stated, "")
    if fences and (not rest.strip() or re.search("[A-Za-z]{2}", rest)):  # else a later board
        reason = _why_refused(text[: fences[-1].start()], rest)
        paragraphs = re.split(r"\n[ \t]*\n", rest.strip())
        if max(len(paragraph.splitlines()) for paragraph in paragraphs) >= num_stated:
            reason = reason or "as many lines follow the code block, perhaps another answer"
        return (None, reason) if reason else (fences[-1][1].strip("\n"), "")
    found = last_lines(text, num_lines)
    reason = _why_refused(text[: len(text) - len(found)], "")
    return (None, reason) if reason else (found, "")


def _line(reference: str, text: str) -> tuple[str | None, str]:
    """Return an answer of one line: what a statement names, else the last line."""
    stated = after_phrase(text)
    if stated is not None:
        return _stated(reference, text, stated)
    line = last_lines(text)
    return (line, "") if line else (None, "an empty completion")


def _stated(reference: str, text: str, line: str) -> tuple[str | None, str]:
    """Return the answer that a line behind "answer is" begins with."""
    named, reason = named_answer(text)
    own, own_reason = named_answer(f"The answer is {reference}")  # "What?" may be an answer
    if reason and reason != own_reason:
        return None, reason
    if named is not None and named.is_hedged and not (own is not None and own.is_hedged):
        return None, "the statement is negated, a bound or a guess"
    if not re.search(r"[.!?]\s", reference):
        line = re.split(r"[.!?][*\"'`]*\s+(?=[A-Z(])", line)[0]
    if _OTHERWISE.match(text[text.rfind(line) + len(line) :]):
        return None, "the answer is one of several"
    return line, ""


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
