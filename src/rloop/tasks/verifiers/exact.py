r"""`exact`: the last \boxed{} or the last line, equal to the reference but for case and dressing.

White space is collapsed, case ignored; quotes, emphasis and closing punctuation around the answer
and a leading "the answer is" do not count.
"""

import unicodedata

from rloop.tasks.verifiers.answers import after_phrase, bare, last_box, last_lines
from rloop.types import Problem, Verdict


def judge(problem: Problem, text: str) -> Verdict:
    """Compare the completion's answer with the reference as normalised text."""
    reference = _normalise(problem.answer)
    if not reference:
        return Verdict(kind="error", reason="the reference answer is empty")
    box, _ = last_box(text)
    line = last_lines(text)
    answers = [box] if box else [line, after_phrase(line) or line]
    if not any(answers):
        return Verdict(kind="wrong", reason="an empty completion")
    found = answers[-1][:200]
    if any(_normalise(answer) == reference for answer in answers):
        return Verdict(kind="correct", answer=found)
    return Verdict(kind="wrong", reason="another answer", answer=found)


def _normalise(text: str) -> str:
    return bare(" ".join(unicodedata.normalize("NFC", text).split())).casefold()
