"""What a user's own function may return, and what is said where it fails."""

import re

import pytest

from rloop.errors import ConfigError
from rloop.tasks.pool import VerifierPool
from rloop.tasks.verifiers.registry import check_verifier_name
from rloop.types import Problem


def double(name: str, answer: str = "8") -> Problem:
    return Problem(
        problem_id="t/0",
        task="t",
        question="?",
        answer=answer,
        verifier=f"python:doubles_misbehaving:{name}",
    )


@pytest.fixture(scope="module")
def pool():
    with VerifierPool(num_workers=1, timeout_s=5.0) as pool:
        yield pool


@pytest.mark.parametrize(
    ("returned", "kind", "score"),
    [
        ("bool", "correct", None),
        ("numpy bool", "wrong", None),
        ("numpy float", "wrong", 0.25),
        ("numpy array of one", "wrong", 0.5),
        ("half", "wrong", 0.5),
        ("one", "correct", 1.0),
        ("full", "correct", 1.0),
        ("score", "wrong", 0.75),
        ("passed", "correct", 0.8),
    ],
)
def test_a_truth_value_a_score_or_a_verdict_is_taken(pool, returned, kind, score):
    (verdict,) = pool.verify([(double("returns_as_asked"), returned)])
    assert (verdict.kind, verdict.score) == (kind, score), verdict.reason


@pytest.mark.parametrize(
    ("returned", "told"),
    [
        ("nan", "returned nan; it must return True or False, a score from 0 to 1, or a Verdict"),
        ("above", "returned 1.5; it must return"),
        ("below", "returned -0.1; it must return"),
        ("nothing", "returned None (NoneType); it must return"),
        ("text", "returned '5' (str); it must return"),
        ("array", "returned array([0.5, 0.5]) (ndarray); it must return"),
        ("score above", "malformed verdict: Verdict(kind='wrong', score=4"),
        ("score of text", "malformed verdict: Verdict(kind='wrong', score='high'"),
    ],
)
def test_anything_else_is_an_error_that_shows_it(pool, returned, told):
    (verdict,) = pool.verify([(double("returns_as_asked"), returned)])
    assert verdict.kind == "error"
    assert told in verdict.reason
    assert verdict.reward == 0.0


def test_what_a_function_raises_is_reported_with_its_line_the_completion_and_the_reference(pool):
    (verdict,) = pool.verify([(double("raises"), "left " + "x" * 500 + " right")])
    assert "the verifier raised KeyError" in verdict.reason
    assert "doubles_misbehaving.py, line " in verdict.reason
    assert "xxx right' and reference '8'" in verdict.reason
    assert len(verdict.reason) < 700


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("python:my_checks.py:judge", "write python:my_checks:judge"),
        ("python:./checks/mine.py:judge", "write python:checks.mine:judge"),
        ("python:my_checks", "write python:my_checks:function"),
        ("python:", "write python:package.module:function"),
        ("maths", "Did you mean math?"),
    ],
)
def test_a_verifier_that_cannot_be_one_is_told_with_the_right_form(name, told):
    with pytest.raises(ConfigError, match=re.escape(told)):
        check_verifier_name(name)
