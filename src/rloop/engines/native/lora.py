"""LoRA (arXiv 2106.09685): only a low-rank change of each linear layer's weight is trained.

Shape letters: O outputs and I inputs of a linear layer, R rank.

    W = W_start + alpha / R * B A

The model always has the merged W, rounded after each step, so that sampler, learner and everything
that saves or serves it see one plain model, to the bit. Autograd gives the gradient G of W, from
which the adapter's follow: dB = alpha / R * G A^T and dA = alpha / R * B^T G. See
docs/explanation/decisions/0007-adapters-are-merged-at-each-step.md.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from math import sqrt
from typing import Any, cast

import torch
from torch import nn
from transformers import PreTrainedModel

from rloop.errors import EngineError
from rloop.policies.rounding import StochasticRounding
from rloop.recipe.engine import LoraConfig
from rloop.types import stable_hash


@dataclass(frozen=True, slots=True, kw_only=True)
class Adapter:
    """The low-rank change of one weight matrix."""

    weight_OI: nn.Parameter
    """The model's own weight, in its precision."""
    start_OI: torch.Tensor
    """The weight at the start of the phase, in the same precision; on the CPU if offloaded,
    page-locked for a GPU."""
    a_RI: nn.Parameter
    """Float32; random at the start of a phase."""
    b_OR: nn.Parameter
    """Float32; zero at the start of a phase, so that the first policy is the start policy."""
    scale: float
    """alpha / rank."""

    def project(self, weight_OI: nn.Parameter) -> None:
        """Turn the weight's fresh gradient into the adapter's, and free it."""
        fresh, weight_OI.grad = weight_OI.grad, None
        if fresh is None:
            return
        grad_OI = fresh.float()
        grads = {
            self.a_RI: self.b_OR.detach().t() @ grad_OI,
            self.b_OR: grad_OI @ self.a_RI.detach().t(),
        }
        for factor, grad in grads.items():
            total = torch.zeros_like(factor) if factor.grad is None else factor.grad
            factor.grad = total.add_(grad, alpha=self.scale)

    def merged(self) -> torch.Tensor:
        """Return start plus change, float32 [O, I]."""
        start_OI = self.start_OI.to(self.weight_OI.device, non_blocking=True).float()
        return start_OI.addmm(self.b_OR, self.a_RI, alpha=self.scale)


class LowRankWeights:
    """Adapters on a model's linear layers; all other weights are frozen until `close`."""

    is_shared_out = False
    """Every process has all adapters, because they are small."""

    def __init__(
        self, model: PreTrainedModel, config: LoraConfig, *, seed: int, offload: bool
    ) -> None:
        """Start from the model as it is; `offload` keeps its start weights on the CPU.

        The seed decides the adapters' initial values and how merged weights are rounded.
        """
        self._trainable = [p for p in model.parameters() if p.requires_grad]
        for parameter in self._trainable:
            parameter.requires_grad = False
        self._rounding = StochasticRounding(seed)
        self._adapters: dict[str, Adapter] = {}
        self._hooks: list[torch.utils.hooks.RemovableHandle] = []
        self.masters: dict[str, nn.Parameter] = {}
        self.holders = self.masters
        """Parameters at which the gradients of an update are summed."""
        for name, weight in target_weights(model, config).items():
            adapter = _fresh_adapter(weight, config, stable_hash(seed, name), offload=offload)
            weight.requires_grad = True
            register: Any = weight.register_post_accumulate_grad_hook
            self._hooks.append(register(adapter.project))
            self._adapters[name] = adapter
            self.masters |= {f"{name}.lora_A": adapter.a_RI, f"{name}.lora_B": adapter.b_OR}

    def hand_over(self) -> None:
        """Do nothing: the adapters and their gradients stay on the model's device."""

    @torch.no_grad()
    def write(self) -> None:
        """Merge every adapter into the model: one float32 matrix at a time."""
        for name, adapter in self._adapters.items():
            self._rounding.write(name, adapter.merged(), adapter.weight_OI)

    @contextmanager
    def at_start(self) -> Iterator[None]:
        """Make the model the start policy inside the block."""
        with torch.no_grad():
            for adapter in self._adapters.values():
                adapter.weight_OI.copy_(adapter.start_OI, non_blocking=True)
        try:
            yield
        finally:
            self.write()

    def drop_gradients(self) -> None:
        """Drop gradients that no hook has taken, from an interrupted backward pass."""
        for adapter in self._adapters.values():
            adapter.weight_OI.grad = None

    def close(self) -> None:
        """Leave the model as it is: a plain model that trains as a whole again."""
        for hook in self._hooks:
            hook.remove()
        for parameter in self._trainable:
            parameter.requires_grad = True
        self._adapters.clear()


def _fresh_adapter(
    weight_OI: nn.Parameter, config: LoraConfig, seed: int, *, offload: bool
) -> Adapter:
    """Return an adapter that changes nothing yet; A as in peft, uniform in 1 / sqrt(I)."""
    num_outputs, num_inputs = weight_OI.shape
    generator = torch.Generator().manual_seed(seed)
    uniform_RI = torch.rand(config.rank, num_inputs, generator=generator) * 2.0 - 1.0
    device = weight_OI.device
    start_OI = weight_OI.detach().to("cpu" if offload else device, copy=True)
    return Adapter(
        weight_OI=weight_OI,
        start_OI=start_OI.pin_memory() if offload and weight_OI.is_cuda else start_OI,
        a_RI=nn.Parameter((uniform_RI / sqrt(num_inputs)).to(device)),
        b_OR=nn.Parameter(torch.zeros(num_outputs, config.rank, device=device)),
        scale=config.alpha / config.rank,
    )


def target_weights(model: PreTrainedModel, config: LoraConfig) -> dict[str, nn.Parameter]:
    """Return the weights that get an adapter, by their layer's name.

    As in peft, `target_modules` are last parts of names, such as `q_proj`; by default all linear
    layers but the output embedding.
    """
    foreign: Any = model
    head = foreign.get_output_embeddings()
    weights: dict[str, nn.Parameter] = {
        name: cast(nn.Parameter, module.weight)
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and module is not head
    }
    known = sorted({name.rpartition(".")[2] for name in weights})
    wanted = known if config.target_modules is None else config.target_modules
    unknown = sorted(set(wanted) - set(known))
    if unknown or not known:
        raise EngineError(
            f"engine.lora.target_modules names {unknown}, which this {model.config.model_type} "
            f"model does not have. Its linear layers: {', '.join(known) or 'none'}."
        )
    return {name: weight for name, weight in weights.items() if name.rpartition(".")[2] in wanted}
