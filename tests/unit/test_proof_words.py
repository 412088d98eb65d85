"""Equations of the second proving ground, found from numbers and answer alone; its guesser."""

import runpy
from pathlib import Path

import numpy as np
import pytest

PROOF = Path(__file__).parents[2] / "proof"
WORDS = runpy.run_path(str(PROOF / "words.py"))
GUESSING = runpy.run_path(str(PROOF / "guessing.py"))


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


@pytest.mark.parametrize(
    ("samples", "expected"),
    [
        # 2 of 4 right; "8" is the most common answer
        ([("8", True), ("8", True), ("3", False), (None, False)], (0.5, 1, 1, 1)),
        # 1 of 8 right, among two answers that are equally common
        ([("8", True), ("3", False)] + [(None, False)] * 6, (0.125, 1, 0.5, 0)),
        ([("3", False), (None, False)], (0, 0, 0, 0)),
        ([(None, False)] * 4, (0, 0, 0, 0)),
    ],
)
def test_measures_of_one_problem(samples: list[tuple[str | None, bool]], expected: tuple[float]):
    assert GUESSING["measures"](samples) == expected


def test_a_guesser_writes_each_way_alike():
    rng = np.random.default_rng(0)
    drawn = GUESSING["guesses"]("Of 12 eggs 4 break. How many are left?", "8", 4000, rng)
    assert {answer for answer, _ in drawn} == {"16", "8", "48", "3"}
    # a quarter, within five standard errors
    assert np.mean([correct for _, correct in drawn]) == pytest.approx(0.25, abs=0.035)
    assert GUESSING["guesses"]("No number here.", "8", 3, rng) == [(None, False)] * 3
