"""Our own checkers for reasoning-gym data sets whose scorer must not see model text, or is loose.

reasoning-gym 0.1.25 runs the answer as Python in countdown, puzzle24, binary_matrix, spiral_matrix,
string_insertion and n_queens, and in three data sets that are refused (`tasks.gym.UNSAFE`). It
accepts any four numbers in puzzle24, lists off by one in number_sorting, any text
in game_of_life_halting, 12 for 1 in coin_flip, -81 for 81 and "81 or 7" in gsm_symbolic, and what
stands behind the answer in fraction_simplification, letter_jumble and spell_backward. A checker
raises ValueError for an answer that it cannot read.

Scorers that nobody knows to run text are called behind a guard: while it is up, nothing may be
compiled, executed, imported or opened.
"""

import json
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from fractions import Fraction
from typing import Any

from rloop.tasks.verifiers.answers import with_ascii_numbers
from rloop.tasks.verifiers.expressions import read_arithmetic
from rloop.tasks.verifiers.numbers import read_number

EQUATIONS = ("countdown", "puzzle24")
"""Their checkers read an equation as a whole; elsewhere its right side is the answer."""
SAME_LENGTH = (
    "advanced_geometry",
    "kakurasu",
    "knights_knaves",
    "quantum_lock",
    "sokoban",
    "survo",
    "time_intervals",
    "word_sorting",
)
"""Their scorers pass over words around the answer: it may have no more words than the reference."""
_FRACTION = re.compile(r"\\[dt]?frac\s*\{\s*(\d+)\s*\}\s*\{\s*(\d+)\s*\}|(\d+)\s*/\s*(\d+)")

_FORBIDDEN = ("compile", "exec", "open", "os.", "subprocess.", "socket.", "ctypes.", "import")

Checker = Callable[[str, str, Mapping[str, Any]], bool]
"""(answer, reference, the entry's metadata) -> whether the answer is right."""


def _reaches(answer: str, target: int, numbers: list[int]) -> bool:
    """Whether each side of an equation is the target, or makes it of each number, one at least."""
    num_right = 0
    for side in answer.split("="):
        value, used = read_arithmetic(side)
        is_right = value == target and used == Counter(numbers)
        num_right += is_right
        if not is_right and side.strip() != str(target):
            return False
    return num_right > 0


def check_countdown(answer: str, reference: str, entry: Mapping[str, Any]) -> bool:
    """All the numbers, once each, make the target."""
    return _reaches(answer, entry["target"], entry["numbers"])


def check_puzzle24(answer: str, reference: str, entry: Mapping[str, Any]) -> bool:
    """All the numbers, once each, make 24."""
    return _reaches(answer, 24, entry["numbers"])


def check_text(answer: str, reference: str, entry: Mapping[str, Any]) -> bool:
    """The answer is the reference but for white space."""
    return answer.split() == reference.split()


def check_word(answer: str, reference: str, entry: Mapping[str, Any]) -> bool:
    """The answer is the reference but for case."""
    return answer.strip().casefold() == reference.strip().casefold()


def check_words(answer: str, reference: str, entry: Mapping[str, Any]) -> bool:
    """The answer is the reference but for case and white space."""
    return check_text(answer.casefold(), reference.casefold(), entry)


def check_fraction(answer: str, reference: str, entry: Mapping[str, Any]) -> bool:
    """The answer is the simplified fraction, as 3/4 or in LaTeX, and nothing else."""
    found = _FRACTION.fullmatch(answer.strip().strip("$").strip())
    if found is None:
        raise ValueError("not a fraction")
    parts = int(found[1] or found[3]), int(found[2] or found[4])
    return parts == (entry["simplified_numerator"], entry["simplified_denominator"])


def check_number(answer: str, reference: str, entry: Mapping[str, Any]) -> bool:
    """The numbers are equal."""
    return _value(answer) == _value(reference)


def check_queens(answer: str, reference: str, entry: Mapping[str, Any]) -> bool:
    """The board is one of the valid ones."""
    return any(answer.split() == board.split() for board in entry["valid_answers"])


def check_sorted(answer: str, reference: str, entry: Mapping[str, Any]) -> bool:
    """The list holds the reference's numbers in its order."""
    return _numbers(answer) == _numbers(reference)


def check_probability(answer: str, reference: str, entry: Mapping[str, Any]) -> bool:
    """The probability, as a decimal or a fraction, is within 1e-4 of itself."""
    wanted = _value(reference)
    return abs(_value(answer) - wanted) <= abs(wanted) / 10_000


def check_integer(answer: str, reference: str, entry: Mapping[str, Any]) -> bool:
    """The integers are equal in any base that Python writes (0x1f)."""
    return int(answer, 0) == int(reference, 0)


def _numbers(text: str) -> list[float]:
    items = json.loads(text.replace("'", '"'))
    if not isinstance(items, list) or not all(isinstance(i, str | int | float) for i in items):
        raise ValueError("not a list of numbers")
    return [float(item) for item in items]


def _value(text: str) -> Fraction:
    number = read_number(with_ascii_numbers(text))
    if number is None:
        raise ValueError("not a number")
    return Fraction(number.formula.tree[1])


CHECKERS: dict[str, Checker] = {
    "binary_matrix": check_text,
    "bitwise_arithmetic": check_integer,
    "coin_flip": check_probability,
    "countdown": check_countdown,
    "fraction_simplification": check_fraction,
    "game_of_life_halting": check_word,
    "gsm_symbolic": check_number,
    "letter_jumble": check_words,
    "n_queens": check_queens,
    "number_sorting": check_sorted,
    "puzzle24": check_puzzle24,
    "spell_backward": check_word,
    "spiral_matrix": check_text,
    "string_insertion": check_text,
}


class ExecutionRefused(BaseException):
    """A scorer tried to run text; not an `Exception`, so that no scorer swallows it."""


class _Guard:
    """Set by `guarded`, read by the audit hook, which can never be removed."""

    is_up = False
    is_installed = False
    refused = ""


def _audit(event: str, args: tuple[object, ...]) -> None:
    if _Guard.is_up and event.startswith(_FORBIDDEN):
        _Guard.refused = event
        raise ExecutionRefused(event)


@contextmanager
def guarded() -> Iterator[None]:
    """Raise `ExecutionRefused` when the block compiles, executes, imports or opens anything.

    It is raised at the end of the block too, should a bare `except:` inside have swallowed it.
    """
    if not _Guard.is_installed:
        sys.addaudithook(_audit)
        _Guard.is_installed = True
    _Guard.is_up, _Guard.refused = True, ""
    try:
        yield
    finally:
        _Guard.is_up = False
    if _Guard.refused:
        raise ExecutionRefused(_Guard.refused)
