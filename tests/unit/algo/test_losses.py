"""Losses with numbers worked by hand; the peers' numbers are in the parity tests."""

from math import e, exp, log

import pytest
import torch

from rloop.algo.losses import (
    LOSSES,
    TokenBatch,
    UpdateCounts,
    capped_ratio,
    cispo_loss,
    compute_loss,
    dapo_loss,
    gspo_loss,
    k3_divergence,
    sft_loss,
)
from rloop.algo.objective import Objective


def make_batch(
    policy_N: torch.Tensor,
    behavior_N: torch.Tensor | None,
    advantages_N: list[float],
    lengths_B: list[int] | None = None,
    weights_N: list[float] | None = None,
) -> TokenBatch:
    """Return a micro-batch without a reference; sequences of one token unless told."""
    count = len(policy_N)
    return TokenBatch(
        policy_logprobs_N=policy_N,
        behavior_logprobs_N=behavior_N,
        reference_logprobs_N=None,
        advantages_N=torch.tensor(advantages_N),
        weights_N=torch.tensor(weights_N or [1.0] * count),
        lengths_B=lengths_B or [1] * count,
    )


def with_ratios(*ratios: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Return log-probabilities of policy and behavior with these ratios."""
    policy_N = torch.tensor([log(ratio) - 1.0 for ratio in ratios], requires_grad=True)
    return policy_N, torch.full((len(ratios),), -1.0)


def test_dapo_takes_the_smaller_of_plain_and_clipped_over_all_tokens():
    policy_N, behavior_N = with_ratios(1.5, 0.5, 1.5, 0.5, 1.0)
    batch = make_batch(policy_N, behavior_N, [2.0, 2.0, -2.0, -2.0, 1.0])
    objective = Objective(loss="dapo", clip_low=0.2, clip_high=0.3)
    counts = UpdateCounts(num_tokens=10, num_sequences=5)
    loss, is_clipped_N = dapo_loss(batch, objective, counts)
    # min(3, 2.6) + min(1, 1.6) + min(-3, -2.6) + min(-1, -1.6) + 1 = 2.6 + 1 - 3 - 1.6 + 1 = 0
    assert loss.item() == pytest.approx(0.0, abs=1e-6)
    assert is_clipped_N.tolist() == [True, False, False, True, False]
    (grad_N,) = torch.autograd.grad(loss, [policy_N])
    # -advantage * ratio / 10 where not clipped: the ratio's derivative is itself
    assert grad_N.tolist() == pytest.approx([0.0, -0.1, 0.3, 0.0, -0.1])


def test_a_token_that_the_sampler_thought_far_less_likely_weighs_no_more_than_the_cap():
    # One bad token of probability 0.01 at the sampler and 0.5 at the learner, and a good one.
    policy_N = torch.tensor([log(0.5), log(0.5)], requires_grad=True)
    batch = make_batch(policy_N, torch.tensor([log(0.01), log(0.5)]), [-1.0, 1.0])
    counts = UpdateCounts(num_tokens=2, num_sequences=2)
    grads = {}
    for cap in (float("inf"), 2.0):
        objective = Objective(loss="dapo", clip_low=0.2, clip_high=0.28, importance_cap=cap)
        output = compute_loss(objective, batch, counts)
        # The ratio is reported as it is, 0.5 / 0.01.
        assert output.ratio_N[0].item() == pytest.approx(50.0)
        (grads[cap],) = torch.autograd.grad(output.loss, [policy_N])
    # -A min(ratio, cap) / 2 tokens: 50 times the good token's without a cap, twice with it.
    assert grads[float("inf")].tolist() == pytest.approx([25.0, -0.5])
    assert grads[2.0].tolist() == pytest.approx([1.0, -0.5])


def test_the_cap_bounds_the_ratios_of_bad_tokens_alone():
    ratio = torch.tensor([0.5, 2.0, 3.0, 3.0])
    capped = capped_ratio(ratio, torch.tensor([-1.0, -1.0, -1.0, 1.0]), 2.0)
    assert capped.tolist() == pytest.approx([0.5, 2.0, 2.0, 3.0])


def test_a_cap_below_the_upper_clip_leaves_the_clip_in_force():
    # Two good tokens at ratios 1.1 and 1.5, a bad one at 1.5; clip at 1.28, cap at 1.
    policy_N, behavior_N = with_ratios(1.1, 1.5, 1.5)
    batch = make_batch(policy_N, behavior_N, [1.0, 1.0, -1.0])
    objective = Objective(loss="dapo", clip_low=0.2, clip_high=0.28, importance_cap=1.0)
    output = compute_loss(objective, batch, UpdateCounts(num_tokens=1, num_sequences=3))
    # -(1.1 + 1.28 - 1.0); the good token beyond the clip has no gradient, the bad one that of 1.0
    assert output.loss.item() == pytest.approx(-1.38)
    assert output.is_clipped_N.tolist() == [False, True, False]
    (grad_N,) = torch.autograd.grad(output.loss, [policy_N])
    assert grad_N.tolist() == pytest.approx([-1.1, 0.0, 1.0])


def test_gspo_compares_whole_sequences_by_their_geometric_mean_ratio():
    policy_N, behavior_N = with_ratios(exp(0.1), exp(0.3), 2.0)
    batch = make_batch(policy_N, behavior_N, [1.0, 1.0, 3.0], lengths_B=[2, 1])
    objective = Objective(loss="gspo", clip_low=0.5, clip_high=0.5)
    loss, is_clipped_N = gspo_loss(batch, objective, UpdateCounts(num_tokens=9, num_sequences=4))
    # s = exp(0.4 / 2), 2: -(e^0.2 + min(2, 1.5) * 3) / 4
    assert loss.item() == pytest.approx(-(exp(0.2) + 4.5) / 4)
    assert is_clipped_N.tolist() == [False, False, True]
    (grad_N,) = torch.autograd.grad(loss, [policy_N])
    # each of the two tokens: -e^0.2 / 2 / 4; the clipped sequence: none
    assert grad_N.tolist() == pytest.approx([-exp(0.2) / 8, -exp(0.2) / 8, 0.0])


def test_cispo_clips_the_weight_and_keeps_the_gradient():
    policy_N = torch.tensor([-1.0, -2.0], requires_grad=True)
    batch = make_batch(policy_N, torch.tensor([-2.0, -1.0]), [1.0, -1.0])
    counts = UpdateCounts(num_tokens=2, num_sequences=2)
    loss, is_clipped_N = cispo_loss(batch, Objective(loss="cispo", clip_high=0.5), counts)
    # ratios e and 1/e; weights 1.5 and 1/e: -(1.5 * 1 * -1 + 1/e * -1 * -2) / 2
    assert loss.item() == pytest.approx((1.5 - 2 / e) / 2)
    assert is_clipped_N.tolist() == [True, False]
    (grad_N,) = torch.autograd.grad(loss, [policy_N])
    assert grad_N.tolist() == pytest.approx([-0.75, 1 / e / 2])


def test_sft_is_the_weighted_token_mean():
    # minus (2 * -0.5 + 1 * -0.25) / 4 tokens
    batch = make_batch(torch.tensor([-0.5, -0.25]), None, [0.0, 0.0], weights_N=[2.0, 1.0])
    counts = UpdateCounts(num_tokens=4, num_sequences=2)
    loss, is_clipped_N = sft_loss(batch, Objective(loss="sft"), counts)
    assert loss.item() == pytest.approx(0.3125)
    assert not is_clipped_N.any()


def test_k3_is_zero_where_the_policies_agree_and_positive_elsewhere():
    policy_N = torch.tensor([-1.0, -1.0, -1.0])
    reference_N = torch.tensor([-1.0, 0.0, -2.0])
    # d = 0, 1, -1: e^d - d - 1
    expected = [0.0, e - 2.0, 1 / e]
    assert k3_divergence(policy_N, reference_N).tolist() == pytest.approx(expected)


def test_a_broken_token_does_not_overflow():
    batch = make_batch(torch.tensor([0.0]), torch.tensor([-500.0]), [1.0])
    assert batch.ratio_N.item() == pytest.approx(exp(20.0), rel=1e-5)


@pytest.mark.parametrize("name", LOSSES)
def test_parts_with_the_updates_denominators_add_up_to_the_whole(name):
    generator = torch.Generator().manual_seed(0)
    lengths_B = [3, 1, 4, 2]
    sizes = [sum(lengths_B[:2]), sum(lengths_B[2:])]

    def numbers(scale=1.0):
        return torch.randn(10, generator=generator) * scale

    advantages_N = torch.tensor([1.0, -2.0, 0.5, 3.0]).repeat_interleave(torch.tensor(lengths_B))
    columns = {
        "policy_logprobs_N": numbers().requires_grad_(),
        "behavior_logprobs_N": numbers(),
        "reference_logprobs_N": numbers(),
        "advantages_N": advantages_N,
        "weights_N": advantages_N.abs(),
        "entropy_N": numbers(),
    }
    objective = Objective(loss=name, clip_low=0.2, clip_high=0.3, kl_coef=0.1, entropy_coef=0.2)
    counts = UpdateCounts(num_tokens=10, num_sequences=4)
    whole = compute_loss(objective, TokenBatch(**columns, lengths_B=lengths_B), counts).loss
    cut = {key: torch.split(column, sizes) for key, column in columns.items()}
    parts = [
        compute_loss(
            objective,
            TokenBatch(**{key: cut[key][i] for key in cut}, lengths_B=lengths_B[2 * i : 2 * i + 2]),
            counts,
        ).loss
        for i in range(2)
    ]
    total = torch.stack(parts).sum()
    assert total.item() == pytest.approx(whole.item(), rel=1e-5)
    policy_N = columns["policy_logprobs_N"]
    grads = [torch.autograd.grad(loss, policy_N)[0] for loss in (total, whole)]
    torch.testing.assert_close(*grads)
