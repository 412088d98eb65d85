"""Verdicts on kinds of answers that people reported, each with its right value.

In tables: reference, completion, whether it is right. A bare answer stands for a box.
"""

import json
import sys
from pathlib import Path

import pytest

from rloop.tasks.verifiers import registry
from rloop.types import Problem

BENCHMARKS = Path(__file__).parents[3] / "benchmarks" / "verifiers"
ATTACKED = [
    json.loads(line) for line in (Path(__file__).parent / "attacked.jsonl").read_text().splitlines()
]
"""What people who tried to fool the verifiers came up with."""


def is_correct(verifier, answer, completion, question=""):
    problem = Problem(
        problem_id="t/0", task="t", question=question, answer=answer, verifier=verifier
    )
    verdict = registry.judge(problem, completion)
    assert verdict.kind != "error", verdict
    return verdict.is_correct


BOXED = {
    "text after the answer counts": [
        ("B", r"B \text{ or C or D or A}", False), ("yes", r"yes \text{ or no}", False),
        ("5", r"5\text{ million}", False), ("5000000", r"5\text{ million}", True),
        (r"n \text{ even}", r"n \text{ odd}", False), (r"5\text{ cm}", r"5\text{ km}", False),
        (r"5\text{ cm}", "5", True), ("101_2", "101", False), ("101", "101_2", False),
        ("5", r"5 \text{ or more}", False), (r"\text{blue}", r"\text{blue and green}", False),
    ],
    "tiny numbers differ": [
        (r"\frac{1}{2004!}", r"\frac{1}{2006!}", False), ("10^{-20}", "10^{-21}", False),
        ("0.0000001", "0.0000002", False), ("0.1", "0.1000004", False),
        ("7.4e-12", "0.0", False), ("1e-5", "0.00001", True),
    ],
    "e-notation is a number": [
        ("4.5e33", r"4.5 \times 10^{33}", True), ("4.5e33", "45" + "0" * 32, True),
        ("4.5e33", "148.5 e", False), ("4.5e33", r"4.5 \times 10^{32}", False),
        ("1e22", "10^{22}", True), ("1200", "1.2e3", True),
    ],
    "units and currency": [
        ("12", "12 dollars", True), ("12", "12 m/s", True), ("12", "12 people", True),
        ("12", r"\text{12 apples}", True), ("5", "\u20ac5", True), ("50 km/h", "50", True),
        ("50 km/h", "50 mph", False), (r"5\text{ cm}^2", r"5\text{ cm}", False),
        (r"\$5", "5 dollars", True), (r"\$5", "\u20ac5", False), ("7", r"7\text{ m}^2", True),
    ],
    "everyday forms": [
        (r"\sqrt{2}", "\u221a2", True), (r"\frac{1}{2}", "\u00bd", True),
        (r"60^\circ", "60\u00b0", True), ("1.5", "1 1/2", True),
        (r"\frac13", r"0.\overline{3}", True),
        ("5", "5.", True), ("24.31", r"\text{24.31}", True), ("5", "5=x", True),
        ("73", "**73**", True), (r"\frac{2}{3}", r"0.\bar{6}", True), ("1234", "1 234", True),
    ],
    "direction and structure": [
        (r"(-\infty,3)", "x<3", True), ("x<3", r"(-\infty,3)", True), ("(0,1]", r"0<x\le 1", True),
        ("5", "6 = 5", False), ("3", "3=5", False), ("6=5", "5", False), ("5", "x=3=5", False),
        ("(1,2)", r"\{1,2\}", False), (r"\{1,2\}", "[1,2]", False), ("[1,2]", "(1,2)", False),
        ("(3,5)", "3,5", False), (r"(2,\infty)", "x<2", False), ("(1,3)", "(3,1)", False),
    ],
    "equal to the last digit": [
        ("1-2^{2012}", "-2^{2012}", False), (r"10^{100}+\sqrt{2}", r"10^{100}+\sqrt{3}", False),
        ("x^{2012}-1", "x^{2012}", False), ("|x-3|", "3-x", False), ("f(2)+f(3)", "f(5)", False),
        ("(-1)^n n", "n(-1)^n", True), (r"\frac{x^2-1}{x-1}", "x+1", True),
    ],
}  # fmt: skip

COMPLETIONS = {
    "thoughts are no answer": [
        ("7", "<think>maybe \\boxed{7}</think>\nThe answer is 5.", False),
        ("7", "<think>maybe \\boxed{7} but wait", False),
        ("7", "so it is 5</think>\\boxed{7}", True),
        ("7", "\\boxed{7} hm</think> \\boxed{5}", False),
    ],
    "a statement names the answer": [
        ("5", "the answer is:\n\\[\n5\n\\]", True), ("5", "<answer>5</answer>", True),
        (r"\sqrt{3}", r"The answer is \sqrt{3}", True), ("(1,2)", "The answer is (1,2).", True),
        ("5", "The answer is not 5", False), ("5", "The answer is at least 5.", False),
        ("13", "The answer is 12 or 13.", False), ("5", "The answer is 5x.", False),
        ("3", "answer: 3 (not 5)", True), ("5", "The answer is 5. Wait, that is wrong.", False),
        ("5", "If the answer is 5, we are done.", False), ("2", "x = 3 or x = 2", False),
    ],
    "several boxes": [
        ("1,2", r"\boxed{1} and \boxed{2}", True), ("5", r"\boxed{5} or \boxed{7}", False),
        ("8", r"\boxed{9}, no: \boxed{8}", True), ("2", r"\boxed 2", True),
    ],
    "letters": [
        ("B", "The answer is B.", True), ("A", r"\boxed{A) 5}", True), ("B", "A or B", False),
    ],
}  # fmt: skip

NUMERIC = [
    ("7", r"\boxed{7\text{ m}^2}", True), ("1000", r"\boxed{1{,}000}", True),
    ("0.5", r"\boxed{\frac12}", True), ("1200000", r"\boxed{1.2 \times 10^6}", True),
    ("2", r"\boxed{x^2}", False), ("18", "The answer is 18.\n\nNote: 1 hour = 60 minutes.", True),
    ("18", "<answer>18</answer>\nstep 2 done", True), ("1e-7", "5e-7", False),
]  # fmt: skip

ECHOES = [
    ("math", "5", "What is 2 + 3?", "2 + 3"),
    ("math", "5", "What is 2 + 3?", "I think 2 + 3 is a nice sum."),
    ("math", "5", "What is $2+3$?", r"\boxed{3 + 2}"),
    ("math", "x^2+2x+1", "Expand $(x+1)^2$.", r"\boxed{(x+1)^2}"),
    ("math", "1,2,3", "Sort 3, 1, 2.", r"\boxed{3, 1, 2}"),
    ("numeric", "5", "What is 0 + 5?", "I think 0 + 5 is a nice sum."),
    ("numeric", "5", "What is 0 + 5?", "What is 0 + 5?"),
]


@pytest.mark.parametrize(
    ("kind", "answer", "boxed", "expected"),
    [(kind, *row) for kind, rows in BOXED.items() for row in rows],
)
def test_a_boxed_answer_is_judged_by_its_value(kind, answer, boxed, expected):
    assert is_correct("math", answer, rf"so \boxed{{{boxed}}}") is expected, kind


@pytest.mark.parametrize(
    ("kind", "answer", "completion", "expected"),
    [(kind, *row) for kind, rows in COMPLETIONS.items() for row in rows],
)
def test_the_answer_is_found_in_a_whole_completion(kind, answer, completion, expected):
    assert is_correct("math", answer, completion) is expected, kind


@pytest.mark.parametrize(("answer", "completion", "expected"), NUMERIC)
def test_numeric_reads_numbers_as_people_write_them(answer, completion, expected):
    assert is_correct("numeric", answer, completion) is expected


@pytest.mark.parametrize(("verifier", "answer", "question", "completion"), ECHOES)
def test_the_question_repeated_is_no_answer(verifier, answer, question, completion):
    assert not is_correct(verifier, answer, completion, question)


@pytest.mark.parametrize("answer", ["10:30", "2 hours 30 minutes", "1,2", "an apple"])
def test_numeric_refuses_references_that_are_not_one_number(answer):
    problem = Problem(problem_id="t/0", task="t", question="", answer=answer, verifier="numeric")
    verdict = registry.judge(problem, answer)
    assert verdict.kind == "error"
    assert "math compares" in verdict.reason


def test_nothing_that_attackers_tried_gets_through():
    failed = [
        row
        for row in ATTACKED
        if is_correct(row["verifier"], row["answer"], row["completion"], row.get("problem", ""))
        is not row["expected"]
    ]
    assert failed == []


def test_at_most_1_in_1000_wrong_answers_is_accepted_and_1_in_100_right_ones_rejected(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    for name in ("compare", "peers"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    import compare

    wrong: list[bool] = []
    right: list[bool] = []
    for pair in compare.load_pairs():
        verdict = is_correct("math", pair["answer"], pair["completion"], pair.get("problem") or "")
        (right if pair["expected"] else wrong).append(verdict)
    assert sum(wrong) <= len(wrong) / 1000
    assert right.count(False) <= len(right) / 100
