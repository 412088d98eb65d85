"""Training sequences, cut into micro-batches, and their forward pass.

Shape letters: B sequences of a micro-batch, T tokens, N completion tokens of all B, V vocabulary,
D model width.

Rows are padded on the right and no mask is passed: attention is causal, so no real token sees a
pad, and nothing is computed for pads beyond the transformer's own layers.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from transformers import PreTrainedModel

from rloop.engines.native.logprobs import TokenLogprobs, linear_logprobs
from rloop.errors import EngineError

PAD_ID = 0
"""Any valid token id: pads are never attended to."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingSequence:
    """A prompt and a completion to learn from.

    Example: TrainingSequence(prompt_ids=(5, 9), completion_ids=(6, 0), behavior_logprobs=(-0.1,
    -0.02), advantage=1.5)
    """

    prompt_ids: Sequence[int]
    completion_ids: Sequence[int]
    """[T] ids, EOS included where the completion stopped."""
    behavior_logprobs: Sequence[float] | None = None
    """[T] by the sampler, as stored; None in SFT."""
    reference_logprobs: Sequence[float] | None = None
    """[T] by the policy that the divergence is measured from; needed when `kl_coef` > 0."""
    advantage: float = 0.0
    """Compared with its group; unused by `sft`."""
    weight: float = 1.0
    """Weight of its tokens; used by `sft` only."""

    @property
    def num_tokens(self) -> int:
        """Length of prompt and completion."""
        return len(self.prompt_ids) + len(self.completion_ids)


@dataclass(frozen=True, slots=True, kw_only=True)
class MicroBatch:
    """Sequences that go through the model together, on its device."""

    indices_B: tuple[int, ...]
    """Where each stands in the list that was cut."""
    sequences_B: tuple[TrainingSequence, ...]
    input_ids_BT: torch.Tensor
    predicting_N: torch.Tensor
    """Positions in the flattened [B * T] whose output predicts a completion token."""
    targets_N: torch.Tensor
    """Those completion tokens."""

    @property
    def lengths_B(self) -> tuple[int, ...]:
        """Completion tokens of each sequence."""
        return tuple(len(sequence.completion_ids) for sequence in self.sequences_B)

    def gather(self, numbers: Callable[[TrainingSequence], Sequence[float]]) -> torch.Tensor:
        """Return per-token numbers of all sequences as float32 [N]."""
        flat = [number for sequence in self.sequences_B for number in numbers(sequence)]
        return torch.tensor(flat, dtype=torch.float32, device=self.targets_N.device)

    def repeat(self, number: Callable[[TrainingSequence], float]) -> torch.Tensor:
        """Return one number of each sequence, repeated for each of its tokens, as float32 [N]."""
        return self.gather(lambda sequence: [number(sequence)] * len(sequence.completion_ids))


def plan_microbatches(lengths: Sequence[int], max_tokens: int) -> list[list[int]]:
    """Part sequences of these lengths into lists of indices of at most `max_tokens`, padded.

    Longest first, so that memory peaks at once, and neighbours in length together, so that little
    is padded; equal lengths stay in order. A sequence longer than `max_tokens` goes alone.
    """
    plan: list[list[int]] = []
    for index in sorted(range(len(lengths)), key=lambda index: -lengths[index]):
        if plan and (len(plan[-1]) + 1) * lengths[plan[-1][0]] <= max_tokens:
            plan[-1].append(index)
        else:
            plan.append([index])
    return plan


def form_microbatches(
    sequences: Sequence[TrainingSequence], max_tokens: int, device: torch.device
) -> Iterator[MicroBatch]:
    """Cut the sequences into micro-batches of at most `max_tokens`, padding included."""
    for indices in plan_microbatches([s.num_tokens for s in sequences], max_tokens):
        yield _collate(tuple(indices), tuple(sequences[index] for index in indices), device)


def _collate(
    indices_B: tuple[int, ...], sequences_B: tuple[TrainingSequence, ...], device: torch.device
) -> MicroBatch:
    """Pad to the longest, which stands first."""
    width = sequences_B[0].num_tokens
    rows: list[list[int]] = []
    predicting: list[int] = []
    targets: list[int] = []
    for row, sequence in enumerate(sequences_B):
        ids = [*sequence.prompt_ids, *sequence.completion_ids]
        rows.append(ids + [PAD_ID] * (width - len(ids)))
        # the token before a completion token predicts it: the prompt's last, and all but the last
        first = row * width + len(sequence.prompt_ids) - 1
        predicting.extend(range(first, first + len(sequence.completion_ids)))
        targets.extend(sequence.completion_ids)
    return MicroBatch(
        indices_B=indices_B,
        sequences_B=sequences_B,
        input_ids_BT=torch.tensor(rows, device=device),
        predicting_N=torch.tensor(predicting, device=device),
        targets_N=torch.tensor(targets, device=device),
    )


def completion_logprobs(
    model: PreTrainedModel, batch: MicroBatch, temperature: float
) -> TokenLogprobs:
    """Return log-probability and entropy of each completion token, [N], from one forward pass."""
    hidden_BTD = _hidden_states(model, batch.input_ids_BT)
    head = output_embedding(model)
    return linear_logprobs(
        hidden_BTD.flatten(0, 1)[batch.predicting_N],
        head.weight,
        head.bias,
        batch.targets_N,
        temperature=temperature,
    )


def output_embedding(model: PreTrainedModel) -> torch.nn.Linear:
    """Return the module that turns hidden states into logits; raise where there is none."""
    foreign: Any = model
    head = foreign.get_output_embeddings()
    if not isinstance(head, torch.nn.Linear) or model.base_model is model:
        raise EngineError(
            f"This {model.config.model_type} model has no linear output embedding on top of a base "
            "model, which the native learner needs. Choose a Llama-, Qwen- or Mistral-like model."
        )
    return head


def _hidden_states(model: PreTrainedModel, input_ids_BT: torch.Tensor) -> torch.Tensor:
    """Return the states that the output embedding reads, [B, T, D]."""
    position_ids = torch.arange(input_ids_BT.shape[1], device=input_ids_BT.device).unsqueeze(0)
    output = model.base_model(input_ids=input_ids_BT, position_ids=position_ids, use_cache=False)
    hidden_BTD: torch.Tensor = output.last_hidden_state
    return hidden_BTD


@torch.no_grad()
def sequence_logprobs(
    model: PreTrainedModel,
    sequences: Sequence[TrainingSequence],
    *,
    temperature: float,
    microbatch_tokens: int,
) -> list[tuple[float, ...]]:
    """Return the log-probabilities of each sequence's completion tokens, in order; no gradient.

    What a reference policy thinks, or a check of stored log-probabilities.
    """
    check_sequences(sequences)
    results: list[tuple[float, ...]] = [()] * len(sequences)
    for batch in form_microbatches(sequences, microbatch_tokens, model.device):
        numbers = completion_logprobs(model, batch, temperature).logprobs_N.tolist()
        ends = [0]
        for length in batch.lengths_B:
            ends.append(ends[-1] + length)
        for index, (start, end) in zip(batch.indices_B, pairwise(ends), strict=True):
            results[index] = tuple(numbers[start:end])
    return results


def check_sequences(sequences: Sequence[TrainingSequence]) -> None:
    """Raise when a sequence has nothing to learn or its per-token numbers do not fit its tokens."""
    for index, sequence in enumerate(sequences):
        num_tokens = len(sequence.completion_ids)
        if not sequence.prompt_ids or not num_tokens:
            raise EngineError(
                f"Training sequence {index} has {len(sequence.prompt_ids)} prompt and {num_tokens} "
                "completion tokens; both must be at least 1. Leave it out."
            )
        for name in ("behavior_logprobs", "reference_logprobs"):
            numbers = getattr(sequence, name)
            if numbers is not None and len(numbers) != num_tokens:
                raise EngineError(
                    f"Training sequence {index} has {num_tokens} completion_ids but {len(numbers)} "
                    f"{name}; store one for each token."
                )


@torch.no_grad()
def check_architecture(model: PreTrainedModel) -> None:
    """Raise unless the model's logits are its output embedding applied to its last hidden states.

    A probe, once: the output embedding's result is multiplied by 100 on its way out, so that a soft
    cap or a scale after it shows whatever the size of the weights.
    """
    head = output_embedding(model)
    kind = model.config.model_type
    vocabulary = head.weight.shape[0]
    input_ids_BT = (torch.arange(8, device=model.device) * 7919 % vocabulary).unsqueeze(0)
    handle = head.register_forward_hook(lambda _module, _inputs, output: output * 100.0)
    try:
        found: torch.Tensor = model(input_ids=input_ids_BT, use_cache=False).logits.float()
        expected = head(_hidden_states(model, input_ids_BT)).float()
    finally:
        handle.remove()
    difference = ((found - expected).norm() / expected.norm()).item()
    if not difference < 1e-2:
        raise EngineError(
            f"This {kind} model changes its logits after the output embedding (by {difference:.0%} "
            "on a probe, as soft caps and logit scales do), which the native learner does not. "
            "Choose a Llama-, Qwen- or Mistral-like model."
        )
