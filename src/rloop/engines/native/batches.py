"""Training sequences, split into micro-batches.

Shape letters: B sequences of a micro-batch, R its rows, T tokens of a row, N completion tokens of
all B.

A row is one sequence, or several that share their prompt: [prompt | completion 1 | completion 2 |
...], where a completion sees only the prompt and its own past. The last token of a completion
predicts nothing, so it is not fed to the model.

On a CPU the rows of a micro-batch are packed end to end into one long row, and attention gets what
each token can see (`packed_attention.py`). Elsewhere they are padded on the right. Attention is
causal, so no real token sees padding, and padding costs nothing beyond the transformer's own
layers. Rows of one sequence need no mask; shared rows have one and go through the model together.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from math import inf
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from transformers import PreTrainedModel

from rloop.engines.base import TrainingSequence
from rloop.engines.native import attention
from rloop.engines.native.packed_attention import Span
from rloop.errors import EngineError

Ids = npt.NDArray[np.int64]
PARITY_WIDTHS = 2.5
"""Length (in model widths) of a row whose masked attention costs as much as all other layers.
Counting operations gives 6: 24 D * D a token in the layers, 4 D a pair in attention, whose kernels
run at less than half the speed. Measured on CPU (D = 576): rows of 1024, 2048 and 4096 tokens cost
1.62, 2.33 and 4.16 times as much a token as short ones, which gives 2.3 to 2.9.
"""
PACK_TOKENS = 1024
"""Largest packed row (tokens). Measured with 2,700 tokens of SmolLM2-135M on a busy
machine: one pass takes 5 % less processor time than three, and keeps 2.7 times as much memory."""


@dataclass(frozen=True, slots=True)
class Row:
    """Sequences laid out end to end after their common prompt.

    Example: Row(indices=(4, 0), num_tokens=9) for a prompt of 4 and completions of 4 and 3 tokens.
    """

    indices: tuple[int, ...]
    """Index of each sequence in the planned list, longest completion first."""
    num_tokens: int
    """Tokens fed to the model, without padding."""

    @property
    def is_shared(self) -> bool:
        """Whether the row has more than one completion, and therefore needs a mask."""
        return len(self.indices) > 1

    def cost(self, parity_tokens: float) -> float:
        """Return the row's work, in tokens through everything but attention.

        T tokens cost T there and T * T / parity_tokens in masked attention; causal attention costs
        half of that, because the kernel skips future pairs.
        """
        halves = 2 if self.is_shared else 1
        return self.num_tokens * (1.0 + halves * self.num_tokens / (2 * parity_tokens))


def plan_rows(
    prompts: Sequence[Sequence[int]],
    completion_lengths: Sequence[int],
    *,
    max_tokens: int,
    parity_tokens: float,
) -> list[Row]:
    """Return rows that compute every sequence once, groups in order of appearance.

    `parity_tokens` is the row length at which masked attention costs as much as all other layers.
    A row that several sequences share has at most `max_tokens`.
    """
    groups: dict[tuple[int, ...], list[int]] = {}
    for index, prompt in enumerate(prompts):
        groups.setdefault(tuple(prompt), []).append(index)
    rows: list[Row] = []
    for prompt, indices in groups.items():
        longest_first = sorted(indices, key=lambda index: -completion_lengths[index])
        options = [
            _deal(len(prompt), longest_first, completion_lengths, num_rows)
            for num_rows in range(1, len(indices) + 1)
        ]
        # a row per sequence is always possible; sharing saves prompts and costs attention
        fitting = [option for option in options if _is_within(option, max_tokens)]
        rows += min(fitting, key=lambda option: sum(row.cost(parity_tokens) for row in option))
    return rows


def _deal(
    prompt_length: int, indices: Sequence[int], completion_lengths: Sequence[int], num_rows: int
) -> list[Row]:
    """Deal the completions out like cards, so that the rows have about the same length."""
    hands = [tuple(indices[first::num_rows]) for first in range(num_rows)]
    return [
        Row(hand, prompt_length + sum(completion_lengths[index] - 1 for index in hand))
        for hand in hands
    ]


def _is_within(rows: Sequence[Row], max_tokens: int) -> bool:
    return all(row.num_tokens <= max_tokens for row in rows if row.is_shared)


@dataclass(frozen=True, slots=True, kw_only=True)
class MicroBatch:
    """Sequences that go through the model together, on its device."""

    indices_B: tuple[int, ...]
    """Index of each sequence in the list that was split."""
    sequences_B: tuple[TrainingSequence, ...]
    input_ids_RT: torch.Tensor
    position_ids_RT: torch.Tensor
    """[1, T] if every row has one sequence; else they restart after the prompt."""
    mask_R1TT: torch.Tensor | None
    """Added to attention's scores: 0 where a token (third axis) sees another (last axis), else
    -inf. None means causal, within `spans` if there are any."""
    spans: tuple[Span, ...]
    """What each token sees in a packed row; empty for padded rows."""
    predicting_N: torch.Tensor
    """Positions in the flattened [R * T] whose output predicts a completion token; the last
    position of a shared prompt predicts several first tokens."""
    targets_N: torch.Tensor
    """The completion tokens."""

    @property
    def lengths_B(self) -> tuple[int, ...]:
        """Number of completion tokens of each sequence."""
        return tuple(len(sequence.completion_ids) for sequence in self.sequences_B)

    def columns(
        self, *numbers: Callable[[TrainingSequence], Sequence[float] | float]
    ) -> tuple[torch.Tensor, ...]:
        """Return float32 values of all tokens, [N] for each function, in one transfer.

        A function returns one value per token of a sequence's completion, or one for all tokens.
        """
        table = np.empty((len(numbers), sum(self.lengths_B)), dtype=np.float32)
        begin = 0
        for sequence, length in zip(self.sequences_B, self.lengths_B, strict=True):
            for row, number in zip(table, numbers, strict=True):
                row[begin : begin + length] = number(sequence)
            begin += length
        return to_device(table, self.targets_N.device).unbind()


def plan_microbatches(lengths: Sequence[int], max_tokens: int) -> list[list[int]]:
    """Split rows of these lengths into lists of indices with at most `max_tokens`, padding
    included.

    Longest first, so that memory peaks at once, and similar lengths together, so that there is
    little padding; equal lengths stay in order. A row longer than `max_tokens` is alone.
    """
    plan: list[list[int]] = []
    for index in sorted(range(len(lengths)), key=lambda index: -lengths[index]):
        if plan and (len(plan[-1]) + 1) * lengths[plan[-1][0]] <= max_tokens:
            plan[-1].append(index)
        else:
            plan.append([index])
    return plan


def plan_packs(lengths: Sequence[int], max_tokens: int) -> list[list[int]]:
    """Split rows of these lengths into lists of indices with at most `max_tokens`, without padding.

    First fit, longest first. A row longer than `max_tokens` is alone.
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
    """Whether the model's attention takes packed rows: only our own, on a CPU."""
    return model.device.type == "cpu" and model.config._attn_implementation == attention.NAME


def form_microbatches(
    sequences: Sequence[TrainingSequence], max_tokens: int, model: PreTrainedModel
) -> Iterator[MicroBatch]:
    """Split the sequences into micro-batches of at most `max_tokens` for the model, padding
    included.
    """
    packed = is_packed(model)
    rows = plan_rows(
        [sequence.prompt_ids for sequence in sequences],
        [len(sequence.completion_ids) for sequence in sequences],
        max_tokens=max_tokens,
        # packed attention computes only visible pairs
        parity_tokens=inf if packed else PARITY_WIDTHS * output_embedding(model).in_features,
    )
    if packed:
        lengths = [row.num_tokens for row in rows]
        for part in plan_packs(lengths, min(max_tokens, PACK_TOKENS)):
            yield pack([rows[index] for index in part], sequences, model)
        return
    for is_shared in (True, False):
        alike = [row for row in rows if row.is_shared == is_shared]
        for part in plan_microbatches([row.num_tokens for row in alike], max_tokens):
            yield collate([alike[index] for index in part], sequences, model)


def collate(
    rows: Sequence[Row], sequences: Sequence[TrainingSequence], model: PreTrainedModel
) -> MicroBatch:
    """Pad the rows, all shared or none, to the longest, which comes first."""
    width = rows[0].num_tokens
    # Padding is token 0; any valid id would do, because it is never attended to.
    input_ids, position_ids, owners = np.zeros((3, len(rows), width), dtype=np.int64)
    predicting: list[Ids] = []
    for number, row in enumerate(rows):
        laid = _lay_out([sequences[index] for index in row.indices])
        input_ids[number, : row.num_tokens] = laid.input_ids
        position_ids[number, : row.num_tokens] = laid.position_ids
        owners[number, : row.num_tokens] = laid.owners
        predicting.append(number * width + laid.predicting)
    if rows[0].is_shared:
        return _on_device(rows, sequences, model, (input_ids, position_ids, predicting, owners))
    position_ids = np.arange(width)[None]
    return _on_device(rows, sequences, model, (input_ids, position_ids, predicting))


def pack(
    rows: Sequence[Row], sequences: Sequence[TrainingSequence], model: PreTrainedModel
) -> MicroBatch:
    """Pack the rows end to end."""
    input_ids: list[Ids] = []
    position_ids: list[Ids] = []
    predicting: list[Ids] = []
    spans: list[Span] = []
    begin = 0
    for row in rows:
        laid = _lay_out([sequences[index] for index in row.indices])
        input_ids.append(laid.input_ids)
        position_ids.append(laid.position_ids)
        predicting.append(begin + laid.predicting)
        spans.extend(Span(*(begin + place for place in span)) for span in laid.spans)
        begin += row.num_tokens
    ids_1T, position_ids_1T = np.concatenate(input_ids)[None], np.concatenate(position_ids)[None]
    return _on_device(rows, sequences, model, (ids_1T, position_ids_1T, predicting), tuple(spans))


def _on_device(
    rows: Sequence[Row],
    sequences: Sequence[TrainingSequence],
    model: PreTrainedModel,
    laid: tuple[Ids, Ids, list[Ids]] | tuple[Ids, Ids, list[Ids], Ids],
    spans: tuple[Span, ...] = (),
) -> MicroBatch:
    """Return the micro-batch of ids, position ids, predicting positions, and owners where prompts
    are shared: one transfer.
    """
    indices_B = tuple(chain.from_iterable(row.indices for row in rows))
    sequences_B = tuple(sequences[index] for index in indices_B)
    targets = chain.from_iterable(sequence.completion_ids for sequence in sequences_B)
    input_ids, position_ids, predicting, *owners = laid
    arrays = [input_ids, position_ids, np.concatenate(predicting), _ids(targets), *owners]
    flat = to_device(np.concatenate([array.ravel() for array in arrays]), model.device)
    parts = torch.split(flat, [array.size for array in arrays])
    ids_RT, position_ids_RT, predicting_N, targets_N, *owners_RT = (
        part.view(array.shape) for part, array in zip(parts, arrays, strict=True)
    )
    return MicroBatch(
        indices_B=indices_B,
        sequences_B=sequences_B,
        input_ids_RT=ids_RT,
        position_ids_RT=position_ids_RT,
        mask_R1TT=_sharing_mask(owners_RT[0], model.dtype) if owners_RT else None,
        spans=spans,
        predicting_N=predicting_N,
        targets_N=targets_N,
    )


def to_device(array: npt.NDArray[Any], device: torch.device) -> torch.Tensor:
    """Return the array as a tensor; a GPU copies it asynchronously."""
    tensor = torch.from_numpy(array)
    if device.type != "cuda":
        return tensor
    return tensor.pin_memory().to(device, non_blocking=True)


def _ids(numbers: Iterable[int]) -> Ids:
    return np.fromiter(numbers, dtype=np.int64)


class _LaidOut(NamedTuple):
    """One row without padding."""

    input_ids: Ids
    position_ids: Ids
    """They restart after the prompt for each completion."""
    owners: Ids
    """0 in the prompt, i in the i-th completion."""
    predicting: Ids
    """Positions whose output predicts a completion token, completion after completion."""
    spans: list[Span]
    """The prompt, and each completion after it; a single span is the whole row."""


def _lay_out(members: Sequence[TrainingSequence]) -> _LaidOut:
    """Lay sequences of one prompt out as [prompt | completion 1 | completion 2 | ...]."""
    prompt = members[0].prompt_ids
    start = begin = len(prompt)
    fed = [member.completion_ids[:-1] for member in members]
    positions, predicting = [range(start)], list[range | tuple[int]]()
    spans = [Span(0, start)]
    for ids in fed:
        end = begin + len(ids)
        positions.append(range(start, start + len(ids)))
        # each token is predicted by the one before it, the first by the prompt's last
        predicting += [(start - 1,), range(begin, end)]
        spans.append(Span(begin, end, 0, start))
        begin = end
    return _LaidOut(
        input_ids=_ids(chain(prompt, *fed)),
        position_ids=_ids(chain(*positions)),
        owners=np.repeat(np.arange(len(positions)), [len(part) for part in positions]),
        predicting=_ids(chain(*predicting)),
        spans=spans if len(members) > 1 else [Span(0, begin)],
    )


def _sharing_mask(owners_RT: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Return [R, 1, T, T]: a token sees the past of the prompt and of its own completion.

    It is additive and in the model's precision, so that all layers save the same one for their
    backward pass; a Boolean mask would be converted in each layer.
    """
    steps_T = torch.arange(owners_RT.shape[1], device=owners_RT.device)
    is_past_TT = steps_T[:, None] >= steps_T
    is_prompt_R1T = owners_RT[:, None, :] == 0
    is_own_RTT = owners_RT[:, None, :] == owners_RT[:, :, None]
    is_seen_RTT = is_past_TT & (is_prompt_R1T | is_own_RTT)
    mask_RTT = torch.zeros(is_seen_RTT.shape, dtype=dtype, device=owners_RT.device)
    return mask_RTT.masked_fill_(~is_seen_RTT, float("-inf")).unsqueeze(1)


def output_embedding(model: PreTrainedModel) -> torch.nn.Linear:
    """Return the module that turns hidden states into logits; raise if there is none."""
    foreign: Any = model
    head = foreign.get_output_embeddings()
    if not isinstance(head, torch.nn.Linear) or model.base_model is model:
        raise EngineError(
            f"This {model.config.model_type} model has no linear output embedding on top of a base "
            "model, which the native learner needs. Choose a Llama-, Qwen- or Mistral-like model."
        )
    return head


def check_sequences(sequences: Sequence[TrainingSequence]) -> None:
    """Raise if a sequence has nothing to learn, or its per-token values do not match its tokens."""
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
