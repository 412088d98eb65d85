"""Cards and lines of a step, and the shades of tokens."""

import math

import pyarrow as pa
import pytest
from doubles_records import group_at, place_at
from tokenizers import Tokenizer, decoders, models

from rloop.store.schema import trajectory_table
from rloop.text import excerpt
from rloop.view.html import highlight
from rloop.view.tokens import shade, tokens_of
from rloop.view.trajectories import (
    COLUMNS,
    HEAD,
    TAIL,
    Filters,
    group_lines,
    group_view,
    shown_row,
)


def rows_of(*completions: tuple[str, bool]) -> pa.Table:
    place = place_at(1)
    groups = [group_at(place, "a/1", completions), group_at(place, "b/2", completions[:2])]
    return trajectory_table(place, groups).select(list(COLUMNS))


def test_a_line_has_the_verdicts_in_member_order():
    rows = rows_of(("yes", True), ("no", False), ("NO way", False))
    mask = Filters(text="no").mask(rows)
    assert mask.tolist() == [False, True, True, False, True]
    lines = group_lines(rows, mask)
    assert [(line["problem_id"], line["verdicts"], line["num_correct"]) for line in lines] == [
        ("a/1", ["correct", "wrong", "wrong"], 1),
        ("b/2", ["correct", "wrong"], 1),
    ]


def test_groups_without_a_match_are_left_out():
    rows = rows_of(("yes", True), ("no", False), ("only here", False))
    assert [line["problem_id"] for line in group_lines(rows, Filters(text="only").mask(rows))] == [
        "a/1"
    ]
    assert group_lines(rows, Filters(problem="zebra").mask(rows)) == []


def test_a_long_completion_is_cut_in_its_middle():
    text = "a" * HEAD + "m" * 7 + "z" * TAIL
    rows = rows_of((text, True), ("", False))
    view = group_view(rows, Filters().mask(rows), "a/1", 0)
    assert view is not None
    card, empty = view["cards"]
    assert (card["head"], card["num_left_out"], card["tail"]) == ("a" * HEAD, 7, "z" * TAIL)
    assert (empty["head"], empty["num_left_out"], empty["tail"]) == ("", 0, "")
    assert (view["num_correct"], view["size"], view["reference"]) == (1, 2, "2")
    assert group_view(rows, Filters().mask(rows), "zebra", 0) is None


def test_the_mean_log_probability_is_over_the_tokens_sampled():
    for tokens, total, mean in ((4, -3.0, -0.75), (0, 0.0, None)):
        row = {"completion_tokens": tokens, "behavior_logprob_sum": total, "rewards": None}
        assert shown_row(row)["logprob_mean"] == mean


@pytest.mark.parametrize(
    ("prompt", "said"),
    [
        ("<|im_start|>user\nTwo plus two?<|im_end|>\n<|im_start|>assistant\n", "Two plus two?"),
        ("1+1=", "1+1="),
        ("", ""),
        ("x" * 200, "... " + "x" * 160),
    ],
)
def test_an_excerpt_is_the_question_without_the_template(prompt, said):
    assert excerpt(prompt) == said


def test_what_was_searched_for_is_marked_and_the_rest_escaped():
    assert highlight("<b>Ab</b>", "b>") == "&lt;<mark>b&gt;</mark>Ab&lt;/<mark>b&gt;</mark>"
    assert highlight("a.b", ".") == "a<mark>.</mark>b"


def test_shades_part_at_nine_tenths_a_half_a_tenth_and_a_hundredth():
    assert [shade(p) for p in (1.0, 0.9, 0.89, 0.5, 0.2, 0.05, 0.001)] == [0, 0, 1, 1, 2, 3, 4]


@pytest.fixture
def run_with_tokenizer(tmp_path):
    vocabulary = {"<eos>": 0, "Hel": 1, "lo": 2, " you": 3}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<eos>"))
    tokenizer.decoder = decoders.Fuse()
    (tmp_path / "policies" / "base").mkdir(parents=True)
    tokenizer.save(str(tmp_path / "policies" / "base" / "tokenizer.json"))
    return tmp_path


def test_tokens_are_the_pieces_of_the_stored_text(run_with_tokenizer):
    logprobs = [math.log(0.95), math.log(0.3), math.log(0.6), math.log(0.001)]
    found = tokens_of(run_with_tokenizer, [1, 2, 3, 0], logprobs, "Hello you")
    assert [token.text for token in found] == ["Hel", "lo", " you", "<eos>"]
    assert [token.shade for token in found] == [0, 2, 1, 4]


def test_no_tokens_are_shown_that_do_not_give_the_text_back(run_with_tokenizer, tmp_path):
    assert tokens_of(run_with_tokenizer, [1, 2], [0.0, 0.0], "Bye") == []
    assert tokens_of(tmp_path / "nowhere", [1], [0.0], "Hel") == []
    (run_with_tokenizer / "policies" / "base" / "tokenizer.json").write_text("{}")
    assert tokens_of(run_with_tokenizer, [1], [0.0], "Hel") == []
