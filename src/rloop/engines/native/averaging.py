"""The uniform mean of policies' weights, as checkpoint averaging wants it."""

from collections.abc import Iterable, Mapping

import torch

from rloop.engines.native.rounding import StochasticRounding


@torch.no_grad()
def mean_weights(
    states: Iterable[Mapping[str, torch.Tensor]], *, seed: int
) -> dict[str, torch.Tensor]:
    """Return (w_1 + ... + w_n) / n of weights by name, on the CPU in the first ones' precision.

    Summed in float32, one state at a time, and rounded to bfloat16 by the seed; numbers that are
    not floating-point stay the first's.
    """
    sums: dict[str, torch.Tensor] = {}
    dtypes: dict[str, torch.dtype] = {}
    count = 0
    for count, state in enumerate(states, start=1):
        for name, weight in state.items():
            if count == 1:
                dtypes[name] = weight.dtype
                kind = torch.float32 if weight.is_floating_point() else weight.dtype
                sums[name] = weight.to("cpu", kind, copy=True)
            elif weight.is_floating_point():
                sums[name] += weight.to("cpu", torch.float32)
    assert count, "there is no policy to average"
    rounding = StochasticRounding(seed)
    means: dict[str, torch.Tensor] = {}
    for name, total in sums.items():
        means[name] = torch.empty_like(total, dtype=dtypes[name])
        rounding.write(name, total / count if total.is_floating_point() else total, means[name])
    return means
