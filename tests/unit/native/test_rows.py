"""Which sequences share a row, by hand and as a property."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rloop.engines.native.batches import Row, plan_rows

FAR = 10_000
"""A budget and a parity length that never bite."""


def plan(prompt_lengths_and_completions, *, max_tokens=FAR, parity_tokens=FAR):
    """Rows for (prompt, completion length) pairs; a prompt is a string, a letter a token."""
    prompts = [tuple(map(ord, prompt)) for prompt, _ in prompt_lengths_and_completions]
    lengths = [length for _, length in prompt_lengths_and_completions]
    return plan_rows(prompts, lengths, max_tokens=max_tokens, parity_tokens=parity_tokens)


def test_three_completions_share_their_prompt():
    # 4 + 3 * (2 - 1) = 7 tokens fed; alone 3 * (4 + 1) = 15
    assert plan([("abcd", 2)] * 3) == [Row((0, 1, 2), 7)]


def test_only_equal_prompts_share_and_groups_stay_in_order():
    found = plan([("ab", 5), ("abc", 2), ("ab", 7), ("xyz", 1)])
    # longest completion first: 2 + 6 + 4 = 12
    assert found == [Row((2, 0), 12), Row((1,), 4), Row((3,), 3)]


def test_the_cost_of_a_row_by_hand():
    # masked 100 * (1 + 100 / 200), causal 100 * (1 + 100 / 400)
    assert Row((0, 1), 100).cost(200) == pytest.approx(150)
    assert Row((0,), 100).cost(200) == pytest.approx(125)


def test_long_completions_of_a_short_prompt_stay_alone():
    # together 10 + 2 * 999 = 2008 tokens cost 2008 * (1 + 2.008) = 6040
    # alone 2 * 1009 * (1 + 1009 / 2000) = 3036
    assert plan([("a" * 10, 1000)] * 2, parity_tokens=1000) == [Row((0,), 1009), Row((1,), 1009)]


def test_a_group_is_split_where_attention_would_outweigh_the_prompt():
    # 30 + 40 n tokens in a row, parity 300:
    # 1 row    190 * (1 + 190 / 300)                              = 310.3
    # 2 rows   2 * 110 * (1 + 110 / 300)                          = 300.7
    # 3 rows   110 * (1 + 110 / 300) + 2 * 70 * (1 + 70 / 600)    = 306.7
    # 4 rows   4 * 70 * (1 + 70 / 600)                            = 312.7
    found = plan([("a" * 30, 41)] * 4, parity_tokens=300)
    assert found == [Row((0, 2), 110), Row((1, 3), 110)]


def test_shared_rows_keep_to_the_budget_and_repeat_the_prompt():
    group = [("abcd", 3)] * 3
    assert plan(group, max_tokens=10) == [Row((0, 1, 2), 10)]  # 4 + 3 * 2
    assert plan(group, max_tokens=9) == [Row((0, 2), 8), Row((1,), 6)]
    assert plan(group, max_tokens=5) == [Row((0,), 6), Row((1,), 6), Row((2,), 6)]


@given(
    pairs=st.lists(st.tuples(st.sampled_from(["a", "ab", "b" * 20]), st.integers(1, 60))),
    max_tokens=st.integers(1, 200),
    parity_tokens=st.integers(1, 500),
)
def test_every_sequence_has_one_place_and_sharing_never_costs(pairs, max_tokens, parity_tokens):
    rows = plan(pairs, max_tokens=max_tokens, parity_tokens=parity_tokens)
    assert sorted(index for row in rows for index in row.indices) == list(range(len(pairs)))
    for row in rows:
        prompts = {pairs[index][0] for index in row.indices}
        assert len(prompts) == 1
        fed = sum(pairs[index][1] - 1 for index in row.indices)
        assert row.num_tokens == len(prompts.pop()) + fed
        assert row.num_tokens <= max_tokens or not row.is_shared
    alone = [Row((0,), len(prompt) + length - 1) for prompt, length in pairs]
    limit = sum(row.cost(parity_tokens) for row in alone)
    assert sum(row.cost(parity_tokens) for row in rows) <= limit * (1 + 1e-12)
