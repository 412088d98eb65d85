"""Float32 master weights: what the optimizer steps on, its moments, and their state on disk.

With a float32 model that stays on its device the masters are the model's own parameters. Otherwise
they are copies: every micro-batch's gradient is added to a float32 gradient of the master as soon
as autograd has it, and freed; after a step the masters are rounded into the model. See
docs/decisions/0002-one-model-float32-masters.md.
"""

import json
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import nn

from rloop.config import OptimizerConfig
from rloop.errors import EngineError

TENSORS_FILE = "learner.safetensors"
COUNTERS_FILE = "learner.json"
MOMENTS = ("exp_avg", "exp_avg_sq")


class MasterWeights:
    """The model's trainable parameters in float32, with AdamW."""

    def __init__(self, model: nn.Module, config: OptimizerConfig, *, offload: bool) -> None:
        """Take the masters from the model; `offload` keeps them and all that follows on the CPU.

        Weight decay acts on matrices only, not on norms and biases. Frozen parameters are left
        alone.
        """
        self._parameters = {n: p for n, p in model.named_parameters() if p.requires_grad}
        floats = all(p.dtype == torch.float32 for p in self._parameters.values())
        self._shares_model = floats and not offload
        self._grad_clip = config.grad_clip
        self._hooks: list[torch.utils.hooks.RemovableHandle] = []
        self._masters = dict(self._parameters)
        if not self._shares_model:
            device = torch.device("cpu") if offload else None
            self._masters = {
                name: nn.Parameter(p.detach().to(device=device, dtype=torch.float32, copy=True))
                for name, p in self._parameters.items()
            }
            self._collect_gradients()
        matrices = [p for p in self._masters.values() if p.dim() > 1]
        vectors = [p for p in self._masters.values() if p.dim() <= 1]
        groups = [
            {"params": matrices, "weight_decay": config.weight_decay},
            {"params": vectors, "weight_decay": 0.0},
        ]
        self._optimizer = torch.optim.AdamW([g for g in groups if g["params"]], fused=True)

    def _collect_gradients(self) -> None:
        """Add each gradient to its master's as soon as autograd has summed it, and free it."""

        for name, parameter in self._parameters.items():
            register: Any = parameter.register_post_accumulate_grad_hook
            self._hooks.append(register(partial(_move_gradient, self._masters[name])))

    def grad_norm(self) -> float:
        """Return the global norm of the accumulated gradient; NaN or inf where it is broken."""
        grads = [p.grad for p in self._masters.values() if p.grad is not None]
        return float(nn.utils.get_total_norm(grads)) if grads else 0.0

    def step(self, *, learning_rate: float, grad_norm: float) -> None:
        """Clip by the given norm, do one AdamW step, round into the model, forget the gradient."""
        if self._grad_clip > 0.0:
            nn.utils.clip_grads_with_norm_(
                self._masters.values(), self._grad_clip, torch.tensor(grad_norm)
            )
        for group in self._optimizer.param_groups:
            group["lr"] = learning_rate
        self._optimizer.step()
        self._round_into_model()
        self.drop_gradients()

    def drop_gradients(self) -> None:
        """Forget the accumulated gradient."""
        for parameter in (*self._masters.values(), *self._parameters.values()):
            parameter.grad = None

    @torch.no_grad()
    def _round_into_model(self) -> None:
        if not self._shares_model:
            for name, parameter in self._parameters.items():
                parameter.copy_(self._masters[name])

    def save(self, directory: Path, counters: dict[str, int]) -> None:
        """Write masters, moments and counters to an existing directory."""
        tensors = {f"master.{name}": master.detach() for name, master in self._masters.items()}
        for name, master in self._masters.items():
            state = self._optimizer.state.get(master, {})
            tensors |= {f"{moment}.{name}": state[moment] for moment in MOMENTS if state}
            tensors |= {f"step.{name}": state["step"].reshape(1)} if state else {}
        save_file(
            {key: tensor.contiguous() for key, tensor in tensors.items()}, directory / TENSORS_FILE
        )
        (directory / COUNTERS_FILE).write_text(json.dumps(counters, indent=2), encoding="utf-8")

    @torch.no_grad()
    def load(self, directory: Path) -> dict[str, int]:
        """Continue from a saved state, to the bit; the model gets the masters' weights."""
        counters: dict[str, int] = json.loads(
            (directory / COUNTERS_FILE).read_text(encoding="utf-8")
        )
        tensors = load_file(directory / TENSORS_FILE)
        for name, master in self._masters.items():
            saved = tensors.get(f"master.{name}")
            if saved is None or saved.shape != master.shape:
                found = "none" if saved is None else list(saved.shape)
                raise EngineError(
                    f"The saved learner in {directory} belongs to another model: for {name} it has "
                    f"{found}, not {list(master.shape)}. Resume with the run's own recipe."
                )
            master.copy_(saved)
            if f"step.{name}" in tensors:
                state = {
                    moment: tensors[f"{moment}.{name}"].to(master.device) for moment in MOMENTS
                }
                step = tensors[f"step.{name}"].reshape(()).to(master.device)
                self._optimizer.state[master] = {"step": step, **state}
        self._round_into_model()
        return counters

    def close(self) -> None:
        """Take the hooks off the model and drop masters, gradients and moments."""
        for hook in self._hooks:
            hook.remove()
        self.drop_gradients()
        self._optimizer.state.clear()
        self._masters.clear()


def _move_gradient(master: nn.Parameter, parameter: nn.Parameter) -> None:
    """Add the parameter's fresh gradient to its master's in float32, and free it."""
    fresh, parameter.grad = parameter.grad, None
    if fresh is None:
        return
    if master.grad is None:
        master.grad = fresh.to(device=master.device, dtype=torch.float32)
    else:
        master.grad.add_(fresh.to(master.device))
