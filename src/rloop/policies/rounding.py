"""Stochastic rounding of float32 masters into bfloat16 weights, so that small changes survive.

A weight of 0.1 has bfloat16 neighbours 0.0005 away; a fine-tuning of a few updates at 1e-5 moves it
by 0.00002. Rounding to nearest loses that. Here each weight becomes the upper of its neighbours
with a probability equal to the fraction that the lower one cuts off, so that its expectation is the
master. The random threshold of each weight is drawn once per phase: the same masters always give
the same weights, and a weight changes only if its master has moved. See decision 12 in
docs/explanation/decisions.
"""

import torch

from rloop.types import stable_hash

TILE = 1_048_573
"""Number of thresholds, a prime, so that rows of a matrix start at different ones; larger tensors
repeat them."""
CUT_BITS = 16
"""Bits that float32 has and bfloat16 lacks."""


class StochasticRounding:
    """Rounds any number of tensors; the seed decides the direction for each number."""

    def __init__(self, seed: int) -> None:
        """Draw the thresholds on the CPU, so that they are the same for every device."""
        generator = torch.Generator().manual_seed(seed)
        tile = torch.randint(0, 1 << CUT_BITS, (TILE,), generator=generator, dtype=torch.int32)
        self._seed = seed
        self._twice = torch.cat([tile, tile])

    @torch.no_grad()
    def write(self, name: str, exact: torch.Tensor, rounded: torch.Tensor) -> None:
        """Round float32 numbers into a contiguous tensor of the same size, which may be on another
        device.

        Any other pair of dtypes, and a tensor with NaN or infinity, is copied. The name decides
        which thresholds are used.
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
