"""Losses over the completion tokens of a micro-batch: one pure function per equation.

Shape letters: N completion tokens of the micro-batch, sequence after sequence, without padding;
B its sequences, of `lengths_B` tokens each.

Every loss is a sum over the micro-batch divided by a count over the WHOLE optimizer update
(`UpdateCounts`), so the sum of the micro-batches' losses, and its gradient, do not depend on the
split. The behavior log-probabilities, as stored at sampling time, are the ratio's denominator; the
log-ratio is clamped to +-20, as in verl, so that one broken token cannot overflow.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf
from typing import Literal

import torch

LossName = Literal["dapo", "gspo", "cispo", "sft"]
MAX_LOG_RATIO = 20.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Objective:
    """What an update minimises: a loss, its clip range, a divergence penalty, an entropy bonus.

    Example: Objective(loss="dapo", clip_low=0.2, clip_high=0.28); Objective(loss="sft")
    """

    loss: LossName
    clip_low: float = 0.0
    """Ratios are clipped below 1 - clip_low (`dapo`, `gspo`)."""
    clip_high: float = 0.0
    """Ratios are clipped above 1 + clip_high (`dapo`, `gspo`, `cispo`)."""
    importance_cap: float = inf
    """No bad token's ratio weighs more than this (`dapo`)."""
    kl_coef: float = 0.0
    """Weight of the k3 divergence from the reference policy; 0 turns it off."""
    entropy_coef: float = 0.0
    """Weight of the entropy, which is a bonus; 0 turns it off."""
    temperature: float = 1.0
    """Divides the logits: the sampling temperature in RL, 1 in SFT."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UpdateCounts:
    """The denominators: what one optimizer update trains on, all micro-batches together.

    Sequences whose own advantage is zero count; whole groups without a signal are not handed to the
    learner, so they do not dilute the mean.
    """

    num_tokens: int
    """Completion tokens."""
    num_sequences: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenBatch:
    """What a loss needs of a micro-batch; [N] tensors but for the lengths."""

    policy_logprobs_N: torch.Tensor
    """By the learner now, with a gradient."""
    behavior_logprobs_N: torch.Tensor | None
    """By the sampler, as stored; None in SFT."""
    reference_logprobs_N: torch.Tensor | None
    """By the frozen policy of the divergence penalty; None without one."""
    advantages_N: torch.Tensor
    """The sequence's advantage, repeated for each token."""
    weights_N: torch.Tensor
    """The sequence's weight, repeated for each token (`sft`)."""
    lengths_B: Sequence[int]
    entropy_N: torch.Tensor | None = None
    """Of the policy's distribution, with a gradient; needed when `entropy_coef` > 0."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LossOutput:
    """A scalar with a gradient, and per-token statistics without one."""

    loss: torch.Tensor
    ratio_N: torch.Tensor
    """exp(policy - behavior); ones where nothing was stored."""
    is_clipped_N: torch.Tensor
    """True where the clip cut the token's gradient off, or its weight (`cispo`)."""
    kl_N: torch.Tensor
    """k3 divergence from the reference; zeros without one."""


def token_ratio(policy_logprobs: torch.Tensor, behavior_logprobs: torch.Tensor) -> torch.Tensor:
    """Return exp(policy - behavior), the log clamped to +-20; any shape."""
    return (policy_logprobs - behavior_logprobs).clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO).exp()


def capped_ratio(ratio: torch.Tensor, advantages: torch.Tensor, cap: float) -> torch.Tensor:
    """Return min(ratio, cap) where the advantage is negative, else the ratio; any shape.

    Dual-clip PPO (Ye et al. 2020, arXiv 1912.09729), but a ratio that is cut keeps the gradient
    cap * d log ratio. The clip bounds the ratio of a good token alone: where the sampler gave a bad
    one far less probability than the learner does, it would drown the rest of the update.
    """
    scale = (cap / ratio.detach()).clamp(max=1.0)
    return ratio * torch.where(advantages < 0.0, scale, 1.0)


def clipped_surrogate(
    ratio: torch.Tensor, advantages: torch.Tensor, *, clip_low: float, clip_high: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return -min(r A, clip(r, 1 - low, 1 + high) A) and where the clip bites; any shape."""
    plain = ratio * advantages
    clipped = ratio.clamp(1.0 - clip_low, 1.0 + clip_high) * advantages
    return -torch.minimum(plain, clipped), (clipped < plain).detach()


def dapo_loss(
    ratio_N: torch.Tensor,
    advantages_N: torch.Tensor,
    *,
    clip_low: float,
    clip_high: float,
    num_tokens: int,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return sum_n -min(r_n A_n, clip(r_n) A_n) / num_tokens, and clipped_N.

    DAPO (arXiv 2503.14476): the mean is over all tokens of the update, so long completions weigh
    more than short ones.
    """
    loss_N, is_clipped_N = clipped_surrogate(
        ratio_N, advantages_N, clip_low=clip_low, clip_high=clip_high
    )
    return loss_N.sum() / num_tokens, is_clipped_N


def gspo_loss(
    log_ratio_N: torch.Tensor,
    advantages_N: torch.Tensor,
    lengths_B: Sequence[int],
    *,
    clip_low: float,
    clip_high: float,
    num_sequences: int,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return sum_b -min(s_b A_b, clip(s_b) A_b) / num_sequences, and clipped_N.

    GSPO (arXiv 2507.18071): s_b = exp(mean over the sequence's tokens of policy - behavior), the
    geometric mean of its ratios.
    """
    rows = torch.split(log_ratio_N, list(lengths_B))
    ratio_B = torch.stack([row.mean() for row in rows]).clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO).exp()
    advantages_B = torch.stack([row[0] for row in torch.split(advantages_N, list(lengths_B))])
    loss_B, is_clipped_B = clipped_surrogate(
        ratio_B, advantages_B, clip_low=clip_low, clip_high=clip_high
    )
    lengths = torch.tensor(lengths_B, device=loss_B.device)
    return loss_B.sum() / num_sequences, is_clipped_B.repeat_interleave(lengths)


def cispo_loss(
    ratio_N: torch.Tensor,
    policy_logprobs_N: torch.Tensor,
    advantages_N: torch.Tensor,
    *,
    clip_high: float,
    num_tokens: int,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return sum_n -sg(min(r_n, 1 + high)) A_n logprob_n / num_tokens, and clipped_N.

    CISPO (arXiv 2506.13585) with the upper clip only, as in TRL: no token loses its gradient.
    """
    weight_N = ratio_N.detach().clamp(max=1.0 + clip_high)
    loss_N = -weight_N * advantages_N * policy_logprobs_N
    return loss_N.sum() / num_tokens, ratio_N.detach() > 1.0 + clip_high


def sft_loss(
    policy_logprobs_N: torch.Tensor, weights_N: torch.Tensor, *, num_tokens: int
) -> torch.Tensor:
    """Return sum_n -w_n logprob_n / num_tokens: the token-mean negative log-likelihood, weighted.

    The weights are taken as they are, so that a batch of light examples moves the policy less.
    """
    return -(weights_N * policy_logprobs_N).sum() / num_tokens


def k3_divergence(policy_logprobs: torch.Tensor, reference_logprobs: torch.Tensor) -> torch.Tensor:
    """Return exp(d) - d - 1 with d = reference - policy, the k3 estimate of KL(policy, reference).

    Per token, never negative, any shape; d is clamped to +-20.
    """
    difference = (reference_logprobs - policy_logprobs).clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO)
    return difference.exp() - difference - 1.0


def compute_loss(objective: Objective, batch: TokenBatch, counts: UpdateCounts) -> LossOutput:
    """Return the micro-batch's part of the update's loss, penalty and entropy bonus included.

    Where no behavior log-probabilities were stored the ratio is one: the policy is its own
    behavior.
    """
    policy_N = batch.policy_logprobs_N
    behavior_N = (
        policy_N.detach() if batch.behavior_logprobs_N is None else batch.behavior_logprobs_N
    )
    ratio_N = token_ratio(policy_N, behavior_N)
    is_clipped_N = torch.zeros_like(ratio_N, dtype=torch.bool)
    low, high = objective.clip_low, objective.clip_high
    if objective.loss == "dapo":
        loss, is_clipped_N = dapo_loss(
            capped_ratio(ratio_N, batch.advantages_N, objective.importance_cap),
            batch.advantages_N,
            clip_low=low,
            clip_high=high,
            num_tokens=counts.num_tokens,
        )
    elif objective.loss == "gspo":
        loss, is_clipped_N = gspo_loss(
            policy_N - behavior_N,
            batch.advantages_N,
            batch.lengths_B,
            clip_low=low,
            clip_high=high,
            num_sequences=counts.num_sequences,
        )
    elif objective.loss == "cispo":
        loss, is_clipped_N = cispo_loss(
            ratio_N, policy_N, batch.advantages_N, clip_high=high, num_tokens=counts.num_tokens
        )
    else:
        loss = sft_loss(policy_N, batch.weights_N, num_tokens=counts.num_tokens)
    kl_N = torch.zeros_like(ratio_N)
    if batch.reference_logprobs_N is not None:
        kl_N = k3_divergence(policy_N, batch.reference_logprobs_N)
        loss = loss + objective.kl_coef * kl_N.sum() / counts.num_tokens
    if objective.entropy_coef and batch.entropy_N is not None:
        loss = loss - objective.entropy_coef * batch.entropy_N.sum() / counts.num_tokens
    return LossOutput(
        loss=loss, ratio_N=ratio_N.detach(), is_clipped_N=is_clipped_N, kl_N=kl_N.detach()
    )
