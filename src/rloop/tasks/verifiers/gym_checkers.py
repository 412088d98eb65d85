"""Our own checkers for reasoning-gym data sets whose scorer must not see model text, or is loose.

reasoning-gym 0.1.25 runs the answer as Python in countdown, puzzle24, simple_integration,
intermediate_integration, polynomial_multiplication, binary_matrix, spiral_matrix, string_insertion
and n_queens. It accepts any four numbers in puzzle24, lists off by one in number_sorting, any text
in game_of_life_halting, and 12 for 1 in coin_flip. A checker raises ValueError for an answer that
it cannot read.
"""

import json
from collections import Counter
from collections.abc import Callable, Mapping
from decimal import Decimal
from fractions import Fraction
from typing import Any

from rloop.tasks.verifiers.expressions import derivative, read_arithmetic, read_polynomial
from rloop.tasks.verifiers.numbers import whole_number_text

Checker = Callable[[str, str, Mapping[str, Any]], bool]
"""(answer, reference, the entry's metadata) -> whether the answer is right."""


def _reaches(answer: str, target: int, numbers: list[int]) -> bool:
    """Whether a side of the equation uses each number once and has the target's value."""
    return any(
        read_arithmetic(side) == (Fraction(target), Counter(numbers)) for side in answer.split("=")
    )


def check_countdown(answer: str, reference: str, entry: Mapping[str, Any]) -> bool:
    """All the numbers, once each, make the target."""
    return _reaches(answer, entry["target"], entry["numbers"])


def check_puzzle24(answer: str, reference: str, entry: Mapping[str, Any]) -> bool:
    """All the numbers, once each, make 24."""
    return _reaches(answer, 24, entry["numbers"])


def check_integral(answer: str, reference: str, entry: Mapping[str, Any]) -> bool:
    """The answer's derivative is the integrand; the constant of integration may be missing."""
    slope = derivative(read_polynomial(answer), entry["variable"])
    return slope == read_polynomial(entry["integrand"])


def check_polynomial(answer: str, reference: str, entry: Mapping[str, Any]) -> bool:
    """The answer is the reference polynomial, in any form."""
    return read_polynomial(answer) == read_polynomial(reference)


def check_text(answer: str, reference: str, entry: Mapping[str, Any]) -> bool:
    """The answer is the reference but for white space."""
    return answer.split() == reference.split()


def check_word(answer: str, reference: str, entry: Mapping[str, Any]) -> bool:
    """The answer is the reference but for case."""
    return answer.strip().casefold() == reference.strip().casefold()


def check_queens(answer: str, reference: str, entry: Mapping[str, Any]) -> bool:
    """The board is one of the valid ones."""
    return any(answer.split() == board.split() for board in entry["valid_answers"])


def check_sorted(answer: str, reference: str, entry: Mapping[str, Any]) -> bool:
    """The list holds the reference's numbers in its order."""
    return _numbers(answer) == _numbers(reference)


def check_probability(answer: str, reference: str, entry: Mapping[str, Any]) -> bool:
    """The probability, as a decimal or a fraction, is within 1e-4."""
    return abs(_value(answer) - _value(reference)) <= Decimal("1e-4")


def check_integer(answer: str, reference: str, entry: Mapping[str, Any]) -> bool:
    """The integers are equal in any base that Python writes (0x1f)."""
    return int(answer, 0) == int(reference, 0)


def _numbers(text: str) -> list[float]:
    items = json.loads(text.replace("'", '"'))
    if not isinstance(items, list) or not all(isinstance(i, str | int | float) for i in items):
        raise ValueError("not a list of numbers")
    return [float(item) for item in items]


def _value(text: str) -> Decimal:
    number = whole_number_text(text)
    if number is None or number.value is None:
        raise ValueError("not a number")
    return number.value


CHECKERS: dict[str, Checker] = {
    "binary_matrix": check_text,
    "bitwise_arithmetic": check_integer,
    "coin_flip": check_probability,
    "countdown": check_countdown,
    "game_of_life_halting": check_word,
    "n_queens": check_queens,
    "number_sorting": check_sorted,
    "polynomial_multiplication": check_polynomial,
    "puzzle24": check_puzzle24,
    "simple_integration": check_integral,
    "spiral_matrix": check_text,
    "string_insertion": check_text,
}
