from collections import Counter
from fractions import Fraction

import pytest

from rloop.tasks.verifiers.expressions import read_arithmetic


@pytest.mark.parametrize(
    ("text", "value", "numbers"),
    [
        ("(8 - 2) * 4", 24, [8, 2, 4]),
        ("82 + 20 + 67 - 50", 119, [82, 20, 67, 50]),
        ("8 / (3 - 8/3)", 24, [8, 3, 8, 3]),  # 3 - 8/3 = 1/3, and 8 / (1/3) = 24
        ("-3 + 27", 24, [3, 27]),
        ("6 \u00d7 4", 24, [6, 4]),
        ("1 / 3", Fraction(1, 3), [1, 3]),
    ],
)
def test_arithmetic_has_an_exact_value_and_counts_its_numbers(text, value, numbers):
    assert read_arithmetic(text) == (value, Counter(numbers))


@pytest.mark.parametrize(
    "text",
    [
        "__import__('os').system('true')",
        "(lambda: 24)()",
        "9**9**9**9",
        "x + 1",
        "1 if 1 else 2",
        "[24][0]",
        "24.0",
        "True",
        "'24'",
        "1 // 2",
        "1 / 0",
        "12 +",
        "10**10**10",
        "9^9",
        "",
        "(" * 500 + "1" + ")" * 500,
        "-" * 999 + "1",
        "1+" * 5000 + "1",
    ],
)
def test_anything_but_integers_and_four_operators_is_refused_without_being_run(text):
    with pytest.raises(ValueError, match=r".+"):
        read_arithmetic(text)
