"""The uniform mean of policies' weights, as checkpoint averaging wants it."""

from collections.abc import Iterable, Mapping

import torch


@torch.no_grad()
def mean_weights(states: Iterable[Mapping[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    """Return (w_1 + ... + w_n) / n of weights by name, on the CPU in the first ones' precision.

    Summed in float32, one state at a time; numbers that are not floating-point stay the first's.
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
    return {
        name: (total / count).to(dtypes[name]) if total.is_floating_point() else total
        for name, total in sums.items()
    }
