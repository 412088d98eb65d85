"""`format:PATTERN`: whether a completion has the form that a reward's `pattern` describes.

It is what the recipe's reward `format` becomes; a pattern that backtracks for ever ends with its
worker.
"""

import re

from rloop.types import Problem, Verdict

PREFIX = "format:"


def judge(problem: Problem, text: str) -> Verdict:
    """Match the whole completion; `.` fits line ends too."""
    pattern = re.compile(problem.verifier.removeprefix(PREFIX), re.DOTALL)
    return Verdict(kind="correct" if pattern.fullmatch(text) else "wrong")
