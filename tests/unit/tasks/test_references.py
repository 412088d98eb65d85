from dataclasses import replace

import pytest

from rloop.errors import TaskError
from rloop.recipe.config import TaskConfig
from rloop.tasks.load import load_task
from rloop.tasks.pool import VerifierPool
from rloop.tasks.references import check_references, check_solutions
from rloop.tasks.verifiers.forms import other_forms
from rloop.types import Problem


@pytest.fixture(scope="module")
def pool():
    with VerifierPool(num_workers=1, timeout_s=5.0) as pool:
        yield pool


def problem(key, answer, verifier):
    return Problem(
        problem_id=f"t/train/{key}", task="t", question="?", answer=answer, verifier=verifier
    )


GOOD = [
    problem(0, r"\frac{1}{2}", "math"),
    problem(1, "1,250", "numeric"),
    problem(2, "Paris", "exact"),
]


def test_sound_references_are_all_kept(pool):
    report = check_references(GOOD, pool)
    assert report.kept == tuple(GOOD)
    assert report.summary() == "3 of 3 reference answers judged correct"


def test_bad_references_stop_the_run_and_at_most_five_are_shown(pool):
    bad = [problem(f"bad{i}", "an apple", "numeric") for i in range(7)]
    with pytest.raises(TaskError) as raised:
        check_references([*GOOD, *bad], pool)
    message = str(raised.value)
    assert message.startswith("7 of 10 problems are not judged as they should be:")
    assert (
        "t/train/bad0 (reference 'an apple'): numeric gives an error for its own reference"
        in message
    )
    assert ("bad4" in message, "bad5" in message) == (True, False)
    assert "tasks.bad_references=drop" in message


def test_bad_references_are_left_out_and_counted_when_told_so(pool):
    bad = problem("bad", r"\frac{11}{2^{20}", "math")
    report = check_references([*GOOD, bad], pool, policy="drop")
    assert report.kept == tuple(GOOD)
    assert [problem.problem_id for problem, _ in report.bad] == ["t/train/bad"]
    assert report.summary() == ("3 of 4 reference answers judged correct, 1 problems left out")


def test_when_no_reference_is_good_even_drop_stops(pool):
    bad = problem(0, "5", "python:doubles_misbehaving:says_yes")
    with pytest.raises(TaskError, match=r"1 of 1 problems are .*: none is left"):
        check_references([bad], pool, policy="drop")


@pytest.mark.parametrize(
    ("verifier", "reason"),
    [
        ("python:no_such_module:judge", "No module named 'no_such_module'"),
        ("python:json:judge", "module json has no function 'judge'"),
        ("python:doubles_misbehaving:raises", "the verifier raised KeyError: '5'"),
        ("python:doubles_misbehaving:raises_in_two_lines", "cannot read that nor this in "),
        ("python:doubles_misbehaving:returns_nonsense", "must return True or False, a score"),
    ],
)
def test_a_verifier_that_only_fails_is_one_sentence_and_cannot_be_left_out(pool, verifier, reason):
    for policy in ("stop", "drop"):
        with pytest.raises(TaskError) as raised:
            check_references([problem(i, "5", verifier) for i in range(3)], pool, policy=policy)
        message = str(raised.value)
        assert message.startswith(f"The verifier {verifier} gave an error for all 3 reference")
        assert reason in message
        assert "\n" not in message


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("reads_integers_only", "gives an error for the question itself"),
        ("accepts_anything_short", "judges the question itself, 'What is 2 + 3?', correct"),
    ],
)
def test_a_users_verifier_must_judge_the_question_and_other_texts_without_an_error(
    pool, name, said
):
    verifier = f"python:doubles_misbehaving:{name}"
    asked = replace(problem("a", "5", verifier), question="What is 2 + 3?")
    with pytest.raises(TaskError) as raised:
        check_references([asked], pool)
    message = str(raised.value)
    assert said in message
    assert f"Fix {verifier}: it must accept the reference" in message
    assert "numeric judges these correctly (verifier: numeric)" in message


def test_a_users_verifier_that_judges_all_texts_is_kept(pool):
    asked = [problem(i, str(i), "python:doubles_verifiers:is_short") for i in range(4)]
    assert check_references(asked, pool).kept == tuple(asked)


def test_a_reference_equal_to_anothers_under_its_question_is_kept(pool):
    """7% and 7 are equal where percent are asked for, and only there."""
    percent = replace(problem("a", r"7\%", "math"), question="What percent of 100 is it?")
    plain = replace(problem("b", "7", "math"), question="What is 3 + 4?")
    assert check_references([percent, plain], pool).bad == ()


@pytest.mark.parametrize(
    ("reference", "asked", "form", "is_tried"),
    [
        ("0.15", "", r"\boxed{\frac{3}{20}}", True),
        ("0.15", r"Write $\frac{3}{20}$ as a decimal.", r"\boxed{\frac{3}{20}}", False),
        ("12 people", "", r"\boxed{12.0}", True),
        ("5 million", "", r"\boxed{5.0}", False),
        (r"-12 \text{ or } -30", "", r"\boxed{-12.0}", False),
        (r"\text{1:03 PM}", "", r"\boxed{1.0}", False),
        ("12 people", "", r"\boxed{\text{12 people}}", True),
        ("2k", "", r"\boxed{\text{2k}}", False),
        ("15x - 80", "", r"\boxed{\text{15x - 80}}", False),
    ],
)
def test_a_reference_is_tried_in_forms_that_mean_the_same(reference, asked, form, is_tried):
    assert (form in other_forms("math", reference, asked)) == is_tried


def test_a_cold_start_without_solutions_says_how_many_and_what_to_do():
    bare = [problem(i, "5", "numeric") for i in range(3)]
    with pytest.raises(TaskError, match="3 of 3 problems have no solution, such as t/train/0"):
        check_solutions(bare, "{solution}")
    check_solutions(bare, "{answer}")


@pytest.mark.parametrize(
    "dataset",
    [
        "arc_1d", "base_conversion", "binary_matrix", "bitwise_arithmetic", "calendar_arithmetic",
        "chain_sum", "codeio", "coin_flip", "complex_arithmetic", "countdown", "decimal_arithmetic",
        "fraction_simplification", "game_of_life", "gcd", "knights_knaves", "mini_sudoku",
        "number_sorting", "pool_matrix", "prime_factorization",
        "products", "puzzle24", "rearc", "rotate_matrix", "simple_equations",
        "spiral_matrix", "string_insertion", "string_manipulation",
        "time_intervals", "tower_of_hanoi", "word_sorting",
    ],
)  # fmt: skip
def test_reasoning_gym_agrees_with_its_own_answers(pool, dataset):
    task = load_task(TaskConfig(source=f"reasoning_gym:{dataset}", size=5))
    assert check_references(task.problems, pool).bad == ()
