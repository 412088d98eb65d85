"""Which problems are the same: within a task, and between training and evaluation.

Two problems are the same when their questions have one `problem_key`: the same characters, but for
how they are laid out. A sign, a case, an accent or a decimal point makes another problem. Problems
that reasoning-gym generated are the same only when every character is.
"""

import re
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from decimal import Decimal, InvalidOperation
from functools import lru_cache
from itertools import groupby

from rloop.types import Problem

MAX_SHOWN = 3
_WORD = re.compile(r"[^\W\d_]{2}")
_COMMAND = re.compile(r"\\[a-zA-Z]+")
_COMMAND_ENDS = re.compile(r"\\[a-zA-Z]+$")
_NUMBER_ENDS = re.compile(r"\d,?$")
_NAME = re.compile(r"[^\W\d_]{3}")


def _formula(found: re.Match[str]) -> str:
    """Return what stands between dollars: without the spaces that TeX does not see, if it is math.

    Examples: "$2 x + A B$" -> "2x+AB"; "$1, 2$" -> "1, 2"; "$5 and 6 for $" -> "5 and 6 for "
    """
    text = found[1]
    if _NAME.search(_COMMAND.sub("", text)):
        return text
    formula = ""
    for part in text.split():
        is_number = part[0].isdigit() and _NUMBER_ENDS.search(formula)
        is_command = part[0].isalpha() and _COMMAND_ENDS.search(formula)
        formula += f" {part}" if is_number or is_command else part
    return formula


_LAYOUT = tuple(
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        ("\u2019", "'"),
        # What math is set in, and how: $x$, \(x\), \left(, \dfrac, \, ^{} and ^{2}.
        (r"(?<=\$)\s+(?=\d)", ""),
        (r"(?<!\\)\\[()]", "$"),
        (r"(?<!\\)\\\[", " $"),
        (r"(?<!\\)\\\]", "$ "),
        (r"\\(?:left|right|displaystyle)(?![a-zA-Z])", ""),
        (r"\\[dt]frac(?![a-zA-Z])", r"\\frac"),
        (r"(?<!\\)\\[,;:! ]", " "),
        (r"[\^_]\{\s*\}", ""),
        (r"(?<!\\)\$\$?([^$]+)(?<!\\)\$\$?", _formula),
        (r"(?<=[\^_])\{(\w|\\[a-zA-Z]+)\}", r"\1"),
        # A number with separators among words: 3,884 cars.
        (r"(?<=\s)(\d{1,3}),(\d{3})(?=\s[^\W\d_]{2})", r"\1\2"),
        (r"\s+", " "),
        # Space around a sign that has it on both sides, inside brackets, before punctuation, and
        # after a comma unless numbers are on both sides of it: (1, 234) is not (1,234). Then the
        # full stop between two sentences.
        (r" ?([=<>]) ?", r"\1"),
        (r" ([+*/-]) ", r"\1"),
        (r"(?<=[({\[]) | (?=[)}\]])", ""),
        (r" (?=[.,;:?!](?:\s|$))", ""),
        (r"(?<=,) (?=\D)|(?<=\D,) ", ""),
        (r" (?='s\b)", ""),
        (r"(?<=[a-z]{2})\. (?=[A-Z][a-z])", " "),
        # Space that TeX does not see: beside a command.
        (r" (?=\\[a-zA-Z])", ""),
        (r"(\\[a-zA-Z]+) (?![a-zA-Z])", r"\1"),
    )
)
_FONT = re.compile(r"\\(?:math|text)?(?:bf|rm|text)\{([^{}]*)\}")
_FIRST_WORD = re.compile(r"[A-Z][a-z]+(?= \S)")


@lru_cache(maxsize=1 << 16)
def problem_key(question: str) -> str:
    """Return a question without its layout: line breaks, spaces, how math is set, a full stop.

    Lines without a word, two or more together, and lines that are indented may be a picture, a
    table or code: they are kept as they are.

    Examples: "Add $12 + 3$." -> "add 12+3"; "1 23" -> "1 23"; "f'(2)" -> "f'(2)"
    """
    text = re.sub(r"(?<!\.)\.$", "", _by_block(question, _without_layout))
    first = _FIRST_WORD.match(text)
    return text if first is None else first[0].lower() + text[first.end() :]


def _by_block(question: str, change: Callable[[str], str]) -> str:
    """Return a question with its prose on one line and changed, other lines as they are."""
    lines = unicodedata.normalize("NFC", question).splitlines()
    lines = [line.rstrip() for line in lines if line.strip()]
    blocks = groupby(enumerate(lines), key=lambda item: _is_row(lines, item[0]))
    texts = [(is_row, [line for _, line in block]) for is_row, block in blocks]
    return "\n".join(
        "\n".join(block) if is_row else change(" ".join(block)) for is_row, block in texts
    )


def _is_row(lines: Sequence[str], index: int) -> bool:
    """Whether a line's spaces may mean something."""
    if index and lines[index].startswith(("  ", "\t")):
        return True
    beside = lines[max(0, index - 1) : index + 2]
    return not _WORD.search(lines[index]) and sum(not _WORD.search(line) for line in beside) > 1


def _without_layout(text: str) -> str:
    for pattern, replacement in _LAYOUT:
        text = pattern.sub(replacement, text)
    return text.strip()


def _without_spaces(text: str) -> str:
    return " ".join(text.split())


def drop_duplicates(problems: Iterable[Problem], seen: set[str | tuple[str, str]]) -> list[Problem]:
    """Return the problems that are not among those of `seen`, first ones first; `seen` learns them.

    Of two with equal text the first stays. Where only the keys are equal, both stay if their
    answers differ: the layout may mean something.
    """
    kept = []
    for problem in problems:
        marks = (_text(problem), (_key(problem), _plain_answer(problem.answer)))
        if seen.isdisjoint(marks):
            kept.append(problem)
        seen.update(marks)
    return kept


def answer_conflicts(problems: Iterable[Problem]) -> list[tuple[Problem, Problem]]:
    """Return pairs of the same question whose answers differ: the first that asks it, and another.

    Generated problems are left out: their scorers may know many answers.
    """
    first: dict[str, Problem] = {}
    answers: set[tuple[str, str]] = set()
    pairs = []
    for problem in problems:
        if problem.verifier == "reasoning_gym":
            continue
        key = _key(problem)
        mark = (key, _plain_answer(problem.answer))
        if key in first and mark not in answers:
            pairs.append((first[key], problem))
        first.setdefault(key, problem)
        answers.add(mark)
    return pairs


def conflicts_between(tasks: Sequence[Sequence[Problem]]) -> list[tuple[Problem, Problem]]:
    """Return the `answer_conflicts` of problems of two tasks; each task has warned of its own."""
    owners = {id(problem): index for index, task in enumerate(tasks) for problem in task}
    pairs = answer_conflicts(problem for task in tasks for problem in task)
    return [(a, b) for a, b in pairs if owners[id(a)] != owners[id(b)]]


def conflict_warning(pairs: Sequence[tuple[Problem, Problem]], kept: set[str]) -> str:
    """Return words that name pairs with both answers; `kept` holds the ids that stay."""
    shown = "; ".join(
        f"{first.problem_id} with {first.answer!r:.80} and {second.problem_id} with "
        f"{second.answer!r:.80}{'' if second.problem_id in kept else ' (left out)'}"
        for first, second in pairs[:MAX_SHOWN]
    )
    return (
        f"problems have the same question and different answers ({len(pairs)} pairs), such as "
        f"{shown}. Correct the wrong ones."
    )


def overlap(train: Sequence[Problem], evaluate: Sequence[Problem]) -> list[tuple[Problem, Problem]]:
    """Return the pairs of a training and an evaluation problem that are the same."""
    held_out = {_key(problem): problem for problem in evaluate}
    keys = ((problem, _key(problem)) for problem in train)
    return [(problem, held_out[key]) for problem, key in keys if key in held_out]


def _text(problem: Problem) -> str:
    """Return a question but for white space and how Unicode composes it."""
    is_generated = problem.verifier == "reasoning_gym"
    return problem.question if is_generated else _by_block(problem.question, _without_spaces)


def _key(problem: Problem) -> str:
    is_generated = problem.verifier == "reasoning_gym"
    return problem.question if is_generated else problem_key(problem.question)


def _plain_answer(answer: str) -> str:
    """Return an answer so that 5, $5$ and 5.0 are one; everything else by its characters."""
    text = _FONT.sub(r"\1", "".join(answer.split()).strip("$"))
    try:
        return str(Decimal(text).normalize())
    except InvalidOperation:
        return text
