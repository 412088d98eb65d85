import pyarrow as pa
import pytest
from doubles_records import group_at, place_at

from rloop.errors import StoreError
from rloop.store.export_formats import Chat, trl_examples, trl_problems
from rloop.store.schema import SCHEMA, trajectory_table

CHAT = Chat(head="<|s|>be brief<|u|>", tail="<|a|>", system="be brief")
PROMPT = "<|s|>be brief<|u|>1+1=<|a|>"
PROBLEM = {
    "task": "sums",
    "problem_id": "sums/0",
    "prompt_text": PROMPT,
    "reference": "2",
    "num_trajectories": 4,
    "success_rate": 0.25,
}


@pytest.fixture
def table() -> pa.Table:
    place = place_at(3)
    return trajectory_table(place, [group_at(place, "sums/0", [("2", True), ("11", False)])])


def test_trl_gets_the_sampled_tokens_with_a_mask_over_the_completion(table):
    rows = trl_examples(table).to_pylist()
    # "1+1=" is 49 43 49 61, "2" is 50, "11" is 49 49; completions end in EOS, 0.
    assert rows[0]["input_ids"] == [49, 43, 49, 61, 50, 0]
    assert rows[0]["completion_mask"] == [0, 0, 0, 0, 1, 1]
    assert rows[1]["input_ids"] == [49, 43, 49, 61, 49, 49, 0]
    assert rows[1]["completion_mask"] == [0, 0, 0, 0, 1, 1, 1]
    assert (rows[1]["prompt"], rows[1]["completion"]) == ("1+1=", "11")
    assert (rows[1]["problem_id"], rows[1]["step"], rows[1]["member"]) == ("sums/0", 3, 1)


def test_rows_that_were_filtered_or_none_at_all_make_no_difference(table):
    second = table.filter(pa.array([False, True]))
    assert trl_examples(second).to_pylist() == trl_examples(table).to_pylist()[1:]
    assert trl_examples(SCHEMA.empty_table()).schema == trl_examples(table).schema


def test_a_chat_prompt_is_told_as_the_messages_it_was_made_of():
    wanted = [{"role": "system", "content": "be brief"}, {"role": "user", "content": "1+1="}]
    assert CHAT.messages(PROMPT) == wanted
    assert trl_problems([PROBLEM], CHAT).to_pylist()[0]["prompt"] == wanted
    assert trl_problems([PROBLEM], Chat()).to_pylist()[0]["prompt"] == PROMPT


@pytest.mark.parametrize("prompt", ["1+1=", "<|s|>be brief<|u|>1+1=", "<|a|>", ""])
def test_a_prompt_that_the_template_did_not_make_is_refused(prompt):
    with pytest.raises(StoreError, match=r"does not match its chat template"):
        CHAT.messages(prompt)
