import pytest

from rloop.tasks.verifiers.answers import (
    after_phrase,
    bare,
    last_box,
    text_to_judge,
)
from rloop.tasks.verifiers.numbers import last_number_span


@pytest.mark.parametrize(
    ("text", "box"),
    [
        ("no box", (None, True)),
        (r"so \boxed{42}.", ("42", True)),
        (r"\boxed{1} then \boxed{2}", ("2", True)),
        (r"\boxed{\frac{1}{2}}", (r"\frac{1}{2}", True)),
        (r"\boxed{\{1,2\}}", (r"\{1,2\}", True)),
        (r"\boxed{\boxed{7}}", ("7", True)),
        (r"put it in \boxed{}", (None, True)),
        (r"\boxed{5} as \boxed{ }", ("5", True)),
        (r"\boxed{3} no, \boxed{4", (None, False)),
        (r"\boxed{42", (None, False)),
        (r"\fbox{9}", ("9", True)),
    ],
)
def test_last_box_is_the_last_non_empty_one_and_an_unclosed_one_hides_the_rest(text, box):
    assert last_box(text) == box


def test_100_kB_of_boxes_is_read_in_linear_time():
    assert last_box(r"\boxed{" * 15_000) == (None, False)
    assert last_box(r"\boxed{1}" * 12_000) == ("1", True)


@pytest.mark.parametrize(
    ("text", "statement"),
    [
        ("The answer is 5.\nBye", "5."),
        ("**Answer:** 5", "5"),
        ("Final answer: 1/2", "1/2"),
        ("2 + 3\n#### 5", "5"),
        ("Answer:\n\n 12", "12"),
        ("one\ntwo\n", None),
        ("The answer is", None),
        ("Answer: $X", "$X"),
        ("", None),
    ],
)
def test_what_follows_the_last_phrase_is_found(text, statement):
    assert after_phrase(text) == statement


def test_after_phrase_gives_as_many_lines_as_asked():
    assert after_phrase("answer:\n1 2\n3 4\n5 6", 2) == "1 2\n3 4"


def test_dressing_is_taken_off():
    assert bare('**"Paris".**') == "Paris"


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("5 + 3 = 8.", "8"),
        ("it costs $1,250.50", "1,250.50"),
        ("x = -5", "-5"),
        ("owes $-5", "-5"),
        ("owes -$5", "-$5"),
        ("10 - 5", "5"),
        ("10 -5", "5"),
        ("n-5", "5"),
        ("(-5)", "-5"),
        ("3/4", "3/4"),
        ("1 1/2", "1 1/2"),
        (r"-\frac{3}{4}", r"-\frac{3}{4}"),
        (".5", ".5"),
        ("4.5e33", "4.5e33"),
        ("1,2,3", "3"),
        ("12,345,678 apples", "12,345,678"),
        ("50%", "50%"),
    ],
)
def test_the_last_number_is_found_with_its_sign(text, number):
    place = last_number_span(text)
    assert place is not None
    assert text[slice(*place)] == number


def test_a_text_without_digits_has_no_number():
    assert last_number_span("none at all") is None


@pytest.mark.parametrize(
    ("prompt", "completion", "text"),
    [
        ("<|assistant|>\n<think>\n", "maybe 7", "<think>maybe 7"),
        ("<|assistant|>\n<think>\n", "maybe 7</think> so 5", "maybe 7</think> so 5"),
        ("What does <think> mean?\n", "a tag", "a tag"),
        ("<think></think>\n", "7", "7"),
    ],
)
def test_a_thought_that_the_prompt_opened_is_judged_as_one(prompt, completion, text):
    assert text_to_judge(prompt, completion) == text
