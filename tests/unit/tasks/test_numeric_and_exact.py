import pytest

from rloop.tasks.verifiers import exact, numeric
from rloop.types import Problem


def problem(answer, verifier="numeric"):
    return Problem(problem_id="t/0", task="t", question="?", answer=answer, verifier=verifier)


NUMERIC_CANARIES = [
    # reference, completion, verdict, why
    ("8", "5 + 3 = 8.", "correct", "a plain sum"),
    ("8", "The sum of 5 and 3 is 8.", "correct", "a sentence"),
    ("8", "8", "correct", "the number alone"),
    ("8", "8.0", "correct", "equal in another form"),
    ("8", "16/2", "correct", "equal as a fraction"),
    ("1250", "She pays $1,250.", "correct", "currency and thousands"),
    ("1250", "1,250.00 dollars", "correct", "decimals and a unit"),
    ("0.5", "50%", "correct", "percent as a part"),
    ("50", "50%", "correct", "percent as a number"),
    ("50%", "0.5", "correct", "percent in the reference"),
    ("0.5%", "50%", "wrong", "another percentage"),
    ("12", "It isn't 12.", "wrong", "negated"),
    ("12", "I don\u2019t think it is 12.", "wrong", "negated before"),
    ("12", "It isn't 13 but 12.", "correct", "another one is negated"),
    ("0.333333", "1/3", "correct", "within 1e-6"),
    ("0.33", "1/3", "wrong", "outside the tolerance"),
    ("1000001", "1000000", "wrong", "integers must be equal"),
    ("-5", "x = -5", "correct", "a sign"),
    ("-5", "so 10 - 5", "wrong", "a minus between numbers is no sign"),
    ("34", "\u0663\u0664", "correct", "digits of another script"),
    ("42", r"\boxed{42} as 6*7 with 2 factors", "correct", "the box wins over later numbers"),
    ("42", "#### 42\nI used 3 steps", "correct", "the marker wins over later numbers"),
    ("42", r"so \boxed{42", "correct", "an unclosed box ends on its number all the same"),
    ("42", "so 4", "wrong", "cut off in the number"),
    ("8", "5 + 3 =", "wrong", "cut off before it"),
    ("8", "", "wrong", "empty"),
    ("8", "What is 5 + 3?", "wrong", "an echo of the prompt"),
    ("8", "8 or 9", "wrong", "two answers: the last counts"),
    ("8", "10**10**10", "wrong", "a power tower is its last number"),
    ("8", "(" * 100_000, "wrong", "100 kB of brackets"),
    ("8", "9" * 100_000, "wrong", "100 kB of digits"),
    ("8", "1/0", "wrong", "a division by zero"),
    ("8", "1e9999", "wrong", "a huge exponent"),
    ("0.5", "So it is 7.0.5", "wrong", "the end of a version number"),
    ("0.5", "3..5", "wrong", "the end of a range"),
    ("7", "x = 7.0.5", "wrong", "the beginning of a version number"),
    ("5", "It is 2'5", "wrong", "feet and inches"),
    ("apple", "8", "error", "the reference is no number"),
]


@pytest.mark.parametrize(("reference", "text", "kind", "why"), NUMERIC_CANARIES)
def test_numeric_canary(reference, text, kind, why):
    assert numeric.judge(problem(reference), text).kind == kind, why


def test_numeric_says_which_number_it_took():
    verdict = numeric.judge(problem("8"), "first 5, then $1,009.")
    assert (verdict.answer, verdict.reason) == ("1,009", "another number")


EXACT_CANARIES = [
    ("Paris", "Paris", "correct", "the same"),
    ("Paris", "Let me think.\n**paris.**\n", "correct", "case, emphasis and full stop"),
    ("Paris", "The answer is Paris.", "correct", "a phrase before it"),
    ("Paris", r"so \boxed{Paris}, no doubt", "correct", "a box"),
    ("New  York", "new york", "correct", "white space"),
    ("Paris", "Paris\nLondon", "wrong", "two answers: the last counts"),
    ("Paris", "Par", "wrong", "cut off"),
    ("Paris", "", "wrong", "empty"),
    ("Paris", "Is it Paris or London?", "wrong", "an echo of the prompt"),
    ("123", "12 3", "wrong", "digits are not joined"),
    ("2", "\u00b2", "wrong", "a superscript is another text"),
    ("Paris", "The answer is Paris, the capital of France.", "correct", "an apposition"),
    ("Paris", "The answer is Paris, the capital, or London.", "wrong", "two answers"),
    ("Paris", "The answer is Paris, London", "wrong", "two answers"),
    ("Paris", "The question whose answer is Paris", "wrong", "about a question"),
    ("Paris", "The answer is Paris. Or London.", "wrong", "one of several"),
    ("Paris", r"\boxed{Paris} or London", "wrong", "one of several, the first boxed"),
    ("Paris", r"\boxed{London}, \boxed{Paris}", "wrong", "two boxes beside each other"),
    ("Paris", "maybe <answer>Paris</answer>", "wrong", "a guess"),
    ("Paris", "<answer>Paris</answer> is wrong.", "wrong", "taken back"),
    ("a\nb", "So:\n```\na\nb\n```", "correct", "two lines in a block"),
    ("a\nb", "So:\n```\na\nb\n```\nThese are the rows.", "correct", "a line behind the block"),
    ("a\nb", "```\na\nb\n```\nHere is the better one:\nc\nd", "wrong", "others behind the block"),
    ("a\nb", "```\na\nb\n```\nThe rows\n\nc\nd", "wrong", "others in a later paragraph"),
    ("a\nb", "a\nb", "correct", "two lines"),
    ("a\nb", "The answer is:\na\nb", "correct", "two lines behind a phrase"),
    ("a\nb", "The answer is not:\na\nb", "wrong", "negated"),
    ("a\nb", "b", "wrong", "one of two lines"),
    ("...", "...", "correct", "nothing but marks"),
    ("", "x", "error", "no reference"),
]


@pytest.mark.parametrize(("reference", "text", "kind", "why"), EXACT_CANARIES)
def test_exact_canary(reference, text, kind, why):
    assert exact.judge(problem(reference, "exact"), text).kind == kind, why
