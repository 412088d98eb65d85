"""A policy's log-probabilities and entropies at completion tokens.

They are computed from hidden states: the logits of a whole batch never exist. Shape letters: N
positions, V vocabulary, D model width, C positions of one chunk, W words of one.

The matrix product with the output embedding runs in the model's own precision, as in the sampler,
so that both see the same logits; everything after it is float32. The forward pass takes a chunk of
positions at a time, with one [C, V] float32 buffer for shifted logits and one for exponentials. The
backward pass recomputes logits for a chunk of words at a time, [N, W]: each part of the weight's
gradient is then one product, without a float32 sum of the weight's size.
"""

from collections.abc import Callable, Sequence
from itertools import pairwise
from math import isfinite
from typing import NamedTuple, Protocol

import torch
from transformers import PreTrainedModel

from rloop.engines.base import TrainingSequence
from rloop.engines.native.batches import (
    MicroBatch,
    Row,
    check_sequences,
    collate,
    form_microbatches,
    is_packed,
    output_embedding,
    pack,
)
from rloop.errors import EngineError
from rloop.policies.finite import check_logits, overflowing
from rloop.policies.vocabulary import output_bias

CPU_CHUNK_BYTES = 24 * 2**20
"""128 rows at a vocabulary of 49k. Measured with 1024 rows on two cores: 64 MiB takes 15 % longer,
and 0.2 GB more; 16 MiB no less."""
GPU_CHUNK_BYTES = 512 * 2**20
"""Enough rows (about 900 at a vocabulary of 150k) so that the product is not limited by memory
bandwidth."""


class TokenLogprobs(NamedTuple):
    """Float32 results for N positions."""

    logprobs_N: torch.Tensor
    """Natural log-probability of each target at the given temperature, with a gradient."""
    entropy_N: torch.Tensor
    """Entropy of the whole distribution (nats), with a gradient only if requested."""


def linear_logprobs(
    hidden_ND: torch.Tensor,
    weight_VD: torch.Tensor,
    bias_V: torch.Tensor | None,
    targets_N: torch.Tensor,
    *,
    temperature: float,
    is_entropy_trained: bool = False,
    chunk_bytes: int | None = None,
) -> TokenLogprobs:
    """Return log softmax((hidden W^T + bias) / temperature) at the targets, and its entropy.

    The entropy's gradient costs a second buffer of logits. `chunk_bytes` limits one float32 buffer
    of logits; None is the device's default. A temperature of 0 (greedy sampling) has no
    distribution and counts as 1.
    """
    if chunk_bytes is None:
        chunk_bytes = GPU_CHUNK_BYTES if hidden_ND.is_cuda else CPU_CHUNK_BYTES
    scale = 1.0 / temperature if temperature > 0.0 else 1.0
    apply: Callable[..., tuple[torch.Tensor, torch.Tensor]] = _LinearLogprobs.apply
    plan = _Plan(scale, chunk_bytes // 4, is_entropy_trained)
    outputs = apply(hidden_ND, weight_VD, bias_V, targets_N, plan)
    return TokenLogprobs(*outputs)


def _scaled_logits(
    hidden_CD: torch.Tensor, weight_VD: torch.Tensor, bias_V: torch.Tensor | None, scale: float
) -> torch.Tensor:
    """Return the chunk's logits times scale: a float32 buffer that the caller may overwrite."""
    logits_CV = torch.nn.functional.linear(hidden_CD, weight_VD, bias_V).float()
    return logits_CV if scale == 1.0 else logits_CV.mul_(scale)


class _Plan(NamedTuple):
    scale: float
    num_logits: int
    is_entropy_trained: bool


class _Context(Protocol):
    """What autograd carries from the forward to the backward pass."""

    plan: _Plan
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
        plan: _Plan,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return (logprobs_N, entropy_N), one exponential of each logit."""
        num_rows = max(1, plan.num_logits // len(weight_VD))
        logprobs_N = hidden_ND.new_empty(len(hidden_ND), dtype=torch.float32)
        entropy_N = torch.empty_like(logprobs_N)
        normalizer_N = torch.empty_like(logprobs_N)
        for start in range(0, len(hidden_ND), num_rows):
            rows = slice(start, start + num_rows)
            shifted_CV = _scaled_logits(hidden_ND[rows], weight_VD, bias_V, plan.scale)
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
        ctx.save_for_backward(hidden_ND, weight_VD, bias_V, targets_N, normalizer_N, entropy_N)
        ctx.plan = plan
        if not plan.is_entropy_trained:
            ctx.mark_non_differentiable(entropy_N)
        return logprobs_N, entropy_N

    @staticmethod
    def backward(
        ctx: _Context, grad_N: torch.Tensor, grad_entropy_N: torch.Tensor
    ) -> tuple[torch.Tensor | None, ...]:
        """Return the gradients; that of hidden states is summed over chunks in float32.

        With q = softmax - onehot(target), d hidden = -g scale (q W) and d weight = -(q^T (g scale
        hidden)): the row factors g act on [N, D], never on logits. Where the entropy H is trained
        too, with row factors h, p = softmax and factors that act on logits after all,
        q = g (p - onehot) + h p (log p + H), d hidden = -scale (q W), d weight = -(q^T (scale
        hidden)).
        """
        hidden_ND, weight_VD, bias_V, targets_N, normalizer_N, entropy_N = ctx.saved_tensors
        on_logits_N = grad_N if ctx.plan.is_entropy_trained else torch.ones_like(grad_N)
        on_rows_N = torch.ones_like(grad_N) if ctx.plan.is_entropy_trained else grad_N
        factor_N1 = (on_rows_N * -ctx.plan.scale).unsqueeze(-1)
        scaled_ND = hidden_ND.float().mul(factor_N1).to(weight_VD.dtype)
        grad_hidden_ND = torch.zeros_like(hidden_ND, dtype=torch.float32)
        grad_weight_VD = torch.empty_like(weight_VD) if ctx.needs_input_grad[1] else None
        grad_bias_V = torch.empty_like(bias_V) if ctx.needs_input_grad[2] else None
        num_words = max(1, ctx.plan.num_logits // max(1, len(hidden_ND)))
        for start in range(0, len(weight_VD), num_words):
            words = slice(start, start + num_words)
            weight_WD, bias_W = weight_VD[words], None if bias_V is None else bias_V[words]
            q_NW = _scaled_logits(hidden_ND, weight_WD, bias_W, ctx.plan.scale)
            q_NW.sub_(normalizer_N.unsqueeze(-1))
            if ctx.plan.is_entropy_trained:
                factor_NW = (q_NW + entropy_N.unsqueeze(-1)).mul_(grad_entropy_N.unsqueeze(-1))
                q_NW.exp_().mul_(factor_NW.add_(grad_N.unsqueeze(-1)))
            else:
                q_NW.exp_()
            places_N = targets_N - start
            is_here_N = (places_N >= 0) & (places_N < len(weight_WD))
            places_N = places_N.clamp_(0, len(weight_WD) - 1)
            q_NW.scatter_add_(-1, places_N.unsqueeze(-1), -(is_here_N * on_logits_N).unsqueeze(-1))
            if grad_bias_V is not None:
                grad_bias_V[words] = q_NW.t() @ factor_N1.squeeze(-1)
            q_NW = q_NW.to(weight_VD.dtype)
            grad_hidden_ND += q_NW @ weight_WD
            if grad_weight_VD is not None:
                grad_weight_VD[words] = q_NW.t() @ scaled_ND
        grad_hidden_ND = grad_hidden_ND.mul_(factor_N1).to(hidden_ND.dtype)
        return grad_hidden_ND, grad_weight_VD, grad_bias_V, None, None


def completion_logprobs(
    model: PreTrainedModel,
    batch: MicroBatch,
    temperature: float,
    *,
    is_entropy_trained: bool = False,
) -> TokenLogprobs:
    """Return log-probability and entropy of each completion token, [N], from one forward pass."""
    head = output_embedding(model)
    return linear_logprobs(
        _predicting_states(model, batch),
        head.weight,
        output_bias(model),
        batch.targets_N,
        temperature=temperature,
        is_entropy_trained=is_entropy_trained,
    )


def _predicting_states(model: PreTrainedModel, batch: MicroBatch) -> torch.Tensor:
    """Return the states from which the output embedding predicts each completion token, [N, D]."""
    output = model.base_model(
        input_ids=batch.input_ids_RT,
        position_ids=batch.position_ids_RT,
        attention_mask=batch.mask_R1TT,
        use_cache=False,
        **({"spans": batch.spans} if batch.spans else {}),
    )
    hidden_RTD: torch.Tensor = output.last_hidden_state
    return hidden_RTD.flatten(0, 1)[batch.predicting_N]


@torch.no_grad()
def sequence_logprobs(
    model: PreTrainedModel,
    sequences: Sequence[TrainingSequence],
    *,
    temperature: float,
    microbatch_tokens: int,
) -> list[tuple[float, ...]]:
    """Return the log-probabilities of each sequence's completion tokens, in order; no gradient.

    For a reference policy, or to check stored log-probabilities.
    """
    check_sequences(sequences)
    results: list[tuple[float, ...]] = [()] * len(sequences)
    for batch in form_microbatches(sequences, microbatch_tokens, model):
        numbers = completion_logprobs(model, batch, temperature).logprobs_N.tolist()
        ends = [0]
        for length in batch.lengths_B:
            ends.append(ends[-1] + length)
        for index, (start, end) in zip(batch.indices_B, pairwise(ends), strict=True):
            results[index] = tuple(numbers[start:end])
    return results


@torch.no_grad()
def check_architecture(model: PreTrainedModel) -> None:
    """Raise unless the model's logits are its output embedding applied to its last hidden states,
    and sequences that share a prompt in one row get the states that they have alone;
    NonFinitePolicy for logits that are not finite.

    It runs one probe, in which the output embedding's result is multiplied by 100, so that a soft
    cap or a scale after it shows at any size of the weights.
    """
    head = output_embedding(model)
    check_logits(model, "The policy")
    kind = model.config.model_type
    ids = [place * 7919 % head.weight.shape[0] for place in range(16)]
    pair = [TrainingSequence(prompt_ids=ids[:8], completion_ids=ids[i : i + 4]) for i in (8, 12)]
    alone = collate([Row((0,), 11), Row((1,), 11)], pair, model)
    states_ND = _predicting_states(model, alone)
    handle = head.register_forward_hook(lambda _module, _inputs, output: output * 100.0)
    try:
        logits = model(input_ids=alone.input_ids_RT, use_cache=False).logits
        difference = _distance(logits.flatten(0, 1)[alone.predicting_N], head(states_ND))
    finally:
        handle.remove()
    if not isfinite(difference):
        raise overflowing("The policy", "states")
    if not difference < 1e-2:
        raise EngineError(
            f"This {kind} model changes its logits after the output embedding (by {difference:.0%} "
            "on a probe, as soft caps and logit scales do), which the native learner does not. "
            "Choose a Llama-, Qwen- or Mistral-like model."
        )
    rows = [Row((0, 1), 14)]
    together = pack(rows, pair, model) if is_packed(model) else collate(rows, pair, model)
    difference = _distance(_predicting_states(model, together), states_ND)
    if not difference < 1e-1:
        raise EngineError(
            f"This {kind} model does not follow the attention mask and positions that it is given "
            f"(its states differ by {difference:.0%} on a probe), which the native learner needs. "
            "Choose a Llama-, Qwen- or Mistral-like model."
        )


def _distance(found: torch.Tensor, expected: torch.Tensor) -> float:
    """Return |found - expected| / |expected|, in float64 because squares of logits can overflow."""
    found, expected = found.cpu().double(), expected.cpu().double()
    return float((found - expected).norm() / expected.norm())
