"""Equations of the second proving ground, found from numbers and answer alone."""

import runpy
from pathlib import Path

import pytest

WORDS = runpy.run_path(str(Path(__file__).parents[2] / "proof" / "words.py"))


@pytest.mark.parametrize(
    ("problem", "answer", "expected"),
    [
        ("He pays 2 times $3.", "6", "2*3=6"),
        ("Of 12 eggs 4 break. How many are left?", "8", "12-4=8"),
        ("4 of 12 eggs break. How many are left?", "8", "12-4=8"),
        ("20 sweets for 5 children: how many each?", "4", "20/5=4"),
        ("3 boxes of 12 eggs, 4 break.", "32", "3*12=36; 36-4=32"),
        ("1,200 seats in 4 rows.", "300", None),  # one number that is no plain one, one that is
        ("2 and 2 make?", "4", None),  # a sum or a product
        ("12 eggs, 4 break.", "7", None),  # no way
        ("12 eggs.", "12", None),  # one number
        ("7 of 3 and 0.", "10", None),  # a zero can be added to anything
        ("1.5 litres for 3.", "4", None),
    ],
)
def test_the_only_way_from_numbers_to_answer(problem: str, answer: str, expected: str | None):
    assert WORDS["equations"](problem, answer) == expected


def test_ways_use_each_number_once_and_stay_whole_and_positive():
    # 6+3, 6-3, 6*3, 6/3; not 3-6 or 3/6
    assert sorted(WORDS["ways"]((6, 3))) == [
        (2, ("6/3=2",)),
        (3, ("6-3=3",)),
        (9, ("6+3=9",)),
        (18, ("6*3=18",)),
    ]
    assert all(len(steps) == 2 for _, steps in WORDS["ways"]((6, 3, 2)))
