"""What the policy in training thought of a batch when it sampled it, computed a second time.

TRL hands no log-probabilities to a reward function, vLLM's neither. No update lies between the
sampling and this, so these are the sampler's up to rounding where TRL samples itself; where vLLM
does, they are the trainer's own, and what vLLM made of the same weights is not stored.
"""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import nn

Sequences = Sequence[tuple[Sequence[int], Sequence[int]]]
"""Prompt ids and completion ids, a pair a sequence."""


@torch.no_grad()
def behavior_logprobs(
    model: nn.Module,
    sequences: Sequences,
    *,
    temperature: float,
    rows: int,
    autocast: AbstractContextManager[None],
) -> list[tuple[float, ...]]:
    """Return [T] log-probabilities of each completion's tokens, `rows` sequences at a time.

    Every worker has as many sequences, so that sharded weights are gathered in step.
    """
    found: list[tuple[float, ...]] = []
    was_training = model.training
    model.eval()
    try:
        with autocast:
            for begin in range(0, len(sequences), rows):
                found += _one_pass(model, sequences[begin : begin + rows], temperature)
    finally:
        model.train(was_training)
    return found


def _one_pass(
    model: nn.Module, sequences: Sequences, temperature: float
) -> list[tuple[float, ...]]:
    """Put prompts to the right, completions to the left: [B, P + T], all completions from P on."""
    prompt_tokens = max(len(prompt) for prompt, _ in sequences)
    completion_tokens = max(len(completion) for _, completion in sequences)
    device = next(model.parameters()).device
    ids_BN = torch.zeros(len(sequences), prompt_tokens + completion_tokens, dtype=torch.int64)
    mask_BN = torch.zeros_like(ids_BN)
    for row, (prompt, completion) in enumerate(sequences):
        begin, end = prompt_tokens - len(prompt), prompt_tokens + len(completion)
        ids_BN[row, begin:end] = torch.tensor([*prompt, *completion])
        mask_BN[row, begin:end] = 1
    foreign: Any = model
    logits_BTV = foreign(
        input_ids=ids_BN.to(device),
        attention_mask=mask_BN.to(device),
        position_ids=(mask_BN.cumsum(-1) - 1).clamp(min=0).to(device),
        logits_to_keep=completion_tokens + 1,
        use_cache=False,
    ).logits[:, :-1]
    found = []
    for row, (_, completion) in enumerate(sequences):
        chosen_T1 = torch.tensor(completion, device=device)[:, None]
        logprobs_TV = (logits_BTV[row, : len(completion)].float() / temperature).log_softmax(-1)
        found.append(tuple(logprobs_TV.gather(-1, chosen_T1)[:, 0].tolist()))
    return found
