"""Output rows without a token: many models pad their embedding to a round number.

Sampler and learner both leave them out, so that they use the same distribution. Their ids are an
attribute of the output embedding, from which both get their logits, and not one of its weights.

Shape letters: B rows, V vocabulary.
"""

from typing import Any

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

MASKED = -1e30
"""Logit of a row that is left out. Finite, so that probability times logit is 0 in an entropy."""
BUFFER = "unknown_ids"


def leave_out_unknown(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, *, known: tuple[int, ...] = ()
) -> None:
    """Leave tokens out of the model's distribution that are neither in the tokenizer nor in
    `known`."""
    head = _head(model)
    if head is None:
        return
    tokens = {*tokenizer.get_vocab().values(), *known}
    unknown = [token for token in range(head.weight.shape[0]) if token not in tokens]
    if unknown:
        leave_out(model, torch.tensor(unknown))


def leave_out(model: PreTrainedModel, ids: torch.Tensor) -> None:
    """Leave the ids, ascending, out of the model's distribution."""
    head = _head(model)
    head.register_buffer(BUFFER, ids.to(head.weight.device), persistent=False)


def unknown_ids(model: PreTrainedModel) -> torch.Tensor | None:
    """Return the ids left out, ascending; None where there are none."""
    ids: torch.Tensor | None = getattr(_head(model), BUFFER, None)
    return ids


def output_bias(model: PreTrainedModel) -> torch.Tensor | None:
    """Return the output embedding's bias [V] with the left-out rows masked; None if there is
    none."""
    head, unknown = _head(model), unknown_ids(model)
    bias: torch.Tensor | None = head.bias
    if unknown is None:
        return bias
    bias_V = head.weight.new_zeros(len(head.weight)) if bias is None else bias
    return bias_V.index_fill(0, unknown, MASKED)


def mask_unknown(logits_BV: torch.Tensor, unknown: torch.Tensor | None) -> torch.Tensor:
    """Return the logits with the left-out rows masked in place."""
    return logits_BV if unknown is None else logits_BV.index_fill_(-1, unknown, MASKED)


def _head(model: PreTrainedModel) -> Any:  # noqa: ANN401 (transformers' attributes have no types)
    foreign: Any = model
    return foreign.get_output_embeddings()
