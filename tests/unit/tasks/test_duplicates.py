import pytest
from hypothesis import given
from hypothesis import strategies as st

from rloop.tasks.duplicates import drop_duplicates, overlap, problem_key
from rloop.types import Problem


def problem(key, question, verifier="math"):
    return Problem(
        problem_id=f"t/train/{key}", task="t", question=question, answer="1", verifier=verifier
    )


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("Add $12 + 3$.", "add 12+3"),
        ("A 5-day trip? No: a two-day one.", "a 5-day trip no a two day one"),
        (r"Find \left( x+1 \right)\, now", "find (x+1) now!"),
        (r"each of $36^{}_{}$ and $k^{}_{}$", "each of $36$ and $k$"),
        ("6 \u00d7 7 \u2212 1", "6*7-1"),
        ("1,234 apples", "1234 apples"),
        (r"\dfrac{1}{2}", r"\frac{1}{2}"),
    ],
)
def test_the_same_problem_set_otherwise_has_one_key(first, second):
    assert problem_key(first) == problem_key(second)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("12 + 3", "123"),
        ("12 + 3", "12 - 3"),
        ("1 23", "12 3"),
        ("88 / (4 / 2)", "88 / 4 / 2"),
        ("tan 22.5", "tan 225"),
        (r"\cos(-150^\circ)", r"\cos 150^\circ"),
        ("k > 0", "k < 0"),
        ("What is 5!", "What is 5"),
        ("|x| = 1", "x = 1"),
        ("x-y", "xy"),
        ("50% of 4", "50 of 4"),
    ],
)
def test_mathematical_signs_and_separate_numbers_keep_problems_apart(first, second):
    assert problem_key(first) != problem_key(second)


@given(st.lists(st.integers(0, 20)))
def test_what_is_kept_is_distinct_and_in_order(numbers):
    problems = [problem(i, f"{n} + 1") for i, n in enumerate(numbers)]
    kept = drop_duplicates(problems, set())
    assert [p.question for p in kept] == list(dict.fromkeys(p.question for p in problems))
    assert {p.problem_id for p in kept} <= {p.problem_id for p in problems}


def test_overlap_pairs_training_with_held_out_problems():
    train = [problem("a", "Add 1 + 2."), problem("b", "Add 1 + 3.")]
    held_out = [problem("c", "add  1+2")]
    assert overlap(train, held_out) == [(train[0], held_out[0])]


def test_generated_pictures_differ_by_any_sign():
    boards = [problem(i, sign * 3, "reasoning_gym") for i, sign in enumerate("#.")]
    assert drop_duplicates(boards, set()) == boards
