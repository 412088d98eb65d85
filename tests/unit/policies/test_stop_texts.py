"""Stop texts: found among tokens, cut from texts."""

import pytest
from doubles_policies import tiny_renderer
from hypothesis import given
from hypothesis import strategies as st

from rloop.policies.stop_texts import StopTexts, before_stop


def characters(ids):
    return "".join(map(chr, ids))


@pytest.mark.parametrize(
    ("text", "end"),
    [
        ("4\nQ: 5?", 3),  # the third character completes newline and Q
        ("42", None),
        ("", None),
        ("\nQ", 2),
        ("### a\nQ", 3),  # the first of two
    ],
)
def test_the_end_is_behind_the_token_that_completes_the_first_stop_text(text, end):
    assert StopTexts(characters, ["\nQ", "###"]).end([ord(c) for c in text]) == end


@given(st.text("ab\n", max_size=40), st.text("ab\n", min_size=1, max_size=3))
def test_asking_after_each_token_finds_what_asking_once_finds(text, stop):
    stops, ids = StopTexts(characters, [stop]), [ord(c) for c in text]
    found = next((n for n in range(1, len(ids) + 1) if stops.end(ids[:n], n - 1)), None)
    assert found == stops.end(ids)
    assert found == (text.index(stop) + len(stop) if stop in text else None)


def test_without_stop_texts_nothing_ends():
    assert StopTexts(tiny_renderer().decode, ()).end([5, 6, 7]) is None


def test_a_text_is_cut_before_the_first_stop_text():
    assert before_stop("4\nQ: 5?###", ["###", "\nQ"]) == "4"
    assert before_stop("4", ["\nQ"]) == "4"
