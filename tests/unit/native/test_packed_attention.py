"""Attention within spans against the plain formula, in values and gradients."""

import pytest
import torch
from doubles_models import VOCABULARY, tiny_model
from torch.nn.functional import scaled_dot_product_attention

from rloop.engines.base import TrainingSequence
from rloop.engines.native import attention, packed_attention
from rloop.engines.native.batches import form_microbatches, is_packed
from rloop.engines.native.logprobs import completion_logprobs
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


@pytest.mark.parametrize("sharpness", [1.0, 4.0])
def test_bf16_is_as_near_to_the_formula_as_the_padded_kernel(sharpness):
    """A bfloat16 keeps 8 bits: rounding once errs by 2^-9 / sqrt(3) = 0.0011 on average."""
    generator = torch.Generator().manual_seed(0)
    query, key, value, pull = (
        (torch.randn(1, 300, heads, 64, generator=generator) * width).bfloat16().transpose(1, 2)
        for heads, width in ((6, sharpness), (2, 1.0), (2, 1.0), (6, 1.0))
    )

    def packed(query, key, value):
        return packed_attention.packed_attention(query, key, value, [Span(0, 300)], scale=0.125)

    def kernel(query, key, value):
        return scaled_dot_product_attention(
            query, key, value, is_causal=True, scale=0.125, enable_gqa=True
        ).transpose(1, 2)

    def results(attend, dtype):
        inputs = [states.to(dtype).requires_grad_() for states in (query, key, value)]
        found = attend(*inputs)
        return found.detach(), *torch.autograd.grad(found, inputs, pull.transpose(1, 2).to(dtype))

    exact = results(kernel, torch.float64)
    errors = {
        attend: [
            float((one.double() - other).norm() / other.norm())
            for one, other in zip(results(attend, torch.bfloat16), exact, strict=True)
        ]
        for attend in (packed, kernel)
    }
    for one, other in zip(errors[packed], errors[kernel], strict=True):
        assert 0.0011 < one < min(1.3 * other, 0.006)


def test_gradients_of_a_model_in_bf16_are_as_near_to_float32_packed_as_padded():
    """Errors of eight batches together; one alone may fall either way."""
    model = tiny_model(dtype=torch.bfloat16)
    exact = tiny_model(dtype=torch.bfloat16).float()
    attention.register()
    squares = {"packed": 0.0, "padded": 0.0, "exact": 0.0}

    def gradient(model, implementation, sequences):
        model.set_attn_implementation(implementation)
        batches = list(form_microbatches(sequences, 1000, model))
        assert is_packed(model) == (implementation == attention.NAME) == bool(batches[0].spans)
        logprobs = [completion_logprobs(model, batch, 1.0).logprobs_N for batch in batches]
        grads = torch.autograd.grad(torch.cat(logprobs).sum(), list(model.parameters()))
        return torch.cat([grad.float().flatten() for grad in grads])

    for seed in range(8):
        sequences = make_groups(seed)
        wanted = gradient(exact, "sdpa", sequences)
        squares["exact"] += float(wanted.square().sum())
        for name, implementation in (("packed", attention.NAME), ("padded", "sdpa")):
            error = gradient(model, implementation, sequences) - wanted
            squares[name] += float(error.square().sum())
    errors = {name: (square / squares["exact"]) ** 0.5 for name, square in squares.items()}
    assert errors["packed"] < 1.15 * errors["padded"] < 0.05


def make_groups(seed):
    """Three prompts of 20 tokens, each with two completions of 10 to 25."""
    generator = torch.Generator().manual_seed(seed)

    def ids(count):
        return tuple(torch.randint(1, VOCABULARY, (count,), generator=generator).tolist())

    prompts = [ids(20) for _ in range(3)]
    return [
        TrainingSequence(prompt_ids=prompts[number % 3], completion_ids=ids(10 + 3 * number))
        for number in range(6)
    ]
