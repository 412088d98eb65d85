import pytest
from hypothesis import given
from hypothesis import strategies as st

from rloop.tasks.duplicates import answer_conflicts, drop_duplicates, overlap, problem_key
from rloop.types import Problem


def problem(key, question, verifier="math", answer="1"):
    return Problem(
        problem_id=f"t/train/{key}", task="t", question=question, answer=answer, verifier=verifier
    )


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("Add $12 + 3$.", "add 12+3"),
        ("What is\n2 + 3?\n", "What is 2+3?"),
        ("caf\u00e9 au lait", "cafe\u0301 au\u00a0lait"),
        (r"Find \left( x+1 \right)\, now.", "find (x+1) now"),
        (r"each of $36^{}_{}$ and $k^{2}$", "each of $36$ and $k^2$"),
        ("We have $x=5,$ so.", "We have $x = 5$, so"),
        (r"Let \(x\) be $\dfrac{1}{2}$", r"let $x$ be $\frac{1}{2}$"),
        ("Is $A B C$ with $2 x$ equal?", r"Is \(ABC\) with \(2x\) equal?"),
        ("We have 3 balloons. Sara has 8", "We have 3 balloons Sara has 8 ."),
        ("Joan 's bank has 3,884 coins .", "Joan\u2019s bank has 3884 coins."),
    ],
)
def test_the_same_problem_set_otherwise_has_one_key(first, second):
    assert problem_key(first) == problem_key(second)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("12 + 3", "123"), ("12 + 3", "12 - 3"), ("1 23", "12 3"), ("tan 22.5", "tan 225"),
        ("88 / (4 / 2)", "88 / 4 / 2"), (r"\cos(-150^\circ)", r"\cos 150^\circ"),
        ("k > 0", "k < 0"), ("What is 5!", "What is 5"), ("|x| = 1", "x = 1"), ("x-y", "xy"),
        ("50% of 4", "50 of 4"), ("find f(2)", "find f'(2)"), ("f'(2)", "f''(2)"),
        ("3 \u2264 5", "3 \u2265 5"), ("A \u222a B", "A \u2229 B"),
        ("\u230a2.5\u230b", "\u23082.5\u2309"), ("in: AbC", "in: abC"), ("x^2", "x_2"),
        ("x\u00b2", "x2"), ("r\u00e9sum\u00e9", "resume"), ("a \u00b7 b", "a \u00d7 b"),
        ("[1, 2]", "(1, 2)"), ("(1,234)", "(1, 234)"), ("(1,234)", "(1234)"), ("1:2", "1/2"),
        ("$1, 234$", "$1,234$"), ("$1 23$", "$12 3$"), (r"$\sin x$", r"$\sinx$"),
        ("for $5 a men or $6", "for $5 am en or $6"),
        ("x \u2260 1", "x = 1"), ("\u221a4", "4"), (r"x \pm 1", r"x \mp 1"),
        (r"\leftarrow x", r"\rightarrow x"), ("a << 2", "a >> 2"), ("a[0]", "a(0)"),
        ("$5", "\u20ac5"), ("1, 2, 3, ...", "1, 2, 3"), ("sort 5 -3 2", "sort 5 - 3 2"),
        ("x^{10}", "x^10"), ("dont", "don't"), ("re-sign", "resign"), ("A + B", "a + B"),
        ("Grid:\n1 2\n3 4", "Grid:\n1 2 3\n4"), ("Board:\nX  O\n. .", "Board:\nX O\n. ."),
        ("Run it:\nif x:\n    a()\nb()", "Run it:\nif x:\n    a()\n    b()"),
    ],
)  # fmt: skip
def test_signs_case_accents_and_rows_keep_problems_apart(first, second):
    assert problem_key(first) != problem_key(second)
    train, held_out = problem("a", first), problem("b", second)
    assert drop_duplicates([train, held_out], set()) == [train, held_out]
    assert overlap([train], [held_out]) == []


def test_of_equal_texts_the_first_stays_and_of_equal_layouts_only_one_with_each_answer():
    questions = {"a": "Say A b.", "b": "Say  A b", "c": "Say A b.", "d": "Say  A b"}
    answers = {"a": "2", "b": "2.0", "c": "3", "d": "4"}
    problems = [problem(key, questions[key], answer=answers[key]) for key in questions]
    kept = drop_duplicates(problems, set())
    # b is a with other spaces and an equal answer; c has a's text; d has b's text
    assert [p.problem_id for p in kept] == ["t/train/a"]
    conflicts = answer_conflicts(problems)
    assert [(a.answer, b.answer) for a, b in conflicts] == [("2", "3"), ("2", "4")]
    spaced = problem("e", "Say   A b.", answer="9")
    assert drop_duplicates([problems[0], spaced], set()) == [problems[0]]
    kept = drop_duplicates([problems[0], problems[3]], set())
    assert [p.answer for p in kept] == ["2", "4"]


def test_answers_that_are_set_otherwise_are_no_conflict():
    answers = ["$1200$", "1200.0", r"\mathbf{1200}", " 1200 "]
    problems = [problem(i, "How many?", answer=answer) for i, answer in enumerate(answers)]
    assert answer_conflicts(problems) == []


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
