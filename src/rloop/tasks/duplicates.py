"""Which problems are the same: within a task, and between training and evaluation.

Two problems are the same when their texts are equal as lower-case letters and digits, with two
exceptions that keep short expressions apart: runs of digits stay separate (12 + 3 is not 123), and
mathematical symbols count (12 + 3 is not 12 - 3, nor 5! the same as 5). Hyphens inside words, other
punctuation, dollar signs and LaTeX spacing do not count. Problems that reasoning-gym generated may
be pictures made of any sign, so they are the same only when every character is.
"""

import re
from collections.abc import Iterable, Sequence

from rloop.tasks.verifiers.answers import with_ascii_numbers
from rloop.types import Problem

_HYPHEN = re.compile(r"(?<=[^\W\d_]{2})-(?=[^\W\d_]{2})")
_LAYOUT = re.compile(r"\\(?:left|right|displaystyle|[dt](?=frac)|[,;:!\s])|[\^_]\{\s*\}")
_SIGNS = str.maketrans({"\u00d7": "*", "\u00f7": "/", "\u22c5": "*", "\u00b7": "*"})
_TOKEN = re.compile(r"\d+(?:\.\d+)?|[^\W\d_]+|[-+*/^=<>()|%]|(?<=[\d)])!")


def problem_key(question: str) -> str:
    """Return what a question says, without how it is set.

    Examples: "Add $12 + 3$." -> "add12+3"; "1 23" -> "1 23"; "1, 2" -> "1 2"; "1.5x" -> "1.5x"
    """
    text = with_ascii_numbers(_LAYOUT.sub(" ", question)).translate(_SIGNS).casefold()
    text = re.sub(r"(?<=\d),(?=\d{3}(?!\d))", "", _HYPHEN.sub(" ", text))
    parts: list[str] = []
    for token in _TOKEN.findall(text):
        if parts and token[0].isdigit() and parts[-1][-1].isdigit():
            parts.append(" ")
        parts.append(token)
    return "".join(parts)


def drop_duplicates(problems: Iterable[Problem], seen: set[str]) -> list[Problem]:
    """Return the problems whose key is not in `seen`, first ones first; `seen` learns theirs."""
    kept = []
    for problem in problems:
        key = _key(problem)
        if key not in seen:
            seen.add(key)
            kept.append(problem)
    return kept


def overlap(train: Sequence[Problem], evaluate: Sequence[Problem]) -> list[tuple[Problem, Problem]]:
    """Return the pairs of a training and an evaluation problem that are the same."""
    held_out = {_key(problem): problem for problem in evaluate}
    keys = ((problem, _key(problem)) for problem in train)
    return [(problem, held_out[key]) for problem, key in keys if key in held_out]


def _key(problem: Problem) -> str:
    is_generated = problem.verifier == "reasoning_gym"
    return problem.question if is_generated else problem_key(problem.question)
