"""Sampling tokens: from logits and one uniform number per row to a token and its log-probability.

Shape letters: B rows, V vocabulary, N blocks, W block width. A row's token depends only on its own
logits and uniform number, so a trajectory can be sampled again without its neighbours.
"""

import torch
from torch.nn import functional as F

from rloop.engines.native.device import sum_dtype
from rloop.recipe.config import SamplingConfig


def draw_tokens(
    logits_BV: torch.Tensor, uniforms_B: torch.Tensor, settings: SamplingConfig
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return (tokens_B, logprobs_B); logprobs at the temperature, over the whole vocabulary.

    Temperature 0 takes the most likely token and returns its log-probability at temperature 1.
    """
    logits_BV = logits_BV.float()
    if settings.temperature > 0 and settings.temperature != 1:
        logits_BV = logits_BV / settings.temperature
    peaks_B1 = logits_BV.amax(dim=-1, keepdim=True)
    weights_BV = (logits_BV - peaks_B1).exp_()
    totals_B = weights_BV.sum(dim=-1)
    if settings.temperature == 0:
        tokens_B = logits_BV.argmax(dim=-1)
    else:
        kept_BV = keep_likely(weights_BV, top_p=settings.top_p, top_k=settings.top_k)
        tokens_B = invert_cumulative(kept_BV, uniforms_B)
    chosen_B = logits_BV.gather(1, tokens_B[:, None]).squeeze(1)
    return tokens_B, chosen_B - peaks_B1.squeeze(1) - totals_B.log()


def keep_likely(weights_BV: torch.Tensor, *, top_p: float, top_k: int) -> torch.Tensor:
    """Zero all but the `top_k` largest weights, then all but the smallest set that reaches `top_p`.

    The token that crosses the nucleus mass stays (Holtzman et al., arXiv 1904.09751).
    """
    if top_k:
        floor_B1 = weights_BV.topk(min(top_k, weights_BV.shape[-1]), dim=-1).values[:, -1:]
        weights_BV = weights_BV.where(weights_BV >= floor_B1, 0.0)
    if top_p < 1:
        sorted_BV, order_BV = weights_BV.sort(dim=-1, descending=True, stable=True)
        mass_before_BV = sorted_BV.cumsum(dim=-1) - sorted_BV
        dropped_BV = mass_before_BV >= top_p * sorted_BV.sum(dim=-1, keepdim=True)
        weights_BV = weights_BV.masked_fill(
            torch.zeros_like(dropped_BV).scatter(1, order_BV, dropped_BV), 0.0
        )
    return weights_BV


def invert_cumulative(weights_BV: torch.Tensor, uniforms_B: torch.Tensor) -> torch.Tensor:
    """Return per row the first index at which the running sum passes uniform x total.

    It works in two levels, blocks first: one pass over the vocabulary, and sums short enough for
    float32. A token of weight zero is never sampled.
    """
    exact = sum_dtype(weights_BV.device)
    vocabulary = weights_BV.shape[1]
    width = next((w for w in (256, 128, 64, 32) if vocabulary % w == 0), 256)
    padded_BV = F.pad(weights_BV, (0, -vocabulary % width))
    blocks_BNW = padded_BV.view(len(weights_BV), -1, width)
    running_BN = blocks_BNW.sum(dim=-1, dtype=exact).cumsum(dim=-1)
    targets_B1 = uniforms_B[:, None].to(running_BN) * running_BN[:, -1:]
    block_B1 = torch.searchsorted(running_BN, targets_B1, right=True)
    block_B1 = block_B1.clamp_(max=running_BN.shape[1] - 1)
    before_B1 = F.pad(running_BN, (1, 0)).gather(1, block_B1)
    block_BW = blocks_BNW.gather(1, block_B1[:, :, None].expand(-1, 1, width)).squeeze(1)
    running_BW = block_BW.cumsum(dim=-1, dtype=exact)
    inside_B1 = torch.searchsorted(running_BW, targets_B1 - before_B1, right=True)
    inside_B1 = inside_B1.clamp_(max=width - 1)
    # Rounding can run past the last positive weight of the block: take its likeliest token instead.
    is_zero_B1 = block_BW.gather(1, inside_B1) <= 0
    inside_B1 = inside_B1.where(~is_zero_B1, block_BW.argmax(dim=-1, keepdim=True))
    return (block_B1 * width + inside_B1).squeeze(1)
