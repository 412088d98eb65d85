"""Fixed inputs for comparing losses with peers, and what verl makes of them.

`python tests/peer_numbers.py` prints verl's numbers, the table of test_parity_verl.py. Needs

    pip install --no-deps verl==0.9.1 tensordict==0.15.3 pyvers==0.2.3 omegaconf==2.4.0 \\
        codetiming==1.4.0 orjson cloudpickle

--no-deps because verl 0.9.1 asks for an older transformers, for hydra, which needs another antlr4
than math-verify, and for Ray, which its losses do not use: an empty stand-in lets them be imported.
"""

import importlib.machinery
import json
import sys
import types
import warnings
from typing import Any

CLIP_LOW, CLIP_HIGH = 0.2, 0.28
REWARDS_PG = [[1.0, 0.0, 0.0, 0.0], [1.0, 1.0, 0.0, 0.5], [0.0, 0.0, 0.0, 0.0]]
LENGTHS_B = [3, 2, 4]
ADVANTAGES_B = [1.5, -0.5, -0.75]
POLICY = [[-0.3, -1.2, -0.05], [-2.0, -0.7], [-0.9, -0.1, -1.5, -0.4]]
"""Log-probabilities by sequence; the ratios to BEHAVIOR lie inside and outside the clip range."""
BEHAVIOR = [[-1.2, -1.1, -0.05], [-1.6, -0.75], [-1.4, -0.6, -1.3, -0.35]]
REFERENCE = [[-0.5, -1.0, -0.06], [-1.0, -0.7], [-0.8, -0.3, -1.5, -0.9]]


def padded(rows: list[list[float]]) -> list[list[float]]:
    """Return the rows padded with zeros to the longest."""
    width = max(map(len, rows))
    return [row + [0.0] * (width - len(row)) for row in rows]


def unpadded(rows: list[list[float]]) -> list[float]:
    """Return the numbers of the tokens alone, row after row."""
    return [number for row, n in zip(rows, LENGTHS_B, strict=True) for number in row[:n]]


class Anything(types.ModuleType):
    """A module with a class for every name asked of it."""

    def __getattr__(self, name: str) -> type:
        """Return an empty class."""
        if name.startswith("__"):
            raise AttributeError(name)
        return type(name, (), {})


def verl_numbers() -> dict[str, list[float]]:
    """Return verl's losses with their gradients, divergences and advantages."""
    stand_in = Anything("ray")
    stand_in.__spec__ = importlib.machinery.ModuleSpec("ray", None)
    sys.modules.setdefault("ray", stand_in)
    warnings.simplefilter("ignore")
    import numpy as np
    import torch
    from verl.trainer.ppo import core_algos
    from verl.workers.config import ActorConfig

    def losses(name: str, mode: str, clip_low: float) -> list[float]:
        config: Any = ActorConfig(
            strategy="fsdp",
            rollout_n=1,
            use_dynamic_bsz=True,
            clip_ratio_low=clip_low,
            clip_ratio_high=CLIP_HIGH,
            clip_ratio_c=1e6,  # no dual clip
        )
        policy_BT = torch.tensor(padded(POLICY), requires_grad=True)
        loss, _ = core_algos.get_policy_loss_fn(name)(
            old_log_prob=torch.tensor(padded(BEHAVIOR)),
            log_prob=policy_BT,
            advantages=torch.tensor(ADVANTAGES_B).unsqueeze(-1).expand_as(policy_BT),
            response_mask=mask_BT,
            loss_agg_mode=mode,
            config=config,
        )
        (grad_BT,) = torch.autograd.grad(loss, [policy_BT])
        return [loss.item(), *unpadded(grad_BT.tolist())]

    mask_BT = torch.tensor(padded([[1.0] * n for n in LENGTHS_B]))
    policy_BT, reference_BT = torch.tensor(padded(POLICY)), torch.tensor(padded(REFERENCE))
    rewards_B1 = torch.tensor(REWARDS_PG).reshape(-1, 1)
    group_B = np.repeat(np.arange(len(REWARDS_PG)), len(REWARDS_PG[0]))
    ones_B1 = torch.ones_like(rewards_B1)
    grpo = core_algos.compute_grpo_outcome_advantage
    rloo = core_algos.compute_rloo_outcome_advantage
    return {
        "dapo": losses("vanilla", "token-mean", CLIP_LOW),
        "gspo": losses("gspo", "seq-mean-token-mean", CLIP_LOW),
        "cispo": losses("cispo", "token-mean", 1.0),  # 1: no lower clip
        "k3": unpadded(core_algos.kl_penalty(policy_BT, reference_BT, "low_var_kl").tolist()),
        "grpo": grpo(rewards_B1.clone(), ones_B1, group_B)[0].flatten().tolist(),
        "dr_grpo": grpo(rewards_B1.clone(), ones_B1, group_B, norm_adv_by_std_in_grpo=False)[0]
        .flatten()
        .tolist(),
        "rloo": rloo(rewards_B1.clone(), ones_B1, group_B)[0].flatten().tolist(),
    }


if __name__ == "__main__":
    sys.stdout.write(json.dumps(verl_numbers()) + "\n")
