"""Losses over the completion tokens of a micro-batch: one pure function per equation.

Shape letters: N completion tokens of the micro-batch, sequence after sequence, without padding;
B its sequences, of `lengths_B` tokens each.

Every loss is a sum over the micro-batch divided by a count over the WHOLE optimizer update
(`UpdateCounts`), so the sum of the micro-batches' losses, and its gradient, do not depend on the
split. The behavior log-probabilities, as stored at sampling time, are the ratio's denominator. The
log-ratio is clamped to +-20, as in verl, so that one broken token cannot overflow.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch

from rloop.algo.objective import Objective

MAX_LOG_RATIO = 20.0

Loss = tuple[torch.Tensor, torch.Tensor]
"""A scalar with a gradient, and [N] whether the clip cut a token's gradient or weight."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UpdateCounts:
    """The denominators: counts over all micro-batches of one optimizer update.

    Sequences with a zero advantage count. Groups without a signal never reach the learner, so they
    do not dilute the mean.
    """

    num_tokens: int
    """Completion tokens."""
    num_sequences: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenBatch:
    """What a loss needs from a micro-batch; [N] tensors, except for the lengths."""

    policy_logprobs_N: torch.Tensor
    """From the learner now, with a gradient."""
    behavior_logprobs_N: torch.Tensor | None
    """From the sampler, as stored; None in SFT."""
    reference_logprobs_N: torch.Tensor | None
    """From the frozen reference policy of the KL penalty; None without one."""
    advantages_N: torch.Tensor
    """The sequence's advantage, repeated for each token."""
    weights_N: torch.Tensor
    """The sequence's weight, repeated for each token (`sft`)."""
    lengths_B: Sequence[int]
    entropy_N: torch.Tensor | None = None
    """Of the policy's distribution, with a gradient; needed if `entropy_coef` > 0."""

    @property
    def log_ratio_N(self) -> torch.Tensor:
        """policy - behavior. If nothing was stored, the policy is its own behavior policy: zeros
        with the policy's gradient.
        """
        stored_N = self.behavior_logprobs_N
        policy_N = self.policy_logprobs_N
        return policy_N - (policy_N.detach() if stored_N is None else stored_N)

    @property
    def ratio_N(self) -> torch.Tensor:
        """exp(policy - behavior), the log clamped to +-20."""
        return self.log_ratio_N.clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO).exp()


@dataclass(frozen=True, slots=True, kw_only=True)
class LossOutput:
    """A scalar with a gradient, and per-token statistics without one."""

    loss: torch.Tensor
    ratio_N: torch.Tensor
    """exp(policy - behavior); ones if nothing was stored."""
    is_clipped_N: torch.Tensor
    """True where the clip cut the token's gradient, or its weight (`cispo`)."""
    kl_N: torch.Tensor
    """k3 divergence from the reference; zeros without one."""


def capped_ratio(ratio: torch.Tensor, advantages: torch.Tensor, cap: float) -> torch.Tensor:
    """Return min(ratio, cap) for negative advantages, else the ratio; any shape.

    Dual-clip PPO (Ye et al. 2020, arXiv 1912.09729), except that a capped ratio keeps the gradient
    cap * d log ratio. PPO's clip limits the ratio of good tokens only: a bad token with a far
    smaller probability in the sampler than in the learner would dominate the update.
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


def dapo_loss(batch: TokenBatch, objective: Objective, counts: UpdateCounts) -> Loss:
    """Return sum_n -min(r_n A_n, clip(r_n) A_n) / num_tokens, and clipped_N.

    DAPO (arXiv 2503.14476): the mean is over all tokens of the update, so long completions weigh
    more than short ones. r_n is capped for negative advantages (`capped_ratio`).
    """
    loss_N, is_clipped_N = clipped_surrogate(
        capped_ratio(batch.ratio_N, batch.advantages_N, objective.importance_cap),
        batch.advantages_N,
        clip_low=objective.clip_low,
        clip_high=objective.clip_high,
    )
    return loss_N.sum() / counts.num_tokens, is_clipped_N


def gspo_loss(batch: TokenBatch, objective: Objective, counts: UpdateCounts) -> Loss:
    """Return sum_b -min(s_b A_b, clip(s_b) A_b) / num_sequences, and clipped_N.

    GSPO (arXiv 2507.18071): s_b = exp(mean over the sequence's tokens of policy - behavior), the
    geometric mean of its ratios.
    """
    lengths_B = list(batch.lengths_B)
    rows = torch.split(batch.log_ratio_N, lengths_B)
    ratio_B = torch.stack([row.mean() for row in rows]).clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO).exp()
    advantages_B = torch.stack([row[0] for row in torch.split(batch.advantages_N, lengths_B)])
    loss_B, is_clipped_B = clipped_surrogate(
        ratio_B, advantages_B, clip_low=objective.clip_low, clip_high=objective.clip_high
    )
    lengths = torch.tensor(lengths_B, device=loss_B.device)
    return loss_B.sum() / counts.num_sequences, is_clipped_B.repeat_interleave(lengths)


def cispo_loss(batch: TokenBatch, objective: Objective, counts: UpdateCounts) -> Loss:
    """Return sum_n -sg(min(r_n, 1 + high)) A_n logprob_n / num_tokens, and clipped_N.

    CISPO (arXiv 2506.13585) with the upper clip only, as in TRL: no token loses its gradient.
    """
    ratio_N = batch.ratio_N.detach()
    weight_N = ratio_N.clamp(max=1.0 + objective.clip_high)
    loss_N = -weight_N * batch.advantages_N * batch.policy_logprobs_N
    return loss_N.sum() / counts.num_tokens, ratio_N > 1.0 + objective.clip_high


def sft_loss(batch: TokenBatch, objective: Objective, counts: UpdateCounts) -> Loss:
    """Return sum_n -w_n logprob_n / num_tokens: the token-mean negative log-likelihood, weighted.

    The weights are not normalised, so a batch of light examples moves the policy less.
    """
    del objective
    policy_N = batch.policy_logprobs_N
    loss = -(batch.weights_N * policy_N).sum() / counts.num_tokens
    return loss, torch.zeros_like(policy_N, dtype=torch.bool)


LOSSES: Mapping[str, Callable[[TokenBatch, Objective, UpdateCounts], Loss]] = {
    "dapo": dapo_loss,
    "gspo": gspo_loss,
    "cispo": cispo_loss,
    "sft": sft_loss,
}
"""Each loss by its name in `explore.loss`; `sft` is for fine-tuning."""


def k3_divergence(policy_logprobs: torch.Tensor, reference_logprobs: torch.Tensor) -> torch.Tensor:
    """Return exp(d) - d - 1 with d = reference - policy, the k3 estimate of KL(policy, reference).

    Per token, never negative, any shape; d is clamped to +-20.
    """
    difference = (reference_logprobs - policy_logprobs).clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO)
    return difference.exp() - difference - 1.0


def compute_loss(objective: Objective, batch: TokenBatch, counts: UpdateCounts) -> LossOutput:
    """Return the micro-batch's part of the update's loss, with KL penalty and entropy bonus."""
    loss, is_clipped_N = LOSSES[objective.loss](batch, objective, counts)
    kl_N = torch.zeros_like(batch.policy_logprobs_N)
    if batch.reference_logprobs_N is not None:
        kl_N = k3_divergence(batch.policy_logprobs_N, batch.reference_logprobs_N)
        loss = loss + objective.kl_coef * kl_N.sum() / counts.num_tokens
    if objective.entropy_coef and batch.entropy_N is not None:
        loss = loss - objective.entropy_coef * batch.entropy_N.sum() / counts.num_tokens
    return LossOutput(
        loss=loss, ratio_N=batch.ratio_N.detach(), is_clipped_N=is_clipped_N, kl_N=kl_N.detach()
    )
