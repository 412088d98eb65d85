"""Attention within spans against the plain formula, in values and gradients."""

import pytest
import torch

from rloop.engines.native import packed_attention
from rloop.engines.native.packed_attention import Span

SPANS = {
    "one": ([Span(0, 9)], 9),
    "two sequences": ([Span(0, 4), Span(4, 9)], 9),
    "a shared prompt behind another": (
        [Span(0, 2), Span(2, 5), Span(5, 9, 2, 5), Span(9, 11, 2, 5)],
        11,
    ),
    "a completion of one token": ([Span(0, 3), Span(3, 3, 0, 3), Span(3, 6, 0, 3)], 6),
}


def formula(query, key, value, spans):
    """softmax(Q K^T / 2 + mask) V, every head with keys of its own."""
    steps = torch.arange(query.shape[2])
    is_seen = torch.zeros(len(steps), len(steps), dtype=torch.bool)
    for span in spans:
        for token in range(span.start, span.end):
            is_seen[token] = (span.start <= steps) & (steps <= token)
            is_seen[token] |= (span.prefix_start <= steps) & (steps < span.prefix_end)
    key, value = (states.repeat_interleave(3, dim=1) for states in (key, value))
    scores = (query @ key.mT / 2).masked_fill(~is_seen, float("-inf"))
    return (scores.softmax(-1) @ value).transpose(1, 2)


@pytest.mark.parametrize("block_queries", [1, 3, 100])
@pytest.mark.parametrize("name", SPANS)
def test_values_and_gradients_are_those_of_the_formula(name, block_queries, monkeypatch):
    monkeypatch.setattr(packed_attention, "BLOCK_QUERIES", block_queries)
    spans, num_tokens = SPANS[name]
    generator = torch.Generator().manual_seed(0)
    query, key, value = (
        torch.randn(1, num_tokens, heads, 8, generator=generator).transpose(1, 2).requires_grad_()
        for heads in (6, 2, 2)
    )
    found = packed_attention.packed_attention(query, key, value, spans, scale=0.5)
    expected = formula(query, key, value, spans)
    torch.testing.assert_close(found, expected)
    pull = torch.randn(found.shape, generator=generator)
    inputs = (query, key, value)
    gradients = torch.autograd.grad(found, inputs, pull)
    torch.testing.assert_close(gradients, torch.autograd.grad(expected, inputs, pull))
