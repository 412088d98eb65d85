"""Float32 masters rounded into bfloat16 weights by chance, so that short moves survive.

A weight of 0.1 has bfloat16 neighbours 0.0005 away; a fine-tuning of a few updates at 1e-5 moves it
by 0.00002. Rounded to nearest nothing is left of that. Here each weight goes to the upper of its
neighbours with the probability of what the lower one cuts off, so that its expectation is the
master. The chance is drawn once a phase for each weight and then kept: the same masters always give
the same weights, and a weight changes only where its master moved. See decision 12 in
docs/explanation/decisions.
"""

import torch

from rloop.types import stable_hash

TILE = 1_048_573
"""Thresholds in all, a prime, so that rows of a matrix never begin at the same one; a tensor of
more numbers takes them again and again."""
CUT_BITS = 16
"""Bits that float32 has and bfloat16 has not."""


class StochasticRounding:
    """Rounds tensors of any number; the seed decides which way each of their numbers goes."""

    def __init__(self, seed: int) -> None:
        """Draw the thresholds, on the CPU, so that every device has the same."""
        generator = torch.Generator().manual_seed(seed)
        tile = torch.randint(0, 1 << CUT_BITS, (TILE,), generator=generator, dtype=torch.int32)
        self._seed = seed
        self._twice = torch.cat([tile, tile])

    @torch.no_grad()
    def write(self, name: str, exact: torch.Tensor, rounded: torch.Tensor) -> None:
        """Round float32 numbers into a contiguous tensor of as many, which may be on another
        device.

        Anything else than float32 into bfloat16, and a tensor with a NaN or an infinity, is copied
        as it is. The name decides which thresholds are taken.
        """
        is_rounding = (exact.dtype, rounded.dtype) == (torch.float32, torch.bfloat16)
        if not is_rounding or not exact.sum().isfinite():
            rounded.copy_(exact)
            return
        self._twice = self._twice.to(exact.device)
        begin = stable_hash(self._seed, name) % TILE
        thresholds = self._twice[begin : begin + TILE]
        parts = torch.split(exact.reshape(-1), TILE), torch.split(rounded.view(-1), TILE)
        for part, target in zip(*parts, strict=True):
            bits = part.view(torch.int32) + thresholds[: len(part)]
            bits &= -1 << CUT_BITS
            target.copy_(bits.view(torch.float32))
