import time

import pytest

from rloop.tasks.verifiers import math
from rloop.types import Problem


def judge(reference, text):
    problem = Problem(problem_id="t/0", task="t", question="?", answer=reference, verifier="math")
    return math.judge(problem, text)


CANARIES = [
    # reference, completion, verdict, why
    ("8", r"so \boxed{8}", "correct", "a box"),
    ("8", "The sum of 5 and 3 is 8.", "correct", "no box: the final statement"),
    ("8", "5 + 3 = 8.", "correct", "no box: behind the equals sign"),
    (
        "8",
        "The answer is $8$.\nI hope that helps.",
        "correct",
        "the phrase wins over the last line",
    ),
    ("8", r"\boxed{9}", "wrong", "another number"),
    ("8", r"\boxed{8} or \boxed{9}", "wrong", "two boxes: the last counts"),
    ("8", r"\boxed{9}, no: \boxed{8}", "correct", "two boxes: the last counts"),
    ("8", r"so \boxed{8", "wrong", "the box is not closed"),
    ("8", r"\boxed{8} and so \boxed{", "wrong", "the last box is not closed"),
    ("8", "Let us see: 5 + 3 =", "wrong", "cut off"),
    ("8", "What is 5 + 3?", "wrong", "an echo of the question"),
    ("8", "", "wrong", "empty"),
    ("8", r"Put the final answer in \boxed{}.", "wrong", "an echo of the prompt"),
    ("8", r"\boxed{" + "(" * 100_000 + "}", "wrong", "100 kB of brackets"),
    ("8", "(" * 100_000, "wrong", "100 kB of brackets without a box"),
    ("8", r"\boxed{1/0}", "wrong", "a division by zero"),
    ("8", r"\boxed{9^{9^{9^{9}}}}", "wrong", "a tower of powers"),
]


@pytest.mark.parametrize(("reference", "text", "kind", "why"), CANARIES)
def test_math_canary(reference, text, kind, why):
    verdict = judge(reference, text)
    assert verdict.kind == kind, (why, verdict)


def test_a_sum_to_1e9_gives_a_verdict_and_is_not_summed():
    # 1 + ... + 1e9 = 1e9 * (1e9 + 1) / 2 = 500000000500000000
    assert judge("8", r"\boxed{\sum_{i=1}^{10^9} i}").kind == "wrong"


def test_what_would_take_long_is_not_worked_out_and_the_answer_kept():
    begin = time.process_time()
    verdict = judge("8", r"\boxed{10^{10^{10}}}")
    assert (verdict.kind, verdict.reason) == ("wrong", "a power too large to work out")
    assert verdict.answer == "10^{10^{10}}"
    assert time.process_time() - begin < 0.5


def test_a_verdict_that_takes_long_all_the_same_is_an_error_that_says_so(monkeypatch):
    def compares_for_ever(reference, answer):
        while True:
            pass

    monkeypatch.setattr(math, "LIMIT_S", 0.05)
    monkeypatch.setattr(math, "why_different", compares_for_ever)
    verdict = judge("x+1", r"\boxed{x+2}")
    assert verdict.kind == "error"
    assert verdict.reason == "no verdict within the limit of 0.05 s of processor time"


def test_reasons_name_what_is_missing():
    assert judge("8", r"\boxed{8").reason == r"the last \boxed{} is not closed"
    assert judge("8", "").reason == "an empty completion"
    assert (
        judge("8", r"\boxed{" + "1" * 2000 + "}").reason == "an answer longer than 1000 characters"
    )
