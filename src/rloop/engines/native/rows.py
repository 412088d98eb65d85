"""Rows: which training sequences share one, so that their common prompt is computed once.

A row is [prompt | completion 1 | completion 2 | ...]; a completion sees the prompt and its own past
only. The last token of a completion predicts nothing and is not fed to the model. Knows lengths; no
tensors and no model.
"""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Row:
    """Sequences laid out one after the other behind their common prompt.

    Example: Row(indices=(4, 0), num_tokens=9) for a prompt of 4 and completions of 4 and 3 tokens.
    """

    indices: tuple[int, ...]
    """Where each stands in the list that was planned, longest completion first."""
    num_tokens: int
    """Tokens fed to the model, padding excluded."""

    @property
    def is_shared(self) -> bool:
        """Whether the row holds more than one completion, and hence needs a mask."""
        return len(self.indices) > 1

    def cost(self, parity_tokens: float) -> float:
        """Return the row's work, counted in tokens through everything but attention.

        T tokens cost T there and T * T / parity_tokens in masked attention: half of that where
        attention is causal, since the kernel leaves out the pairs that lie in the future.
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
    """Return the rows that compute every sequence once, groups in order of appearance.

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
        # one row each always remains; in shared rows the prompt saved is weighed against attention
        fitting = [option for option in options if _is_within(option, max_tokens)]
        rows += min(fitting, key=lambda option: sum(row.cost(parity_tokens) for row in option))
    return rows


def _deal(
    prompt_length: int, indices: Sequence[int], completion_lengths: Sequence[int], num_rows: int
) -> list[Row]:
    """Deal the completions out like cards, so that the rows are about equally long."""
    hands = [tuple(indices[first::num_rows]) for first in range(num_rows)]
    return [
        Row(hand, prompt_length + sum(completion_lengths[index] - 1 for index in hand))
        for hand in hands
    ]


def _is_within(rows: Sequence[Row], max_tokens: int) -> bool:
    return all(row.num_tokens <= max_tokens for row in rows if row.is_shared)
