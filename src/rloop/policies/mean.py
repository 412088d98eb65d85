"""The weighted mean of policies' weights: WiSE-FT (arXiv 2109.01903; for RL 2504.10478)."""

from collections.abc import Sequence
from pathlib import Path

import torch

from rloop.policies.checkpoint import load_policy, save_policy
from rloop.policies.rounding import StochasticRounding
from rloop.types import PolicyRef


@torch.no_grad()
def mean_policy(
    parts: Sequence[tuple[PolicyRef, float]],
    directory: Path,
    name: str,
    *,
    seed: int,
    trust_remote_code: bool = False,
) -> PolicyRef:
    """Write w = sum_i a_i w_i, over policies of one architecture, as a Hugging Face directory.

    The sum is in float32, with one policy in memory at a time beside it, and is rounded by the seed
    to the precision of the first policy. Tokenizer, configuration and integer tensors are the first
    policy's.
    """
    sums: dict[str, torch.Tensor] = {}
    for number, (policy, fraction) in enumerate(parts):
        loaded = load_policy(
            policy.path,
            dtype="auto",
            device=torch.device("cpu"),
            trust_remote_code=trust_remote_code,
        )
        for key, weight in loaded.model.state_dict().items():
            if number == 0:
                is_float = weight.is_floating_point()
                sums[key] = weight.float() * fraction if is_float else weight.clone()
            elif weight.is_floating_point():
                sums[key].add_(weight.float(), alpha=fraction)
        if number == 0:
            first = loaded.model
        del loaded
    rounding = StochasticRounding(seed)
    for key, weight in first.state_dict().items():
        rounding.write(key, sums.pop(key), weight)
    save_policy(first, directory, source_dir=parts[0][0].path)
    return PolicyRef(path=directory, name=name)
