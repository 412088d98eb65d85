"""AdamW on float32 masters, and its state as plain tensors."""

from collections.abc import Callable, Collection, Mapping
from typing import Any

import torch
from torch import nn

from rloop.recipe.config import OptimizerConfig

MOMENTS = ("exp_avg", "exp_avg_sq")


class AdamW:
    """The optimizer of named float32 masters.

    Weight decay acts on matrices only, not on norms and biases.
    """

    def __init__(self, masters: Mapping[str, nn.Parameter], config: OptimizerConfig) -> None:
        """Begin with moments of zero."""
        self._masters = dict(masters)
        matrices = [p for p in self._masters.values() if p.dim() > 1]
        vectors = [p for p in self._masters.values() if p.dim() <= 1]
        groups = [
            {"params": matrices, "weight_decay": config.weight_decay},
            {"params": vectors, "weight_decay": 0.0},
        ]
        groups = [group for group in groups if group["params"]]
        self._optimizer = torch.optim.AdamW(groups, fused=True)

    def step(self, learning_rate: float) -> None:
        """Do one step with the masters' gradients."""
        for group in self._optimizer.param_groups:
            group["lr"] = learning_rate
        self._optimizer.step()

    def state(self) -> dict[str, torch.Tensor]:
        """Return the moments and step counts by `KIND.NAME`; none before the first step."""
        return {
            f"{kind}.{name}": value.reshape(1) if value.dim() == 0 else value
            for name, master in self._masters.items()
            for kind, value in self._optimizer.state.get(master, {}).items()
        }

    @torch.no_grad()
    def restore(self, names: Collection[str], read: Callable[[str], torch.Tensor]) -> None:
        """Continue from what `state` returned, to the bit, read one tensor at a time."""
        for name, master in self._masters.items():
            if f"step.{name}" not in names:
                continue
            state: dict[str, Any] = {"step": read(f"step.{name}").reshape(()).to(master.device)}
            for moment in MOMENTS:
                state[moment] = torch.zeros_like(master)
                state[moment].copy_(read(f"{moment}.{name}"))
            self._optimizer.state[master] = state

    def close(self) -> None:
        """Drop the moments."""
        self._optimizer.state.clear()
        self._masters.clear()
