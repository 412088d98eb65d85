import pytest

from rloop.config import TaskConfig
from rloop.errors import TaskError
from rloop.tasks.pool import VerifierPool
from rloop.tasks.references import check_references, check_solutions
from rloop.tasks.sources import load_task
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
    assert message.startswith("7 of 10 reference answers are not judged correct")
    assert "t/train/bad0: reference 'an apple', numeric says error (reference" in message
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
    with pytest.raises(TaskError, match="none of 1 reference answers is judged correct"):
        check_references([bad], pool, policy="drop")


@pytest.mark.parametrize(
    ("verifier", "reason"),
    [
        ("python:no_such_module:judge", "No module named 'no_such_module'"),
        ("python:json:judge", "module json has no function 'judge'"),
        ("python:doubles_misbehaving:raises", "the verifier raised KeyError: '5'"),
        ("python:doubles_misbehaving:returns_nonsense", "must return a bool or a Verdict"),
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


def test_a_cold_start_without_solutions_says_how_many_and_what_to_do():
    bare = [problem(i, "5", "numeric") for i in range(3)]
    with pytest.raises(TaskError, match="3 of 3 problems have no solution, such as t/train/0"):
        check_solutions(bare, "{solution}")
    check_solutions(bare, "{answer}")


@pytest.mark.parametrize(
    "dataset",
    [
        "arc_1d", "base_conversion", "binary_matrix", "bitwise_arithmetic", "chain_sum",
        "coin_flip", "complex_arithmetic", "countdown", "decimal_arithmetic",
        "fraction_simplification", "game_of_life", "gcd", "knights_knaves", "mini_sudoku",
        "number_sorting", "polynomial_multiplication", "prime_factorization",
        "products", "puzzle24", "rearc", "simple_equations", "simple_integration", "spiral_matrix",
        "time_intervals", "tower_of_hanoi", "word_sorting",
    ],
)  # fmt: skip
def test_reasoning_gym_agrees_with_its_own_answers(pool, dataset):
    task = load_task(TaskConfig(source=f"reasoning_gym:{dataset}", size=5))
    assert check_references(task.problems, pool).bad == ()
