from decimal import Decimal

import pytest

from rloop.tasks.verifiers.answers import (
    after_phrase,
    bare,
    last_box,
    last_tag,
    text_to_judge,
)
from rloop.tasks.verifiers.numbers import last_number, whole_number_text


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


def test_tags_and_dressing_are_taken_off():
    assert last_tag("<answer>1</answer> no <answer> 2 </answer>") == "2"
    assert bare('**"Paris".**') == "Paris"


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("5 + 3 = 8.", "8"),
        ("it costs $1,250.50", "1250.50"),
        ("x = -5", "-5"),
        ("owes -$5", "-5"),
        ("owes $-5", "-5"),
        ("10 - 5", "5"),
        ("10 -5", "5"),
        ("n-5", "5"),
        ("(-5)", "-5"),
        ("is \u22127", "-7"),
        ("3/4", "0.75"),
        ("1 1/2", "1.5"),
        (r"-\frac{3}{4}", "-0.75"),
        (r"1\frac{1}{2}", "1.5"),
        (".5", "0.5"),
        ("4.5e33", "4.5e33"),
        ("\u0663\u0664", "34"),  # Arabic-Indic digits
        ("\uff14\uff12", "42"),  # full-width digits
        ("2\u00b2", "2"),  # a superscript is no digit of the number
        ("1,2,3", "3"),
        ("12,345,678 apples", "12345678"),
        ("v1.2.3", "0.3"),
    ],
)
def test_last_number_reads_what_people_write(text, value):
    number = last_number(text)
    assert number is not None
    assert number.value == Decimal(value)


def test_a_fraction_over_zero_has_no_value_and_a_text_without_digits_no_number():
    number = last_number("1/0")
    assert number is not None
    assert number.value is None
    assert last_number("none at all") is None


def test_whole_number_text_takes_numbers_only():
    assert whole_number_text("-1,250").value == Decimal(-1250)  # type: ignore[union-attr]
    assert whole_number_text("50%").percent  # type: ignore[union-attr]
    for text in ("12 apples", "5 - 3", "", "$244/607$", "0x1f"):
        assert whole_number_text(text) is None


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
