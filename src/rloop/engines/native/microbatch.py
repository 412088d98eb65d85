"""Training sequences, cut into micro-batches, and their forward pass.

Shape letters: B sequences of a micro-batch, R its rows, T tokens of a row, N completion tokens of
all B, V vocabulary, D model width.

On a CPU the rows of a micro-batch are packed, one behind the other, into one long row, and
attention is told what each token sees (`packed_attention.py`). Elsewhere they are padded on the
right; attention is causal, so no real token sees a pad, and nothing is computed for pads beyond the
transformer's own layers. Rows of one sequence then need no mask; rows in which sequences share
their prompt (`rows.py`) have one and go through the model together.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, pairwise
from math import inf, isfinite
from typing import Any, NamedTuple

import torch
from transformers import PreTrainedModel

from rloop.engines.base import TrainingSequence
from rloop.engines.native import attention
from rloop.engines.native.logprobs import TokenLogprobs, linear_logprobs
from rloop.engines.native.packed_attention import Span
from rloop.engines.native.rows import Row, plan_rows
from rloop.errors import EngineError
from rloop.policies.finite import check_logits, overflowing
from rloop.policies.vocabulary import output_bias

PAD_ID = 0
"""Any valid token id: pads are never attended to."""
PARITY_WIDTHS = 2.5
"""Length, in model widths, of a row whose masked attention costs as much as all other layers.
Counting operations gives 6: 24 D * D a token in the layers, 4 D a pair in attention, whose kernels
run at less than half the speed. Measured on CPU (D = 576): rows of 1024, 2048 and 4096 tokens cost
1.62, 2.33 and 4.16 times as much a token as short ones, which gives 2.3 to 2.9.
"""
PACK_TOKENS = 1024
"""Packed rows are not joined beyond this. Measured with 2,700 tokens of SmolLM2-135M on a busy
machine: one pass takes 5 % less processor time than three, and keeps 2.7 times as much."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MicroBatch:
    """Sequences that go through the model together, on its device."""

    indices_B: tuple[int, ...]
    """Where each stands in the list that was cut."""
    sequences_B: tuple[TrainingSequence, ...]
    input_ids_RT: torch.Tensor
    position_ids_RT: torch.Tensor
    """[1, T] where every row holds one sequence; else they restart after the prompt."""
    mask_R1TT: torch.Tensor | None
    """Added to attention's scores: 0 where a token (third axis) sees another (last axis), else
    -inf; None is plainly causal, within `spans` where there are any."""
    spans: tuple[Span, ...]
    """What sees what in a packed row; none where rows are padded."""
    predicting_N: torch.Tensor
    """Positions in the flattened [R * T] whose output predicts a completion token; a shared
    prompt's last predicts the first token of several."""
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
    """Part rows of these lengths into lists of indices of at most `max_tokens`, padded.

    Longest first, so that memory peaks at once, and neighbours in length together, so that little
    is padded; equal lengths stay in order. A row longer than `max_tokens` goes alone.
    """
    plan: list[list[int]] = []
    for index in sorted(range(len(lengths)), key=lambda index: -lengths[index]):
        if plan and (len(plan[-1]) + 1) * lengths[plan[-1][0]] <= max_tokens:
            plan[-1].append(index)
        else:
            plan.append([index])
    return plan


def plan_packs(lengths: Sequence[int], max_tokens: int) -> list[list[int]]:
    """Part rows of these lengths into lists of indices of at most `max_tokens`, nothing padded.

    First fit, longest first. A row longer than `max_tokens` goes alone.
    """
    plan: list[list[int]] = []
    totals: list[int] = []
    for index in sorted(range(len(lengths)), key=lambda index: -lengths[index]):
        length = lengths[index]
        place = next((i for i, t in enumerate(totals) if t + length <= max_tokens), len(plan))
        if place == len(plan):
            plan.append([])
            totals.append(0)
        plan[place].append(index)
        totals[place] += length
    return plan


def is_packed(model: PreTrainedModel) -> bool:
    """Whether the model's attention takes packed rows: on a CPU, where it is ours."""
    return model.device.type == "cpu" and model.config._attn_implementation == attention.NAME


def form_microbatches(
    sequences: Sequence[TrainingSequence], max_tokens: int, model: PreTrainedModel
) -> Iterator[MicroBatch]:
    """Cut the sequences into micro-batches of at most `max_tokens` for the model, pads included
    where there are any.
    """
    packed = is_packed(model)
    rows = plan_rows(
        [sequence.prompt_ids for sequence in sequences],
        [len(sequence.completion_ids) for sequence in sequences],
        max_tokens=max_tokens,
        # packed attention computes no pair that is not seen
        parity_tokens=inf if packed else PARITY_WIDTHS * output_embedding(model).in_features,
    )
    if packed:
        lengths = [row.num_tokens for row in rows]
        for part in plan_packs(lengths, min(max_tokens, PACK_TOKENS)):
            yield _pack([rows[index] for index in part], sequences)
        return
    for is_shared in (True, False):
        alike = [row for row in rows if row.is_shared == is_shared]
        for part in plan_microbatches([row.num_tokens for row in alike], max_tokens):
            yield _collate([alike[index] for index in part], sequences, model)


def _collate(
    rows: Sequence[Row], sequences: Sequence[TrainingSequence], model: PreTrainedModel
) -> MicroBatch:
    """Pad the rows, all shared or none, to the longest, which stands first."""
    width = rows[0].num_tokens
    input_ids, position_ids, owners = [], [], []
    predicting: list[int] = []
    for number, row in enumerate(rows):
        laid = _lay_out([sequences[index] for index in row.indices])
        pads = [PAD_ID] * (width - row.num_tokens)
        input_ids.append(laid.input_ids + pads)
        position_ids.append(laid.position_ids + pads)
        owners.append(laid.owners + pads)
        predicting.extend(number * width + position for position in laid.predicting)
    indices_B = tuple(chain.from_iterable(row.indices for row in rows))
    sequences_B = tuple(sequences[index] for index in indices_B)
    targets = list(chain.from_iterable(sequence.completion_ids for sequence in sequences_B))
    is_shared, device = rows[0].is_shared, model.device
    return MicroBatch(
        indices_B=indices_B,
        sequences_B=sequences_B,
        input_ids_RT=torch.tensor(input_ids, device=device),
        position_ids_RT=torch.tensor(position_ids if is_shared else [range(width)], device=device),
        mask_R1TT=_sharing_mask(torch.tensor(owners), model) if is_shared else None,
        spans=(),
        predicting_N=torch.tensor(predicting, device=device),
        targets_N=torch.tensor(targets, device=device),
    )


def _pack(rows: Sequence[Row], sequences: Sequence[TrainingSequence]) -> MicroBatch:
    """Lay the rows one behind the other."""
    input_ids, position_ids, predicting = list[int](), list[int](), list[int]()
    spans = list[Span]()
    for row in rows:
        begin = len(input_ids)
        laid = _lay_out([sequences[index] for index in row.indices])
        input_ids.extend(laid.input_ids)
        position_ids.extend(laid.position_ids)
        spans.extend(Span(*(begin + place for place in span)) for span in laid.spans)
        predicting.extend(begin + position for position in laid.predicting)
    indices_B = tuple(chain.from_iterable(row.indices for row in rows))
    sequences_B = tuple(sequences[index] for index in indices_B)
    return MicroBatch(
        indices_B=indices_B,
        sequences_B=sequences_B,
        input_ids_RT=torch.tensor([input_ids]),
        position_ids_RT=torch.tensor([position_ids]),
        mask_R1TT=None,
        spans=tuple(spans),
        predicting_N=torch.tensor(predicting),
        targets_N=torch.tensor(list(chain.from_iterable(s.completion_ids for s in sequences_B))),
    )


class _LaidOut(NamedTuple):
    """One row without pads."""

    input_ids: list[int]
    position_ids: list[int]
    """They restart after the prompt for each completion."""
    owners: list[int]
    """0 in the prompt, i in the i-th completion."""
    predicting: list[int]
    """Positions whose output predicts a completion token, completion after completion."""
    spans: list[Span]
    """The prompt, and each completion behind it; one alone is all of the row."""


def _lay_out(members: Sequence[TrainingSequence]) -> _LaidOut:
    """Lay sequences of one prompt out as [prompt | completion 1 | completion 2 | ...]."""
    start = len(members[0].prompt_ids)
    prompt = list(members[0].prompt_ids)
    row = _LaidOut(prompt, list(range(start)), [0] * start, [], [Span(0, start)])
    for owner, member in enumerate(members, start=1):
        # the token before predicts: the prompt's last the first one, and the last one nothing
        fed = member.completion_ids[:-1]
        begin = len(row.input_ids)
        row.predicting.extend((start - 1, *range(begin, begin + len(fed))))
        row.input_ids.extend(fed)
        row.position_ids.extend(range(start, start + len(fed)))
        row.owners.extend([owner] * len(fed))
        row.spans.append(Span(begin, begin + len(fed), 0, start))
    if len(members) == 1:
        row.spans[:] = [Span(0, len(row.input_ids))]
    return row


def _sharing_mask(owners_RT: torch.Tensor, model: PreTrainedModel) -> torch.Tensor:
    """Return [R, 1, T, T]: a token sees the past that is the prompt's or its own completion's.

    Additive and in the model's precision, so that all layers save the same one for their backward
    pass; a mask of truth values would be converted in each.
    """
    owners_RT = owners_RT.to(model.device)
    steps_T = torch.arange(owners_RT.shape[1], device=model.device)
    is_past_TT = steps_T[:, None] >= steps_T
    is_prompt_R1T = owners_RT[:, None, :] == 0
    is_own_RTT = owners_RT[:, None, :] == owners_RT[:, :, None]
    is_seen_RTT = is_past_TT & (is_prompt_R1T | is_own_RTT)
    mask_RTT = torch.zeros(is_seen_RTT.shape, dtype=model.dtype, device=model.device)
    return mask_RTT.masked_fill_(~is_seen_RTT, float("-inf")).unsqueeze(1)


def completion_logprobs(
    model: PreTrainedModel,
    batch: MicroBatch,
    temperature: float,
    *,
    is_entropy_trained: bool = False,
) -> TokenLogprobs:
    """Return log-probability and entropy of each completion token, [N], from one forward pass."""
    head = output_embedding(model)
    return linear_logprobs(
        _predicting_states(model, batch),
        head.weight,
        output_bias(model),
        batch.targets_N,
        temperature=temperature,
        is_entropy_trained=is_entropy_trained,
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


def _predicting_states(model: PreTrainedModel, batch: MicroBatch) -> torch.Tensor:
    """Return the states from which the output embedding predicts each completion token, [N, D]."""
    output = model.base_model(
        input_ids=batch.input_ids_RT,
        position_ids=batch.position_ids_RT,
        attention_mask=batch.mask_R1TT,
        use_cache=False,
        **({"spans": batch.spans} if batch.spans else {}),
    )
    hidden_RTD: torch.Tensor = output.last_hidden_state
    return hidden_RTD.flatten(0, 1)[batch.predicting_N]


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
    for batch in form_microbatches(sequences, microbatch_tokens, model):
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
    """Raise unless the model's logits are its output embedding applied to its last hidden states,
    and sequences that share a prompt in one row get the states that they have alone;
    NonFinitePolicy for logits that are not finite.

    A probe, once: the output embedding's result is multiplied by 100 on its way out, so that a soft
    cap or a scale after it shows whatever the size of the weights.
    """
    head = output_embedding(model)
    check_logits(model, "The policy")
    kind = model.config.model_type
    ids = [place * 7919 % head.weight.shape[0] for place in range(16)]
    pair = [TrainingSequence(prompt_ids=ids[:8], completion_ids=ids[i : i + 4]) for i in (8, 12)]
    alone = _collate([Row((0,), 11), Row((1,), 11)], pair, model)
    states_ND = _predicting_states(model, alone)
    handle = head.register_forward_hook(lambda _module, _inputs, output: output * 100.0)
    try:
        logits = model(input_ids=alone.input_ids_RT, use_cache=False).logits
        difference = _distance(logits.flatten(0, 1)[alone.predicting_N], head(states_ND))
    finally:
        handle.remove()
    if not isfinite(difference):
        raise overflowing("The policy", "states")
    if not difference < 1e-2:
        raise EngineError(
            f"This {kind} model changes its logits after the output embedding (by {difference:.0%} "
            "on a probe, as soft caps and logit scales do), which the native learner does not. "
            "Choose a Llama-, Qwen- or Mistral-like model."
        )
    rows = [Row((0, 1), 14)]
    together = _pack(rows, pair) if is_packed(model) else _collate(rows, pair, model)
    difference = _distance(_predicting_states(model, together), states_ND)
    if not difference < 1e-1:
        raise EngineError(
            f"This {kind} model does not follow the attention mask and positions that it is given "
            f"(its states differ by {difference:.0%} on a probe), which the native learner needs. "
            "Choose a Llama-, Qwen- or Mistral-like model."
        )


def _distance(found: torch.Tensor, expected: torch.Tensor) -> float:
    """Return |found - expected| / |expected|; in float64, for squares of logits can overflow."""
    error = (found.double() - expected.double()).norm() / expected.double().norm()
    return float(error)
