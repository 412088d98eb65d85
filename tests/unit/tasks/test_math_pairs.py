"""The math verifier on pairs of a reference and an answer, equal or not, decided by hand."""

# ruff: noqa: E501 (rows of tables)

import pytest

from rloop.tasks.verifiers import math
from rloop.types import Problem

EQUAL = {
    "integers": [
        ("8", "8"), ("8", "8.0"), ("8", "+8"), ("-8", "-8"), ("1000", "1,000"),
        ("1234567", "1,234,567"), ("1000", r"1{,}000"), ("1000", r"10^3"), ("8", "08"),
        ("0", "-0"), ("5040", "7!"), ("10", r"\binom{5}{2}"), ("1", r"\gcd(8, 9)"),
    ],
    "fractions": [
        (r"\frac{1}{2}", "1/2"), (r"\frac{1}{2}", "0.5"), (r"\frac{1}{2}", ".5"),
        (r"\frac{1}{2}", r"\frac{2}{4}"), (r"\frac{1}{2}", r"\dfrac{1}{2}"),
        (r"\frac{1}{2}", r"\tfrac12"), (r"\frac{1}{2}", r"\frac12"),
        (r"-\frac{1}{2}", r"\frac{-1}{2}"), (r"-\frac{1}{2}", r"\frac{1}{-2}"),
        (r"\frac{7}{3}", r"2\frac{1}{3}"), (r"\frac{3}{4}", r"\frac{0.75}{1}"),
        ("0.25", r"\frac14"), (r"\frac{10}{4}", "2.5"), ("3", r"\frac{9}{3}"),
    ],
    "roots and powers": [
        (r"\sqrt{2}", r"2^{1/2}"), (r"\sqrt{8}", r"2\sqrt{2}"),
        (r"\frac{\sqrt{2}}{2}", r"\frac{1}{\sqrt{2}}"), (r"\sqrt{2}", r"\sqrt2"),
        (r"\sqrt[3]{8}", "2"), (r"\sqrt{\frac{1}{4}}", "0.5"), ("8", "2^3"),
        (r"2^{-1}", r"\frac{1}{2}"), (r"\sqrt{12}+\sqrt{3}", r"3\sqrt{3}"),
        (r"(\sqrt{2})^2", "2"), (r"\sqrt{3+2\sqrt{2}}", r"1+\sqrt{2}"),
    ],
    "constants and functions": [
        (r"\pi", r"\pi"), (r"2\pi", r"\pi \cdot 2"), (r"\frac{\pi}{2}", r"0.5\pi"),
        ("e", "e"), (r"e^2", r"e \cdot e"), (r"\log_2 8", "3"),
        ("8", r"\text{eight}"), (r"\sin\frac{\pi}{6}", r"\frac12"), (r"\cos 0", "1"), (r"\tan\frac{\pi}{4}", "1"),
        (r"\ln 6", r"\ln 2 + \ln 3"), (r"|-3|", "3"), (r"\infty", r"\infty"),
        (r"-\infty", r"-\infty"),
    ],
    "ranges, dates, measures and chemical formulas": [
        ("5-10 minutes", r"5-10\text{ minutes}"), ("3\u20135", "3 - 5"), ("3 to 5", r"3 \text{ to } 5"),
        ("$5-$10", r"\$5-\$10"), ("$1,200-1,500", "1200-1500"), ("2024-05-01", r"\text{2024-05-01}"), ("None", "none"),
        ("2 hr 30 min", r"2\text{ hr }30\text{ min}"), ("N2O", r"\mathrm{N_2O}"), ("1e6", "10^6"), ("5 m2", "5 m^2"),
        ("Ann, Bob", "Bob, Ann"), ("9,-7", "-7, 9"),
    ],
    "algebra": [
        ("x+1", "1+x"), ("2x", "x+x"), ("x^2-1", "(x-1)(x+1)"), ("(x+1)^2", "x^2+2x+1"),
        (r"\frac{x^2-1}{x-1}", "x+1"), ("xy", "yx"), ("a-b", "-(b-a)"), ("3x", r"3 \cdot x"),
        ("3x", r"3\times x"), (r"\frac{a}{b}", "a/b"), ("y=2x+1", "y = 1+2x"),
        ("x^2+y^2=1", "x^2 + y^2 = 1"), ("n(n+1)/2", r"\frac{n^2+n}{2}"), ("x", "x"),
    ],
    "complex numbers": [
        ("i^2", "-1"), ("(1+i)^2", "2i"), (r"\frac{1}{i}", "-i"),
        ("1+2i", "2i+1"), ("-i", "0-i"), ("2i+2i", "4i"), ("3-4i", "3 - 4i"),
    ],
    "points, sets, intervals": [
        ("(3, -1)", "(3,-1)"), ("(1,2,3)", "(1, 2, 3)"), (r"(0, \frac{1}{2})", "(0, 0.5)"),
        (r"\emptyset", r"\varnothing"), (r"\{1,2,3\}", r"\{3,2,1\}"), (r"\{1,2\}", r"\{ 1, 2 \}"), ("1,2", "2,1"),
        ("[0,3)", "[0, 3)"), (r"(-\infty, 2]", r"(-\infty,2]"),
        (r"[0,1] \cup [2,3]", r"[2,3] \cup [0,1]"), (r"(1,2)\cup(3,4)", r"(3,4)\cup(1,2)"),
        (r"\left(1, 2\right)", "(1,2)"),
    ],
    "matrices": [
        (r"\begin{pmatrix} 1 \\ 2 \end{pmatrix}", r"\begin{pmatrix}1\\2\end{pmatrix}"),
        (r"\begin{pmatrix} 1 & 2 \\ 3 & 4 \end{pmatrix}", r"\begin{bmatrix} 1 & 2 \\ 3 & 4 \end{bmatrix}"),
        (r"\begin{pmatrix} 0.5 \\ 2 \end{pmatrix}", r"\begin{pmatrix} \frac12 \\ 2 \end{pmatrix}"),
    ],
    "units and marks around a number": [
        ("5", r"5\text{ cm}"), ("5", r"5\,\text{cm}"), ("5", r"\$5"), ("336", r"336^\circ"),
        ("336", r"336^{\circ}"), ("50", r"50\%"), (r"50\%", "50"), ("5", "x = 5"), ("5", r"x=5."),
        ("12", r"12 \text{ dollars}"), ("5", r"5\text{ hours}"), ("5", r"\mathbf{5}"),
        ("5", r"\boxed{5}"), ("8", r"\!8"), ("8", r"8\;"),
    ],
    "words": [
        (r"\text{Evelyn}", "Evelyn"), (r"\text{Evelyn}", r"\text{Evelyn}"),
        (r"\text{(B)}", r"\text{(B)}"), ("B", r"\text{B}"), (r"\text{even}", r"\text{even}"),
        (r"\text{Monday}", r"\text{ Monday}"),
    ],
    "inequalities": [
        ("x > 3", "x>3"), (r"x \ge 3", r"x \geq 3"), (r"x \le 3", r"x \leq 3"), ("x > 3", "3 < x"),
    ],
    "other bases and long numbers": [
        ("2516_8", "2516_{8}"), ("123456789012345678901234567890", "123456789012345678901234567890"),
    ],
}  # fmt: skip

UNEQUAL = {
    "integers": [
        ("8", "9"), ("8", "-8"), ("8", "88"), ("8", "0.8"), ("1000", "100"), ("0", "1"),
        ("10", "1.0"), ("1234", "1,23,4"), ("8", "8!"), ("1024", "2^{11}"), ("8", "none"),
    ],
    "fractions": [
        (r"\frac{1}{2}", r"\frac{1}{3}"), (r"\frac{1}{2}", "2"), (r"\frac{1}{2}", "-1/2"),
        (r"\frac{1}{3}", "0.33"), (r"\frac{2}{3}", "0.667"), (r"\frac{7}{3}", r"2\frac{2}{3}"),
        (r"\frac{1}{2}", "1"), (r"\frac{22}{7}", r"\pi"), (r"\frac{10}{4}", "25"),
    ],
    "roots and powers": [
        (r"\sqrt{2}", "1.4"), (r"\sqrt{2}", "2"), (r"\sqrt{8}", r"4\sqrt{2}"), ("2^3", "6"),
        (r"\sqrt{2}+\sqrt{3}", r"\sqrt{5}"), (r"2^{10}", "100"), (r"\sqrt[3]{8}", r"\sqrt{8}"),
    ],
    "constants and functions": [
        (r"\pi", "3.14"), (r"2\pi", r"\pi"), ("e", "2.7"), (r"\sin 1", r"\cos 1"),
        (r"\log_2 8", "4"), (r"\infty", r"-\infty"), (r"\ln 6", r"\ln 2 \cdot \ln 3"),
    ],
    "algebra": [
        ("x+1", "x-1"), ("2x", "x^2"), ("x^2-1", "(x-1)^2"), ("(x+1)^2", "x^2+1"), ("xy", "x+y"),
        ("a-b", "b-a"), ("x", "y"), ("x+1", "x"), ("y=2x+1", "y=2x-1"),
    ],
    # \log is the one to base 10.
    "logarithms": [(r"\ln 2", r"\log 2")],
    "complex numbers": [("1+2i", "1-2i"), ("i", "1"), ("2i", "2"), ("3-4i", "5")],
    "points, sets, intervals": [
        ("(3,-1)", "(-1,3)"), ("(1,2)", "(1,2,3)"), (r"\{1,2,3\}", r"\{1,2\}"), ("1,2", "1,3"),
        ("[0,3)", "[0,3]"), ("[0,3)", "(0,3)"), ("(0,3)", "[0,3]"), (r"(-\infty,2]", r"(-\infty,2)"),
        (r"[0,1] \cup [2,3]", "[0,3]"), ("1,2", "1"), ("1", "1,2"), (r"\emptyset", "0"),
    ],
    "matrices": [
        (r"\begin{pmatrix} 1 \\ 2 \end{pmatrix}", r"\begin{pmatrix} 2 \\ 1 \end{pmatrix}"),
        (r"\begin{pmatrix} 1 & 2 \\ 3 & 4 \end{pmatrix}", r"\begin{pmatrix} 1 & 3 \\ 2 & 4 \end{pmatrix}"),
    ],
    "units and marks around a number": [
        ("5", r"6\text{ cm}"), (r"50\%", "5"), ("5", "x = 6"), ("5", r"\$50"), ("336", r"33^\circ"),
    ],
    "words": [
        (r"\text{Evelyn}", "Carla"), (r"\text{(B)}", r"\text{(C)}"), (r"\text{even}", r"\text{odd}"),
        (r"\text{Evelyn}", "8"), ("8", r"\text{nine}"),
    ],
    "inequalities": [("x > 3", "x < 3"), ("x > 3", r"x \ge 3"), ("x > 3", "x > 4")],
    "not an answer": [
        ("8", ""), ("8", "?"), ("8", r"\text{}"), ("8", "="), ("8", r"\frac{}{}"), ("8", "8, 9, 10"),
    ],
    # Worked out as formulas, the two of each pair would be equal.
    "ranges, dates, measures and chemical formulas": [
        ("5-10 minutes", "10-15 minutes"), ("$5-10", r"\$10-15"), ("2-1", "1"), ("3 to 5", "5 to 3"), ("5-10%", r"10-15\%"),
        ("2024-05-01", "2018"), ("2024-05-01", "2024-01-05"), ("10/5/2020", "2/1/2020"),
        ("10 x 20", "5 x 40"), ("2 hr 30 min", "3 hr 20 min"), ("555-1234", "556-1235"),
        ("N2O", "NO2"), ("C2H4", "C4H2"), ("0x1F", "0"), ("5 m2", "10 m"), ("5m x 4m", "2m x 10m"), ("5 lb 8.5 oz", "8.5 lb 5 oz"),
        ("2024-05-01, 2024-06-01", "2018, 2017"), ("(5-10)", "-5"), ("None", "enoN"),
    ],
    "other bases and long numbers": [
        ("2516_8", "2516_7"),
        ("123456789012345678901234567890", "123456789012345678901234567891"),
    ],
}  # fmt: skip


def judge(reference, answer):
    problem = Problem(problem_id="t/0", task="t", question="?", answer=reference, verifier="math")
    return math.judge(problem, rf"so \boxed{{{answer}}}")


def flat(table):
    return [(topic, *pair) for topic, pairs in table.items() for pair in pairs]


@pytest.mark.parametrize(("topic", "reference", "answer"), flat(EQUAL))
def test_equal_answers_are_correct(topic, reference, answer):
    verdict = judge(reference, answer)
    assert verdict.kind == "correct", (topic, verdict)


@pytest.mark.parametrize(("topic", "reference", "answer"), flat(UNEQUAL))
def test_unequal_answers_are_wrong(topic, reference, answer):
    verdict = judge(reference, answer)
    assert verdict.kind == "wrong", (topic, verdict)
