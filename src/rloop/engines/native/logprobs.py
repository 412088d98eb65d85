"""Log-probabilities of tokens straight from hidden states: the logits of a whole batch never exist.

Shape letters: N positions, V vocabulary, D model width, C positions of one chunk.

The matrix product with the output embedding runs in the model's own precision, as in the sampler,
so that both see the same logits; all that follows is float32. A chunk has one [C, V] float32 buffer
for its shifted logits and one for their exponentials; the backward pass computes its chunks again.
"""

from collections.abc import Callable
from typing import NamedTuple, Protocol

import torch

CPU_CHUNK_BYTES = 64 * 2**20
"""About 340 rows at a vocabulary of 49k; smaller chunks read the weight too often."""
GPU_CHUNK_BYTES = 512 * 2**20
"""Enough rows (about 900 at a vocabulary of 150k) for the product not to wait for memory."""


class TokenLogprobs(NamedTuple):
    """Float32 results for N positions."""

    logprobs_N: torch.Tensor
    """Natural log-probability of each target at the given temperature, with a gradient."""
    entropy_N: torch.Tensor
    """Entropy of the whole distribution (nats), without a gradient."""


def linear_logprobs(
    hidden_ND: torch.Tensor,
    weight_VD: torch.Tensor,
    bias_V: torch.Tensor | None,
    targets_N: torch.Tensor,
    *,
    temperature: float,
    chunk_bytes: int | None = None,
) -> TokenLogprobs:
    """Return log softmax((hidden W^T + bias) / temperature) at the targets, and its entropy.

    `chunk_bytes` bounds one [C, V] float32 buffer; None takes the device's default. A temperature
    of 0 (greedy sampling) has no distribution of its own and counts as 1.
    """
    if chunk_bytes is None:
        chunk_bytes = GPU_CHUNK_BYTES if hidden_ND.is_cuda else CPU_CHUNK_BYTES
    num_rows = max(1, chunk_bytes // (4 * weight_VD.shape[0]))
    scale = 1.0 / temperature if temperature > 0.0 else 1.0
    apply: Callable[..., tuple[torch.Tensor, torch.Tensor]] = _LinearLogprobs.apply
    outputs = apply(hidden_ND, weight_VD, bias_V, targets_N, scale, num_rows)
    return TokenLogprobs(*outputs)


def _scaled_logits(
    hidden_CD: torch.Tensor, weight_VD: torch.Tensor, bias_V: torch.Tensor | None, scale: float
) -> torch.Tensor:
    """Return the chunk's logits times scale: a float32 buffer that the caller may overwrite."""
    logits_CV = torch.nn.functional.linear(hidden_CD, weight_VD, bias_V).float()
    return logits_CV if scale == 1.0 else logits_CV.mul_(scale)


class _Context(Protocol):
    """What autograd carries from the forward to the backward pass."""

    scale: float
    num_rows: int
    needs_input_grad: tuple[bool, ...]
    saved_tensors: tuple[torch.Tensor, ...]

    def save_for_backward(self, *tensors: torch.Tensor | None) -> None: ...

    def mark_non_differentiable(self, *tensors: torch.Tensor) -> None: ...


class _LinearLogprobs(torch.autograd.Function):
    """The chunked function and its gradient with respect to hidden states, weight and bias."""

    @staticmethod
    def forward(
        ctx: _Context,
        hidden_ND: torch.Tensor,
        weight_VD: torch.Tensor,
        bias_V: torch.Tensor | None,
        targets_N: torch.Tensor,
        scale: float,
        num_rows: int,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return (logprobs_N, entropy_N), one exponential of each logit."""
        logprobs_N = hidden_ND.new_empty(len(hidden_ND), dtype=torch.float32)
        entropy_N = torch.empty_like(logprobs_N)
        normalizer_N = torch.empty_like(logprobs_N)
        for start in range(0, len(hidden_ND), num_rows):
            rows = slice(start, start + num_rows)
            shifted_CV = _scaled_logits(hidden_ND[rows], weight_VD, bias_V, scale)
            largest_C1 = shifted_CV.amax(-1, keepdim=True)
            shifted_CV.sub_(largest_C1)
            exponential_CV = shifted_CV.exp()
            total_C = exponential_CV.sum(-1)
            log_total_C = total_C.log()
            targets_C1 = targets_N[rows].unsqueeze(-1)
            logprobs_N[rows] = shifted_CV.gather(-1, targets_C1).squeeze(-1) - log_total_C
            weighted_C = shifted_CV.mul_(exponential_CV).sum(-1)
            entropy_N[rows] = log_total_C - weighted_C / total_C
            normalizer_N[rows] = largest_C1.squeeze(-1) + log_total_C
        ctx.save_for_backward(hidden_ND, weight_VD, bias_V, targets_N, normalizer_N)
        ctx.scale, ctx.num_rows = scale, num_rows
        ctx.mark_non_differentiable(entropy_N)
        return logprobs_N, entropy_N

    @staticmethod
    def backward(
        ctx: _Context, grad_N: torch.Tensor, _grad_entropy_N: torch.Tensor
    ) -> tuple[torch.Tensor | None, ...]:
        """Return the gradients; the weight's is summed over chunks in float32 and cast at the end.

        With q = softmax - onehot(target), d hidden = -g scale (q W) and d weight = -(q^T (g scale
        hidden)): the row factors g act on [C, D], never on [C, V].
        """
        hidden_ND, weight_VD, bias_V, targets_N, normalizer_N = ctx.saved_tensors
        wants_weight, wants_bias = ctx.needs_input_grad[1], ctx.needs_input_grad[2]
        grad_hidden_ND = torch.empty_like(hidden_ND)
        grad_weight_VD = torch.zeros_like(weight_VD, dtype=torch.float32) if wants_weight else None
        grad_bias_V = torch.zeros_like(bias_V, dtype=torch.float32) if wants_bias else None
        for start in range(0, len(hidden_ND), ctx.num_rows):
            rows = slice(start, start + ctx.num_rows)
            q_CV = _scaled_logits(hidden_ND[rows], weight_VD, bias_V, ctx.scale)
            q_CV.sub_(normalizer_N[rows].unsqueeze(-1)).exp_()
            ones_C1 = q_CV.new_ones(q_CV.shape[0], 1)
            q_CV.scatter_add_(-1, targets_N[rows].unsqueeze(-1), -ones_C1)
            factor_C1 = (grad_N[rows] * -ctx.scale).unsqueeze(-1)
            if grad_bias_V is not None:
                grad_bias_V.addmv_(q_CV.t(), factor_C1.squeeze(-1))
            q_CV = q_CV.to(weight_VD.dtype)
            grad_hidden_ND[rows] = (q_CV @ weight_VD).float().mul_(factor_C1)
            if grad_weight_VD is not None:
                scaled_CD = hidden_ND[rows].float().mul(factor_C1).to(weight_VD.dtype)
                _add_product(grad_weight_VD, q_CV.t(), scaled_CD)
        return (
            grad_hidden_ND,
            None if grad_weight_VD is None else grad_weight_VD.to(weight_VD.dtype),
            None if grad_bias_V is None else grad_bias_V.to(weight_VD.dtype),
            None,
            None,
            None,
        )


def _add_product(total: torch.Tensor, left: torch.Tensor, right: torch.Tensor) -> None:
    """Add left @ right to the float32 total, in place where the precisions agree."""
    if left.dtype == total.dtype:
        total.addmm_(left, right)
    else:
        total.add_(left @ right)
