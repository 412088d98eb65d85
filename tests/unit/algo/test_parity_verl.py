"""Losses, divergence and advantages against verl 0.9.1's own functions.

The table holds what `python tests/peer_numbers.py` printed with verl 0.9.1 and torch 2.13.0 on a
CPU, rounded to six digits. Where verl is installed the numbers are made again, in a new process.
"""

import importlib.util
import json
import subprocess
import sys

import peer_numbers as peer
import pytest
import torch

from rloop.algo.advantages import ESTIMATORS
from rloop.algo.losses import TokenBatch, UpdateCounts, compute_loss, k3_divergence
from rloop.algo.objective import Objective

# dapo, gspo, cispo: the loss, then its gradient for each token
# k3: each token; grpo, dr_grpo, rloo: each member of each group
TABLE = """\
dapo -0.005674 0.0 -0.150806 -0.166667 0.0 0.058404 0.137393 0.137393 0.068228 0.079269
gspo -0.198533 0.0 0.0 0.0 0.069955 0.069955 0.075389 0.075389 0.075389 0.075389
cispo -0.102778 -0.213333 -0.150806 -0.166667 0.03724 0.058404 0.106667 0.106667 0.068228 0.079269
k3 0.018731 0.021403 5e-05 0.718282 0.0 0.005171 0.018731 0.0 0.106531
grpo 1.499997 -0.499999 -0.499999 -0.499999 0.783348 0.783348 -1.30558 -0.261116 0.0 0.0 0.0 0.0
dr_grpo 0.75 -0.25 -0.25 -0.25 0.375 0.375 -0.625 -0.125 0.0 0.0 0.0 0.0
rloo 1.0 -0.333333 -0.333333 -0.333333 0.5 0.5 -0.833333 -0.166667 0.0 0.0 0.0 0.0
"""
VERL = {name: list(map(float, row)) for name, *row in map(str.split, TABLE.splitlines())}


def flat(rows):
    return torch.tensor([number for row in rows for number in row])


@pytest.mark.parametrize("name", ["dapo", "gspo", "cispo"])
def test_loss_and_gradient_equal_verls(name):
    policy_N = flat(peer.POLICY).requires_grad_()
    lengths = torch.tensor(peer.LENGTHS_B)
    advantages_N = torch.tensor(peer.ADVANTAGES_B).repeat_interleave(lengths)
    batch = TokenBatch(
        policy_logprobs_N=policy_N,
        behavior_logprobs_N=flat(peer.BEHAVIOR),
        reference_logprobs_N=None,
        advantages_N=advantages_N,
        weights_N=torch.ones(9),
        lengths_B=peer.LENGTHS_B,
    )
    objective = Objective(loss=name, clip_low=peer.CLIP_LOW, clip_high=peer.CLIP_HIGH)
    loss = compute_loss(objective, batch, UpdateCounts(num_tokens=9, num_sequences=3)).loss
    (grad_N,) = torch.autograd.grad(loss, [policy_N])
    assert [loss.item(), *grad_N.tolist()] == pytest.approx(VERL[name], abs=2e-6)


def test_k3_equals_verls():
    found = k3_divergence(flat(peer.POLICY), flat(peer.REFERENCE)).tolist()
    assert found == pytest.approx(VERL["k3"], abs=2e-6)


@pytest.mark.parametrize("estimator", ["grpo", "dr_grpo", "rloo"])
def test_advantages_equal_verls(estimator):
    found = [a for group in peer.REWARDS_PG for a in ESTIMATORS[estimator](group)]
    assert found == pytest.approx(VERL[estimator], abs=2e-6)


@pytest.mark.skipif(
    importlib.util.find_spec("verl") is None,
    reason="verl is not installed; tests/peer_numbers.py says how",
)
def test_the_table_is_what_verl_computes_now():
    command = [sys.executable, peer.__file__]
    finished = subprocess.run(command, capture_output=True, text=True, check=False, timeout=240)
    assert finished.returncode == 0, finished.stderr[-2000:]
    found = json.loads(finished.stdout.splitlines()[-1])
    assert found.keys() == VERL.keys()
    for name, numbers in VERL.items():
        assert found[name] == pytest.approx(numbers, abs=1e-5), name
