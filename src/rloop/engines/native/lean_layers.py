"""Norms and feed-forward blocks that save less for the backward pass than transformers' own.

A root-mean-square norm saves its input in the model's precision and nothing in float32. A
feed-forward block saves gate and up, and computes their product again. On SmolLM2-135M this makes
activations two fifths smaller. The forward pass gives the same numbers, to the bit.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol

import torch
from torch import nn
from torch.nn import functional as F
from transformers import PreTrainedModel

from rloop.engines.native.cpu.decode import ARCHITECTURES

Forward = Callable[[torch.Tensor], torch.Tensor]


@contextmanager
def lean_layers(model: PreTrainedModel) -> Iterator[None]:
    """Make Llama-like models save less in norms and feed-forward blocks inside the context."""
    is_known = isinstance(model, ARCHITECTURES)
    is_silu = is_known and model.config.hidden_act in ("silu", "swish")
    replaced: list[Any] = []
    for module in model.modules() if is_known else ():
        foreign: Any = module
        if hasattr(module, "variance_epsilon"):
            foreign.forward = _norm_of(foreign)
        elif is_silu and hasattr(module, "gate_proj") and foreign.down_proj.bias is None:
            foreign.forward = _feed_forward_of(foreign)
        else:
            continue
        replaced.append(foreign)
    try:
        yield
    finally:
        for foreign in replaced:
            del foreign.forward


def _norm_of(module: nn.Module) -> Forward:
    foreign: Any = module
    apply: Callable[..., torch.Tensor] = _Norm.apply
    return lambda hidden: apply(hidden, foreign.weight, foreign.variance_epsilon)


def _feed_forward_of(module: nn.Module) -> Forward:
    foreign: Any = module
    gate, up, down = foreign.gate_proj, foreign.up_proj, foreign.down_proj
    apply: Callable[..., torch.Tensor] = _GatedLinear.apply
    return lambda hidden: apply(gate(hidden), up(hidden), down.weight)


class _Context(Protocol):
    """What autograd carries from the forward to the backward pass."""

    eps: float
    needs_input_grad: tuple[bool, ...]
    saved_tensors: tuple[torch.Tensor, ...]

    def save_for_backward(self, *tensors: torch.Tensor) -> None: ...


class _Norm(torch.autograd.Function):
    """y = weight * x / rms(x) over the last axis (arXiv 1910.07467)."""

    @staticmethod
    def forward(
        ctx: _Context, hidden: torch.Tensor, weight: torch.Tensor, eps: float
    ) -> torch.Tensor:
        """Return y, [..., D] as the input, rounded where transformers rounds."""
        ctx.eps = eps
        ctx.save_for_backward(hidden, weight)
        normed = hidden.float()
        normed = normed * _inverse_rms(normed, eps)
        return weight * normed.to(hidden.dtype)

    @staticmethod
    def backward(ctx: _Context, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        """With n = x / rms(x) and p = weight * dy: dx = (p - n mean(p n)) / rms(x)."""
        hidden, weight = ctx.saved_tensors
        normed, pull = hidden.float(), grad.float()
        inverse = _inverse_rms(normed, ctx.eps)
        normed = normed * inverse
        product = pull * normed
        grad_weight = product.flatten(0, -2).sum(0).to(weight.dtype)
        if not ctx.needs_input_grad[0]:
            return None, grad_weight, None
        mean = product.mul_(weight).mean(-1, keepdim=True)
        grad_hidden = (pull * weight).sub_(normed.mul_(mean)).mul_(inverse)
        return grad_hidden.to(hidden.dtype), grad_weight, None


def _inverse_rms(hidden: torch.Tensor, eps: float) -> torch.Tensor:
    return torch.rsqrt(hidden.pow(2).mean(-1, keepdim=True) + eps)


class _GatedLinear(torch.autograd.Function):
    """y = (silu(gate) * up) W^T."""

    @staticmethod
    def forward(
        ctx: _Context, gate: torch.Tensor, up: torch.Tensor, weight: torch.Tensor
    ) -> torch.Tensor:
        """Return y, [..., D], from gate and up, [..., I], and the weight, [D, I]."""
        ctx.save_for_backward(gate, up, weight)
        return F.linear(F.silu(gate).mul_(up), weight)

    @staticmethod
    def backward(ctx: _Context, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        """Return the gradients of gate, up and weight."""
        gate, up, weight = ctx.saved_tensors
        opened, pull = F.silu(gate), grad @ weight
        grad_gate = torch.ops.aten.silu_backward(pull * up, gate)
        grad_up = pull.mul_(opened)
        if not ctx.needs_input_grad[2]:
            return grad_gate, grad_up, None
        product = opened.mul_(up).flatten(0, -2)
        return grad_gate, grad_up, grad.flatten(0, -2).t() @ product
