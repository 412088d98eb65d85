r"""`choice`: letters of multiple choice, found as `math` finds an answer.

"B", "(B)", "B) 5", "\boxed{\text{B}}", "<answer>b</answer>", "Option B" and "B is correct" name B;
"A or B", "B, C" and "not B" name no single letter. A reference of several letters ("A, C") wants
just those, in any order. Case does not count for a letter that stands alone.
"""

import re

from rloop.tasks.verifiers.answers import (
    Step,
    find_answer,
    without_end_tokens,
    without_thoughts,
)
from rloop.tasks.verifiers.latex import WORDS_CLOSE, WORDS_OPEN, clean
from rloop.tasks.verifiers.statements import Found, is_taken_back, sentences
from rloop.types import Problem, Verdict

_ALONE = re.compile(r"\(?\[?\s*([A-Za-z])\s*\]?\)?[.:]?")
_WITH_TEXT = re.compile(
    r"(?:\(\s*([A-Z])\s*\)|\[([A-Z])\]|([A-Z])\s*[).:])\s*([^\s+*/^\\,;-].*)", re.DOTALL
)
_NAMED = re.compile(
    r"(?:the\s+)?(?:(?:final|correct|right|best)\s+)?(?:option|choice|answer|ans|letter)\.?\s*:?\s*"
    r"\(?([A-Za-z])\)?",
    re.IGNORECASE,
)
_REASON = re.compile(r"\(?([A-Z])\)?\s*,?\s+(?:since|because|as)\b[^()]*", re.DOTALL)
_CHOSEN = re.compile(
    r"\b(?:option|choice|letter|choose|pick|select|with)\s+\(?([A-Z])\b"
    r"|(?:^|\s)\(?([A-Z])\)?\s+is\s+(?:the\s+)?(?:correct|right|best|answer)|\bis\s+\(([A-Z])\)"
)
_UNSURE = re.compile(r"\b(?:or|not|nor|neither|either|maybe|perhaps|if|wrong|incorrect)\b|n't\b|\?")
_LED_TO = re.compile(
    r"(?:(?:so|thus|hence|therefore)\b,?\s*)?(?:it\s+is|it's|it\s+must\s+be)?\s*(?=\(?[A-Z]\b)",
    re.IGNORECASE,
)
_EXPLAINED = re.compile(
    r"\s*\n\W*(?:explanation|reason|reasoning|rationale|justification|because)\b", re.IGNORECASE
)
_NEGATED = re.compile(r"[~\u00ac!]\s*\(?[A-Za-z]\b")
_SAID = re.compile(
    r"\(?([A-Z])\)?\s+is\s+(?:the\s+)?(?:correct|right|true|best|answer)(?:\s+(?:answer"
    r"|option|choice|one))?"
)
_ANOTHER = re.compile(
    r"\b(?:or|and|not|nor|both|either|OR|AND|NOT)\b|\([A-Z]\)|\b[A-Z]\s*[).:]|n't\b|\b[B-HJ-Z]\b"
    r"|\bA\b(?!\s+[a-z])|\balso\b"
)
_LETTERS = re.compile(
    r"\(?\s*([A-Za-z])\s*\)?(?:\s*(?:,|;|and|&)\s*(?:and\s+)?\(?\s*([A-Za-z])\s*\)?)+|[A-Z]{2,10}"
)


def judge(problem: Problem, text: str) -> Verdict:
    """Compare the letters that the completion and the reference name."""
    return explain(problem, text)[0]


def explain(problem: Problem, text: str) -> tuple[Verdict, list[Step]]:
    """Judge and return the steps on the way."""
    wanted = read_letters(problem.answer)
    if not wanted:
        reason = f"reference {problem.answer!r:.60} is not a letter of a choice"
        return Verdict(kind="error", reason=reason), []
    found, reason = _find(text, problem.question)
    if found is None:
        return Verdict(kind="wrong", reason=reason), []
    shown = found.text[:200]
    named = found.text
    if found.source == "statement":
        named = re.sub(r"^(\(?[A-Z]\)?)\s*=\s*(?=[-\d$\\])", r"\1, ", named)  # B = 12
    letters = read_letters(named)
    steps = [(f"found ({found.source})", shown), ("letters", "".join(sorted(letters)) or "none")]
    if found.is_hedged:
        reason = "the statement is negated, a bound or a guess"
    elif found.later is not None and read_letters(found.later) != wanted:
        reason = "a later statement names another answer"
    elif not letters:
        reason = "no letter is named"
    elif letters != wanted:
        reason = "another letter"
    else:
        return Verdict(kind="correct", answer=", ".join(sorted(letters))), steps
    return Verdict(kind="wrong", reason=reason, answer=shown), steps


def _find(text: str, question: str) -> tuple[Found | None, str]:
    """Return the answer that `math` would find, else the letter that the last sentence chooses."""
    found, reason = find_answer(text, question)
    is_marked = found is not None and found.source in ("box", "tag", "statement")
    if is_marked or (found is not None and read_letters(found.text)) or "thoughts" in reason:
        return found, reason
    visible = without_end_tokens(without_thoughts(text)[0]).strip()
    explained = _EXPLAINED.search(visible)
    if explained and "\n" not in visible[: explained.start()].strip():
        head, rest = visible[: explained.start()], visible[explained.start() :]
        others = _chosen(rest) - read_letters(head)
        if read_letters(head) and not others and not is_taken_back(rest):
            return Found(text=head, source="whole text"), ""
    last = sentences(visible)[-1:]
    letters = _chosen(last[0]) if last else frozenset()
    if len(letters) != 1 or _UNSURE.search(last[0]):
        return found, reason
    behind = last[0][list(_CHOSEN.finditer(last[0]))[-1].end() :]
    if _ANOTHER.search(behind):
        return None, "the last sentence names another letter"
    return Found(text=next(iter(letters)), source="last line"), ""


def _chosen(text: str) -> frozenset[str]:
    """Return the letters that a text chooses: "B is correct", "I pick B"."""
    return frozenset(letter for groups in _CHOSEN.findall(text) for letter in groups if letter)


def is_choice_letter(reference: str) -> bool:
    r"""Whether a reference is one capital letter: B, (B), \text{(B)}."""
    text = _plain(reference)
    found = _ALONE.fullmatch(text)
    return found is not None and found[1].isupper()


def read_letter(text: str) -> str | None:
    """Return the one letter that an answer names, None where it names none, or several.

    A small letter counts only in parentheses: alone it is a variable.
    """
    text = _plain(text)
    led_to = _LED_TO.match(text)
    text = text[led_to.end() :] if led_to else text
    found = _ALONE.fullmatch(text)
    if found:
        return found[1].upper() if found[1].isupper() or "(" in text else None
    for pattern in (_NAMED, _SAID, _REASON):
        found = pattern.fullmatch(text)
        if found and not _ANOTHER.search(text[found.end(1) + 1 :]):
            return found[1].upper()
    found = re.fullmatch(r"([A-Z])(?:,?\s+|\s+\()(?!.*\bor\b)[-\d$\\][^A-Z]*", text)
    if found:
        return found[1]
    found = _WITH_TEXT.fullmatch(text)
    if found and not _ANOTHER.search(found[4]):
        return (found[1] or found[2] or found[3]).upper()
    return None


def read_letters(text: str) -> frozenset[str]:
    """Return the letters that an answer names; none where it says anything else."""
    plain = _plain(text)
    alone = _ALONE.fullmatch(plain)
    letter = alone[1].upper() if alone else read_letter(text)
    if letter:
        return frozenset(letter)
    if _LETTERS.fullmatch(plain):
        rest = re.sub(r"\band\b", "", plain)
        if len(set(rest.upper())) != len(rest) and rest.isalpha():
            return frozenset()
        return frozenset(char.upper() for char in rest if char.isalpha())
    return frozenset()


def _plain(text: str) -> str:
    if _NEGATED.search(text):
        return text
    text = clean(text.rstrip("! \n")).replace(WORDS_OPEN, " ").replace(WORDS_CLOSE, " ")
    return " ".join(text.split())
