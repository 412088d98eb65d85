"""Find policies that have become NaN or infinite, before they are saved and when they are
loaded."""

from collections.abc import Mapping

import torch
from transformers import PreTrainedModel

from rloop.errors import NonFinitePolicy


def check_finite(weights: Mapping[str, torch.Tensor], what: str) -> None:
    """Raise NonFinitePolicy unless every weight is finite; `what` names them in its message.

    One sum per tensor, in float64 so that the sum itself cannot overflow: NaN and infinities
    survive it. Apple GPUs know no float64: there every weight is looked at.
    """
    broken = nonfinite_names(weights)
    if broken:
        raise NonFinitePolicy(
            f"{what} has NaN or infinite weights ({len(broken)} of {len(weights)} tensors, such as "
            f"{broken[0]}). Use an earlier policy, and lower the learning rate of its training."
        )


def nonfinite_names(weights: Mapping[str, torch.Tensor]) -> list[str]:
    """Return the names of tensors that hold a NaN or an infinity."""
    found = {
        name: weight.detach().isfinite().all()
        if weight.is_mps
        else weight.detach().sum(dtype=torch.float64).isfinite()
        for name, weight in weights.items()
        if weight.is_floating_point()
    }
    return [name for name, is_finite in found.items() if not is_finite]


@torch.no_grad()
def check_logits(model: PreTrainedModel, what: str) -> None:
    """Raise NonFinitePolicy unless a probe's logits are finite, because finite weights can
    overflow.

    The mean square in a norm can overflow too, which makes every logit zero.
    """
    num_tokens = model.config.vocab_size
    ids = torch.tensor([[place * 7919 % num_tokens for place in range(16)]], device=model.device)
    logits = model(input_ids=ids, use_cache=False).logits
    if not (logits.isfinite().all() and logits.any()):
        raise overflowing(what, "logits")


def overflowing(what: str, numbers: str) -> NonFinitePolicy:
    """Return the error for a policy whose numbers on a probe are NaN, infinite or all zero."""
    return NonFinitePolicy(
        f"{what} gives {numbers} on a probe that are NaN, infinite or all zero: its weights have "
        f"grown until they overflow. Lower the learning rate of its training."
    )
