"""The optimizer: float32 master weights, AdamW on them, and their state on disk.

Masters are the model's own weights (`WholeWeights`) or low-rank changes of them (`lora.py`). With
several processes, each has the masters and moments of a part of the weights (ZeRO, arXiv
1910.02054, stage 1), does their step and sends the others the new weights.
"""

from collections.abc import Mapping
from contextlib import AbstractContextManager, ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn
from transformers import PreTrainedModel

from rloop.engines.native.lora import LowRankWeights
from rloop.engines.native.ranks import Ranks
from rloop.errors import EngineError
from rloop.policies.rounding import StochasticRounding
from rloop.recipe.config import OptimizerConfig
from rloop.recipe.engine import EngineConfig

TENSORS_FILE = "learner{}.safetensors"
"""File of rank 0; `learner-1.safetensors` has the part of rank 1."""
MOMENTS = ("exp_avg", "exp_avg_sq")


class MasterWeights:
    """Masters with AdamW."""

    def __init__(
        self,
        model: PreTrainedModel,
        config: OptimizerConfig,
        engine: EngineConfig,
        *,
        seed: int,
        ranks: Ranks | None = None,
    ) -> None:
        """Take the masters from the model, which is identical in all processes.

        The seed decides the initial values of adapters, and how weights are rounded.
        """
        offload = engine.offload_optimizer
        self._ranks = ranks
        self._weights: WholeWeights | LowRankWeights = (
            WholeWeights(model, seed=seed, offload=offload, ranks=ranks)
            if engine.lora is None
            else LowRankWeights(model, engine.lora, seed=seed, offload=offload)
        )
        self._masters = self._weights.masters
        self._grad_clip = config.grad_clip
        self._optimizer = make_adamw(self._masters, config)

    def grad_norm(self) -> float:
        """Return the global norm of the accumulated gradient; NaN or inf if it is not finite."""
        grads = [p.grad for p in self._weights.holders.values() if p.grad is not None]
        return float(nn.utils.get_total_norm(grads)) if grads else 0.0

    def add_gradients(self, ranks: Ranks) -> None:
        """Add the gradients that the other processes have accumulated."""
        grads = []
        for holder in self._weights.holders.values():
            if holder.grad is None:
                holder.grad = torch.zeros(holder.shape, device=holder.device)
            grads.append(holder.grad)
        ranks.add(grads)

    def step(self, *, learning_rate: float, grad_norm: float) -> None:
        """Clip by the given norm, do one AdamW step, round into the model, drop the gradient."""
        if self._grad_clip > 0.0:
            nn.utils.clip_grads_with_norm_(
                self._weights.holders.values(), self._grad_clip, torch.tensor(grad_norm)
            )
        self._weights.hand_over()
        for group in self._optimizer.param_groups:
            group["lr"] = learning_rate
        self._optimizer.step()
        self._weights.write()
        self.drop_gradients()

    def drop_gradients(self) -> None:
        """Drop the accumulated gradient."""
        self._weights.drop_gradients()
        for parameter in (*self._weights.holders.values(), *self._masters.values()):
            parameter.grad = None

    def at_start(self) -> AbstractContextManager[None]:
        """Make the model the phase's start policy inside the block; only with adapters."""
        assert isinstance(self._weights, LowRankWeights), "whole weights keep no start policy"
        return self._weights.at_start()

    def save(self, directory: Path) -> None:
        """Write masters, moments and step counts to an existing directory, one file per process.

        Rank 0 writes the parts of all. An error is raised after the others have sent theirs.
        """
        tensors = {f"master.{name}": master.detach() for name, master in self._masters.items()}
        for name, master in self._masters.items():
            for kind, value in self._optimizer.state.get(master, {}).items():
                tensors[f"{kind}.{name}"] = value.reshape(1) if value.dim() == 0 else value
        if self._ranks is None:
            _write(tensors, directory, 0)
            return
        error: Exception | None = None
        for owner in range(self._ranks.size if self._weights.is_shared_out else 1):
            found = self._ranks.fetch(tensors, owner)
            try:
                if found and error is None:
                    _write(found, directory, owner)
            except (OSError, SafetensorError) as failed:
                error = failed
        if error is not None:
            raise error

    @torch.no_grad()
    def load(self, directory: Path) -> None:
        """Continue from a saved state, to the bit; the model gets the masters' weights.

        Any number of processes may have written it. It is read tensor by tensor, because it is
        three times as large as the masters.
        """
        paths = sorted(directory.glob(TENSORS_FILE.format("*"))) or [directory]
        with ExitStack() as stack:
            files = [stack.enter_context(safe_open(path, framework="pt")) for path in paths]
            stored = {key: file for file in files for key in file.keys()}  # noqa: SIM118 (no dict)
            for name, master in self._masters.items():
                key = f"master.{name}"
                shape = stored[key].get_slice(key).get_shape() if key in stored else "none"
                if shape != list(master.shape):
                    raise EngineError(
                        f"The saved learner in {directory} belongs to another model: for {name} it "
                        f"has {shape}, not {list(master.shape)}. Resume with the run's own recipe."
                    )
                master.copy_(stored[key].get_tensor(key))
                if (key := f"step.{name}") not in stored:
                    continue
                step = stored[key].get_tensor(key).reshape(()).to(master.device)
                state = self._optimizer.state[master] = {"step": step}
                for moment in MOMENTS:
                    key = f"{moment}.{name}"
                    state[moment] = torch.zeros_like(master)
                    state[moment].copy_(stored[key].get_tensor(key))
        self._weights.write()

    def close(self) -> None:
        """Remove the hooks from the model and drop masters, gradients and moments."""
        self.drop_gradients()
        self._weights.close()
        self._optimizer.state.clear()
        self._optimizer.param_groups.clear()
        self._masters.clear()


def _write(tensors: Mapping[str, torch.Tensor], directory: Path, owner: int) -> None:
    whole = {key: tensor.contiguous() for key, tensor in tensors.items()}
    save_file(whole, directory / TENSORS_FILE.format(f"-{owner}" if owner else ""))


def resident_bytes(model: PreTrainedModel, config: EngineConfig) -> int:
    """Return the bytes that a learner of all weights keeps on the model's device between updates; 0
    for offloaded masters and, approximately, for adapters.
    """
    if config.offload_optimizer or config.lora is not None:
        return 0
    masters = 0 if model.dtype == torch.float32 else 4
    return model.num_parameters() * (masters + 4 * len(MOMENTS))


def make_adamw(masters: Mapping[str, nn.Parameter], config: OptimizerConfig) -> torch.optim.AdamW:
    """Return AdamW with moments of zero; weight decay acts on matrices, not on norms and biases."""
    matrices = [p for p in masters.values() if p.dim() > 1]
    vectors = [p for p in masters.values() if p.dim() <= 1]
    groups = [
        {"params": matrices, "weight_decay": config.weight_decay},
        {"params": vectors, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW([group for group in groups if group["params"]], fused=True)


class WholeWeights:
    """All of a model's trainable weights.

    With a float32 model that stays on its device the masters are the model's own parameters.
    Otherwise they are copies: every micro-batch's gradient is added to a float32 sum on the model's
    device as soon as autograd has it, and freed; after a step the masters are rounded into the
    model. Offloaded masters get that sum, and the model their weights, once an update, through
    memory that a GPU can read and write by itself. See decisions 2, 12 and 13.
    """

    def __init__(
        self, model: nn.Module, *, seed: int, offload: bool, ranks: Ranks | None = None
    ) -> None:
        """`offload` keeps the masters and moments on the CPU.

        The seed decides how each weight is rounded.
        """
        self._parameters = {n: p for n, p in model.named_parameters() if p.requires_grad}
        self._ranks = ranks
        self._owners = _owners(self._parameters, 1 if ranks is None else ranks.size)
        number = 0 if ranks is None else ranks.rank
        mine = {n: p for n, p in self._parameters.items() if self._owners[n] == number}
        floats = all(p.dtype == torch.float32 for p in self._parameters.values())
        self._hooks: list[torch.utils.hooks.RemovableHandle] = []
        self._transit: dict[str, torch.Tensor] = {}
        self.masters = mine
        """Masters of the weights whose step is done in this process."""
        self.holders = dict(self._parameters)
        """Parameters at which the gradients of an update are summed, of all weights."""
        self._shares_model = floats and not offload
        if self._shares_model:
            return
        self._rounding = StochasticRounding(seed)
        device = torch.device("cpu") if offload else None
        for name, parameter in mine.items():
            copy = parameter.detach().to(device=device, dtype=torch.float32, copy=True)
            self.masters[name] = nn.Parameter(copy)
        for name, parameter in self._parameters.items():
            is_apart = offload or name not in self.masters
            self.holders[name] = _holder(parameter) if is_apart else self.masters[name]
            register: Any = parameter.register_post_accumulate_grad_hook
            self._hooks.append(register(partial(_move_gradient, self.holders[name])))

    @property
    def is_shared_out(self) -> bool:
        """Whether other processes have masters of other weights."""
        return self._ranks is not None

    @torch.no_grad()
    def hand_over(self) -> None:
        """Copy the gradient, summed on the model's device, to offloaded masters.

        Gradients whose masters another process has are dropped.
        """
        for name, holder in self.holders.items():
            master = self.masters.get(name)
            if master is holder:
                continue
            if master is not None and holder.grad is not None:
                room = self._room(name, torch.float32)
                master.grad = room.copy_(holder.grad, non_blocking=holder.is_cuda)
            holder.grad = None
        if self._transit and torch.cuda.is_available():
            torch.cuda.synchronize()

    @torch.no_grad()
    def write(self) -> None:
        """Round the masters into the model; offloaded masters then drop their gradients."""
        for name, master in self.masters.items() if not self._shares_model else ():
            parameter = self._parameters[name]
            if self.holders[name] is master:
                self._rounding.write(name, master, parameter)
                continue
            master.grad = None  # the rounded weights reuse its memory
            room = self._room(name, parameter.dtype)
            self._rounding.write(name, master, room)
            parameter.copy_(room, non_blocking=parameter.is_cuda)
        if self._ranks is not None:
            pairs = [(p.data, self._owners[name]) for name, p in self._parameters.items()]
            self._ranks.spread(pairs)

    def drop_gradients(self) -> None:
        """Drop gradients of the model's own parameters."""
        for parameter in self._parameters.values():
            parameter.grad = None

    def close(self) -> None:
        """Remove the hooks from the model, which keeps its weights."""
        for hook in self._hooks:
            hook.remove()
        self._transit.clear()

    def _room(self, name: str, dtype: torch.dtype) -> torch.Tensor:
        """Return CPU memory through which a weight and its gradient pass in turn; page-locked for a
        GPU, so that copies are asynchronous.
        """
        parameter = self._parameters[name]
        if name not in self._transit:
            self._transit[name] = torch.empty(parameter.numel(), pin_memory=parameter.is_cuda)
        return self._transit[name].view(dtype)[: parameter.numel()].view(parameter.shape)


def _owners(parameters: Mapping[str, nn.Parameter], size: int) -> dict[str, int]:
    """Return the process that has the masters of each weight: largest first, to the process with
    the least."""
    totals, owners = [0] * size, {}
    for name in sorted(parameters, key=lambda name: -parameters[name].numel()):
        owners[name] = totals.index(min(totals))
        totals[owners[name]] += parameters[name].numel()
    return owners


def _holder(parameter: nn.Parameter) -> nn.Parameter:
    """Return a float32 parameter of that shape on that device that uses no memory itself."""
    number = torch.zeros((), device=parameter.device)
    return nn.Parameter(number.expand(parameter.shape))


def _move_gradient(holder: nn.Parameter, parameter: nn.Parameter) -> None:
    """Add the parameter's fresh gradient to the holder's in float32, and free it."""
    fresh, parameter.grad = parameter.grad, None
    if fresh is None:
        return
    if holder.grad is None:
        holder.grad = fresh.to(torch.float32)
    else:
        holder.grad.add_(fresh)
