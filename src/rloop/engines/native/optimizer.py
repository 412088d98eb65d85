"""AdamW with moments in 32 or 8 bits, and its state as plain tensors.

In 8 bits (torchao; arXiv 2110.02861) a moment is a byte and 1/256 of a float32 scale a number;
tensors that are smaller than 4096 numbers, or no multiple of 256, keep float32 moments.
"""

from collections.abc import Callable, Collection, Mapping
from importlib.util import find_spec
from typing import Any

import torch
from torch import nn

from rloop.config import OptimizerConfig
from rloop.errors import EngineError, EngineUnavailable

MOMENTS = ("exp_avg", "exp_avg_sq")


class AdamW:
    """The optimizer of named float32 masters.

    Weight decay acts on matrices only, not on norms and biases.
    """

    def __init__(
        self, masters: Mapping[str, nn.Parameter], config: OptimizerConfig, *, bits: int
    ) -> None:
        """Begin with moments of zero."""
        self._masters = dict(masters)
        self._is_compiled = bits == 8
        matrices = [p for p in self._masters.values() if p.dim() > 1]
        vectors = [p for p in self._masters.values() if p.dim() <= 1]
        groups = [
            {"params": matrices, "weight_decay": config.weight_decay},
            {"params": vectors, "weight_decay": 0.0},
        ]
        groups = [group for group in groups if group["params"]]
        self._optimizer: torch.optim.Optimizer = (
            _eight_bit(groups) if bits == 8 else torch.optim.AdamW(groups, fused=True)
        )

    def step(self, learning_rate: float) -> None:
        """Do one step with the masters' gradients."""
        for group in self._optimizer.param_groups:
            if self._is_compiled:
                group["lr"].fill_(learning_rate)
            else:
                group["lr"] = learning_rate
        if not self._is_compiled:
            self._optimizer.step()
            return
        try:
            self._optimizer.step()
        except torch._dynamo.exc.TorchDynamoException as error:
            raise EngineError(
                "engine.optimizer_bits=8 compiles its step, and that failed "
                f"({str(error).strip().splitlines()[0]}). Install a C++ compiler (g++), or set "
                "--set engine.optimizer_bits=32."
            ) from error

    def state(self) -> dict[str, torch.Tensor]:
        """Return the moments and step counts by `KIND.NAME`; none before the first step."""
        tensors: dict[str, torch.Tensor] = {}
        for name, master in self._masters.items():
            state = self._optimizer.state.get(master, {})
            for kind, value in state.items():
                for part, tensor in _parts(value).items():
                    tensors[f"{kind}{part}.{name}"] = tensor
        return tensors

    @torch.no_grad()
    def restore(self, names: Collection[str], read: Callable[[str], torch.Tensor]) -> None:
        """Continue from what `state` returned, to the bit, read one tensor at a time."""
        for name, master in self._masters.items():
            if f"step.{name}" not in names:
                continue
            state: dict[str, Any] = {"step": read(f"step.{name}").reshape(())}
            if not self._is_compiled:  # which counts on the CPU
                state["step"] = state["step"].to(master.device)
            for moment in MOMENTS:
                state[moment] = self._zeros(master, is_signed=moment == "exp_avg")
                for part, tensor in _parts(state[moment]).items():
                    tensor.copy_(read(f"{moment}{part}.{name}"))
            self._optimizer.state[master] = state

    def _zeros(self, master: nn.Parameter, *, is_signed: bool) -> torch.Tensor:
        """Return a moment as the optimizer itself makes it."""
        if not self._is_compiled:
            return torch.zeros_like(master)
        foreign: Any = self._optimizer
        moment: torch.Tensor = foreign._new_buffer(master.detach(), is_signed)
        return moment

    def close(self) -> None:
        """Drop the moments."""
        self._optimizer.state.clear()
        self._masters.clear()


def _parts(value: torch.Tensor) -> dict[str, torch.Tensor]:
    """Return the plain tensors that a moment or a step count is made of, by what their name ends
    in.
    """
    if hasattr(value, "codes"):
        foreign: Any = value
        return {"_codes": foreign.codes, "_scale": foreign.scale}
    return {"": value.reshape(1) if value.dim() == 0 else value}


def require_torchao() -> None:
    """Raise when moments in 8 bits are asked for and cannot be had."""
    if find_spec("torchao") is None:
        raise EngineUnavailable(
            "engine.optimizer_bits is 8, for which torchao is not installed. Install it: "
            "pip install 'rloop-rl[torchao]', or set engine.optimizer_bits=32."
        )


def _eight_bit(groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
    require_torchao()
    from torchao.optim import AdamW8bit

    optimizer: torch.optim.Optimizer = AdamW8bit(groups)
    return optimizer
