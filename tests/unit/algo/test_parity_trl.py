"""Losses and advantages against TRL's own code: `GRPOTrainer._compute_loss` runs on fixed numbers.

The method reads a trainer's settings and asks it for log-probabilities; a plain namespace gives
both, so no model, data set or accelerator is needed.
"""

import warnings
from collections import defaultdict
from types import SimpleNamespace

import peer_numbers as peer
import pytest
import torch

from rloop.algo.advantages import STD_EPSILON, grpo_advantages
from rloop.algo.losses import TokenBatch, UpdateCounts, compute_loss
from rloop.algo.objective import Objective

pytest.importorskip("trl", reason="TRL is not installed: pip install trl")


@pytest.fixture(scope="module")
def trl():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from trl.trainer.grpo_trainer import GRPOTrainer
        from trl.trainer.utils import nanstd
    return SimpleNamespace(compute_loss=GRPOTrainer._compute_loss, nanstd=nanstd)


def trl_loss(trl, policy_BT, *, loss_type, level="token", epsilon_high, beta=0.0):
    """TRL's loss for one batch on one process, without gradient accumulation."""
    mask_BT = torch.tensor(peer.padded([[1.0] * n for n in peer.LENGTHS_B]))
    accelerator = SimpleNamespace(
        num_processes=1, gather=lambda x: x, reduce=lambda x, reduction: x
    )
    trainer = SimpleNamespace(
        _get_per_token_logps_and_entropies=lambda *_, **__: (
            policy_BT,
            torch.zeros_like(mask_BT),
            None,
        ),
        accelerator=accelerator,
        args=SimpleNamespace(delta=None, steps_per_generation=1, use_bias_correction_kl=False),
        aux_loss_enabled=False,
        beta=beta,
        current_gradient_accumulation_steps=1,
        epsilon_high=epsilon_high,
        epsilon_low=peer.CLIP_LOW,
        importance_sampling_level=level,
        loss_type=loss_type,
        model=SimpleNamespace(training=True),
        off_policy_mask_threshold=None,
        top_entropy_quantile=1.0,
        use_vllm=False,
        _entropy_bonus_enabled=False,
        _metrics={"train": defaultdict(list)},
    )
    inputs = {
        "prompt_ids": torch.ones(3, 1, dtype=torch.long),
        "prompt_mask": torch.ones(3, 1),
        "completion_ids": torch.ones(3, 4, dtype=torch.long),
        "completion_mask": mask_BT,
        "advantages": torch.tensor(peer.ADVANTAGES_B),
        "old_per_token_logps": torch.tensor(peer.padded(peer.BEHAVIOR)),
        "ref_per_token_logps": torch.tensor(peer.padded(peer.REFERENCE)),
        "num_items_in_batch": mask_BT.sum(),
    }
    return trl.compute_loss(trainer, None, inputs)


def our_loss(policy_N, objective):
    def flat(rows):
        return torch.tensor([number for row in rows for number in row])

    lengths = torch.tensor(peer.LENGTHS_B)
    batch = TokenBatch(
        policy_logprobs_N=policy_N,
        behavior_logprobs_N=flat(peer.BEHAVIOR),
        reference_logprobs_N=flat(peer.REFERENCE) if objective.kl_coef else None,
        advantages_N=torch.tensor(peer.ADVANTAGES_B).repeat_interleave(lengths),
        weights_N=torch.ones(9),
        lengths_B=peer.LENGTHS_B,
    )
    return compute_loss(objective, batch, UpdateCounts(num_tokens=9, num_sequences=3)).loss


@pytest.mark.parametrize(
    ("name", "kl_coef", "settings"),
    [
        ("dapo", 0.0, {"loss_type": "dapo", "epsilon_high": peer.CLIP_HIGH}),
        ("dapo", 0.3, {"loss_type": "dapo", "epsilon_high": peer.CLIP_HIGH, "beta": 0.3}),
        # GSPO in TRL: sequence ratios, and the mean over sequences of the mean over tokens
        ("gspo", 0.0, {"loss_type": "grpo", "level": "sequence", "epsilon_high": peer.CLIP_HIGH}),
        # TRL's epsilon_high bounds CISPO's weight itself, not its excess over 1
        ("cispo", 0.0, {"loss_type": "cispo", "epsilon_high": 1 + peer.CLIP_HIGH}),
        ("cispo", 0.3, {"loss_type": "cispo", "epsilon_high": 1 + peer.CLIP_HIGH, "beta": 0.3}),
    ],
)
def test_loss_and_gradient_equal_trls(trl, name, kl_coef, settings):
    policy_BT = torch.tensor(peer.padded(peer.POLICY), requires_grad=True)
    expected = trl_loss(trl, policy_BT, **settings)
    (expected_BT,) = torch.autograd.grad(expected, [policy_BT])
    policy_N = torch.tensor(peer.unpadded(peer.POLICY), requires_grad=True)
    objective = Objective(
        loss=name, clip_low=peer.CLIP_LOW, clip_high=peer.CLIP_HIGH, kl_coef=kl_coef
    )
    loss = our_loss(policy_N, objective)
    (found_N,) = torch.autograd.grad(loss, [policy_N])
    assert loss.item() == pytest.approx(expected.item(), abs=1e-6)
    assert found_N.tolist() == pytest.approx(peer.unpadded(expected_BT.tolist()), abs=1e-6)


@pytest.mark.parametrize("group", peer.REWARDS_PG)
def test_the_standard_deviation_is_trls(trl, group):
    """TRL divides by nanstd + 1e-4, we by the same + 1e-6; it is float32 inside."""
    rewards_G = torch.tensor(group, dtype=torch.float64)
    expected_G = (rewards_G - rewards_G.mean()) / (trl.nanstd(rewards_G) + STD_EPSILON)
    assert grpo_advantages(group) == pytest.approx(expected_G.tolist(), rel=1e-6)
