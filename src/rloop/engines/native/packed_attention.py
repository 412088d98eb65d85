"""Attention over sequences that stand one after the other in one row, on a CPU: nothing is padded.

Shape letters: N tokens of the row, H query heads, G key-value heads, M query heads that share one,
K head width, Q queries of one block, S the keys that they see.

PyTorch's attention kernel for CPUs pads, reads whole masks, and multiplies bfloat16 at a sixth of
the machine's rate. Here a block of queries is a few matrix products: scores and their gradient in
float32, as in the kernel, the rest in the model's precision. The backward pass computes the
scores again.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple, Protocol

import torch

BLOCK_QUERIES = 64
"""Few enough that causal attention computes little of the future, many enough for the products."""


class Span(NamedTuple):
    """Tokens that see their own past, and all of a prefix before them.

    Example: a prompt of 4 tokens and two completions of 3 and 2 behind it are Span(0, 4),
    Span(4, 7, 0, 4) and Span(7, 9, 0, 4).
    """

    start: int
    end: int
    prefix_start: int = 0
    prefix_end: int = 0


class _Block(NamedTuple):
    """Some queries of a span, and all keys that they see: the last of these is the last query's."""

    queries: slice
    prefix: slice
    past: slice


def packed_attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    spans: Sequence[Span],
    *,
    scale: float,
) -> torch.Tensor:
    """Attend within spans; query [1, H, N, K], key and value [1, G, N, K] -> [1, N, H, K].

    Tokens in no span, which are pads, attend to nothing and get zeros.
    """
    apply: Callable[..., torch.Tensor] = _PackedAttention.apply
    return apply(query[0], key[0], value[0], tuple(spans), scale).transpose(0, 1).unsqueeze(0)


class _Context(Protocol):
    """What autograd carries from the forward to the backward pass."""

    spans: tuple[Span, ...]
    scale: float
    saved_tensors: tuple[torch.Tensor, ...]

    def save_for_backward(self, *tensors: torch.Tensor) -> None: ...


class _PackedAttention(torch.autograd.Function):
    """Block after block, and the gradient with respect to queries, keys and values."""

    @staticmethod
    def forward(
        ctx: _Context,
        query_HNK: torch.Tensor,
        key_GNK: torch.Tensor,
        value_GNK: torch.Tensor,
        spans: tuple[Span, ...],
        scale: float,
    ) -> torch.Tensor:
        """Return the mixed values [H, N, K], laid out token by token as the next layer wants."""
        ctx.spans, ctx.scale = spans, scale
        num_heads, num_tokens, _ = query_HNK.shape
        mixed_HNK = query_HNK.new_zeros(num_tokens, num_heads, value_GNK.shape[-1]).transpose(0, 1)
        for block in _blocks(spans):
            weights = _weights(query_HNK, key_GNK, block, scale)
            values = _seen(value_GNK, block)
            mixed = torch.bmm(weights.to(values.dtype), values)
            mixed_HNK[:, block.queries] = mixed.view(num_heads, -1, mixed.shape[-1])
        ctx.save_for_backward(query_HNK, key_GNK, value_GNK, mixed_HNK)
        return mixed_HNK

    @staticmethod
    def backward(ctx: _Context, grad_HNK: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        """Return the gradients; those of keys and values are summed over blocks in float32.

        With P = softmax(S): dV = P^T dO, dS = P (dO V^T - rowsum(dO O)), dQ = dS K, dK = dS^T Q.
        """
        query_HNK, key_GNK, value_GNK, mixed_HNK = ctx.saved_tensors
        num_groups, precision = len(key_GNK), query_HNK.dtype
        grad_query_HNK = torch.zeros_like(query_HNK)
        grad_key_GNK = torch.zeros_like(key_GNK, dtype=torch.float32)
        grad_value_GNK = torch.zeros_like(value_GNK, dtype=torch.float32)
        for block in _blocks(ctx.spans):
            weights = _weights(query_HNK, key_GNK, block, ctx.scale)
            grad = _asked(grad_HNK, block, num_groups)
            mixed = _asked(mixed_HNK, block, num_groups)
            _add_seen(grad_value_GNK, block, torch.bmm(weights.to(precision).mT, grad))
            values, grad_float = _seen(value_GNK, block).float(), grad.float()
            drift = (grad_float * mixed).sum(-1, keepdim=True)
            grad_scores = torch.bmm(grad_float, values.mT).sub_(drift).mul_(weights)
            grad_scores = grad_scores.mul_(ctx.scale).to(precision)
            queries, keys = _asked(query_HNK, block, num_groups), _seen(key_GNK, block)
            grad_query = torch.bmm(grad_scores, keys)
            grad_query_HNK[:, block.queries] = grad_query.view(len(query_HNK), -1, keys.shape[-1])
            _add_seen(grad_key_GNK, block, torch.bmm(grad_scores.mT, queries))
        return grad_query_HNK, grad_key_GNK.to(precision), grad_value_GNK.to(precision), None, None


def _blocks(spans: Sequence[Span]) -> Iterator[_Block]:
    for span in spans:
        prefix = slice(span.prefix_start, span.prefix_end)
        for start in range(span.start, span.end, BLOCK_QUERIES):
            end = min(start + BLOCK_QUERIES, span.end)
            yield _Block(slice(start, end), prefix, slice(span.start, end))


def _asked(states_HNK: torch.Tensor, block: _Block, num_groups: int) -> torch.Tensor:
    """Return the block's queries, [G, M * Q, K]: those of heads that share keys together."""
    return states_HNK[:, block.queries].reshape(num_groups, -1, states_HNK.shape[-1])


def _seen(states_GNK: torch.Tensor, block: _Block) -> torch.Tensor:
    """Return what the block's queries see, [G, S, K]: the prefix, then their span's past."""
    past = states_GNK[:, block.past]
    if block.prefix.stop == block.prefix.start:
        return past
    return torch.cat((states_GNK[:, block.prefix], past), dim=1)


def _add_seen(total_GNK: torch.Tensor, block: _Block, part: torch.Tensor) -> None:
    """Add [G, S, K] where `_seen` took it from."""
    num_prefix = block.prefix.stop - block.prefix.start
    total_GNK[:, block.prefix] += part[:, :num_prefix]
    total_GNK[:, block.past] += part[:, num_prefix:]


def _weights(
    query_HNK: torch.Tensor, key_GNK: torch.Tensor, block: _Block, scale: float
) -> torch.Tensor:
    """Return softmax(scale Q K^T) over the keys that each query sees, float32 [G, M * Q, S]."""
    queries = _asked(query_HNK, block, len(key_GNK)).float() * scale
    scores = torch.bmm(queries, _seen(key_GNK, block).float().mT)
    num_queries = block.queries.stop - block.queries.start
    future = torch.full((num_queries, num_queries), float("-inf")).triu_(1)
    scores.view(len(key_GNK), -1, num_queries, scores.shape[-1])[..., -num_queries:] += future
    return torch.softmax(scores, -1)
