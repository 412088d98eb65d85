"""rloop's sampler as the engine builds it, for a policy that never stops by itself."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from rloop.engines.native.policies import LoadedPolicy, load_policy

from rloop.engines.native import attention
from rloop.engines.native.sampler import Sampler
from rloop.recipe.config import EngineConfig


def load_endless(work: dict[str, Any]) -> LoadedPolicy:
    """Return the work's policy on its device; no token ends a completion."""
    policy = load_policy(
        Path(work["directory"]),
        dtype=getattr(torch, work["dtype"]),
        device=torch.device(work["device"]),
        trust_remote_code=False,
        attn_implementation=attention.register(),
    )
    return replace(policy, eos_ids=())


def engine_config(work: dict[str, Any]) -> EngineConfig:
    """Return the recipe's defaults in the work's precision, with as many rows as it asks for."""
    config = EngineConfig(device=work["device"], dtype=work["dtype"])
    rows = work["shape"].get("rows", config.max_batch)
    return config.model_copy(update={"max_batch": rows})


def make_sampler(policy: LoadedPolicy, config: EngineConfig) -> Sampler:
    """Return the sampler."""
    return Sampler(policy, max_batch=config.max_batch, prefill_tokens=config.microbatch_tokens)
