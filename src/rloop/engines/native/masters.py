"""Float32 master weights: what the optimizer steps on, and their state on disk.

Masters are the model's own weights (`WholeWeights`) or low-rank changes of them (`adapters.py`).
"""

from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn
from transformers import PreTrainedModel

from rloop.engines.native.adapters import LowRankWeights
from rloop.engines.native.optimizer import AdamW
from rloop.engines.native.ranks import Ranks
from rloop.errors import EngineError
from rloop.policies.rounding import StochasticRounding
from rloop.recipe.config import EngineConfig, OptimizerConfig

TENSORS_FILE = "learner.safetensors"


class MasterWeights:
    """Masters with AdamW."""

    def __init__(
        self, model: PreTrainedModel, config: OptimizerConfig, engine: EngineConfig, *, seed: int
    ) -> None:
        """Take the masters from the model.

        The seed decides the first numbers of adapters, and which way weights are rounded.
        """
        offload = engine.offload_optimizer
        self._weights: WholeWeights | LowRankWeights = (
            WholeWeights(model, seed=seed, offload=offload)
            if engine.lora is None
            else LowRankWeights(model, engine.lora, seed=seed, offload=offload)
        )
        self._masters = self._weights.masters
        self._grad_clip = config.grad_clip
        self._optimizer = AdamW(self._masters, config)

    def grad_norm(self) -> float:
        """Return the global norm of the accumulated gradient; NaN or inf where it is broken."""
        grads = [p.grad for p in self._masters.values() if p.grad is not None]
        return float(nn.utils.get_total_norm(grads)) if grads else 0.0

    def add_gradients(self, ranks: Ranks) -> None:
        """Add the gradients that the other processes have accumulated."""
        for master in self._masters.values():
            if master.grad is None:
                master.grad = torch.zeros_like(master)
        ranks.add([master.grad for master in self._masters.values() if master.grad is not None])

    def step(self, *, learning_rate: float, grad_norm: float) -> None:
        """Clip by the given norm, do one AdamW step, round into the model, forget the gradient."""
        if self._grad_clip > 0.0:
            nn.utils.clip_grads_with_norm_(
                self._masters.values(), self._grad_clip, torch.tensor(grad_norm)
            )
        self._optimizer.step(learning_rate)
        self._weights.write()
        self.drop_gradients()

    def drop_gradients(self) -> None:
        """Forget the accumulated gradient."""
        self._weights.drop_gradients()
        for master in self._masters.values():
            master.grad = None

    def at_start(self) -> AbstractContextManager[None]:
        """Make the model the phase's start policy inside the block; adapters alone can."""
        assert isinstance(self._weights, LowRankWeights), "whole weights keep no start policy"
        return self._weights.at_start()

    def save(self, directory: Path) -> None:
        """Write masters and moments to an existing directory."""
        tensors = {f"master.{name}": master.detach() for name, master in self._masters.items()}
        tensors |= self._optimizer.state()
        save_file(
            {key: tensor.contiguous() for key, tensor in tensors.items()}, directory / TENSORS_FILE
        )

    @torch.no_grad()
    def load(self, directory: Path) -> None:
        """Continue from a saved state, to the bit; the model gets the masters' weights.

        The file is read tensor by tensor: it is three times as large as the masters themselves.
        """
        with safe_open(directory / TENSORS_FILE, framework="pt") as stored:
            names = set(stored.keys())
            for name, master in self._masters.items():
                key = f"master.{name}"
                shape = stored.get_slice(key).get_shape() if key in names else "none"
                if shape != list(master.shape):
                    raise EngineError(
                        f"The saved learner in {directory} belongs to another model: for {name} it "
                        f"has {shape}, not {list(master.shape)}. Resume with the run's own recipe."
                    )
                master.copy_(stored.get_tensor(key))
            self._optimizer.restore(names, stored.get_tensor)
        self._weights.write()

    def close(self) -> None:
        """Take the hooks off the model and drop masters, gradients and moments."""
        self.drop_gradients()
        self._weights.close()
        self._optimizer.close()
        self._masters.clear()


class WholeWeights:
    """All of a model's trainable weights.

    With a float32 model that stays on its device the masters are the model's own parameters.
    Otherwise they are copies: every micro-batch's gradient is added to a float32 gradient of the
    master as soon as autograd has it, and freed; after a step the masters are rounded into the
    model. See decisions 2 and 12 in docs/decisions.
    """

    def __init__(self, model: nn.Module, *, seed: int, offload: bool) -> None:
        """`offload` keeps the masters and all that follows from them on the CPU.

        The seed decides which way each weight is rounded.
        """
        self._parameters = {n: p for n, p in model.named_parameters() if p.requires_grad}
        floats = all(p.dtype == torch.float32 for p in self._parameters.values())
        self._hooks: list[torch.utils.hooks.RemovableHandle] = []
        self.masters = dict(self._parameters)
        self._shares_model = floats and not offload
        if self._shares_model:
            return
        self._rounding = StochasticRounding(seed)
        device = torch.device("cpu") if offload else None
        for name, parameter in self._parameters.items():
            copy = parameter.detach().to(device=device, dtype=torch.float32, copy=True)
            self.masters[name] = nn.Parameter(copy)
            register: Any = parameter.register_post_accumulate_grad_hook
            self._hooks.append(register(partial(_move_gradient, self.masters[name])))

    @torch.no_grad()
    def write(self) -> None:
        """Round the masters into the model."""
        if not self._shares_model:
            for name, parameter in self._parameters.items():
                self._rounding.write(name, self.masters[name], parameter)

    def drop_gradients(self) -> None:
        """Forget gradients that are at the model's own parameters."""
        for parameter in self._parameters.values():
            parameter.grad = None

    def close(self) -> None:
        """Take the hooks off the model, which keeps its weights."""
        for hook in self._hooks:
            hook.remove()


def _move_gradient(master: nn.Parameter, parameter: nn.Parameter) -> None:
    """Add the parameter's fresh gradient to its master's in float32, and free it."""
    fresh, parameter.grad = parameter.grad, None
    if fresh is None:
        return
    if master.grad is None:
        master.grad = fresh.to(device=master.device, dtype=torch.float32)
    else:
        master.grad.add_(fresh.to(master.device))
