"""The fused step's key-value cache: a prompt's states are stored once for all rows that continue
it.

Shape letters: L layers, R rows, G key-value heads, C capacity in positions, K head width, T
positions of a prompt, F families. A family is a set of rows with one prompt, whose states the
kernels read for all of them at once. States are in pages of LANES positions, in the order in which
`kernels.c` reads them.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch.nn import functional as F

from rloop.engines.native.cpu.kernels import LANES, LayerStates
from rloop.engines.native.decode import Prefilled

FAMILY_ROWS = 8
"""Most rows of a family; more rows of one prompt are several families, so that threads can share
them."""


@dataclass(frozen=True, slots=True, eq=False)
class PromptPages:
    """A prompt's ids and states, [L, G, T / LANES rounded up, 2, LANES K]."""

    ids: tuple[int, ...]
    pages: torch.Tensor


@dataclass(frozen=True, slots=True)
class Families:
    """The rows of a cache by prompt; see `kernels.LayerStates` for the table."""

    rows_R: torch.Tensor
    table_F4: torch.Tensor
    lengths_R: torch.Tensor
    """Length of each row's prompt."""


class PagedCache:
    """Rows that decode together; a decode step writes one position of each row.

    What follows the prompt belongs to the row: [R, G, C / LANES, 2, LANES K] for each layer.
    """

    def __init__(self, num_rows: int, max_length: int) -> None:
        """Reserve `num_rows` of at most `max_length` positions after the prompt; memory is used
        when needed.
        """
        self._max_length = max_length
        self._prompts: list[PromptPages | None] = [None] * num_rows
        self._own: list[torch.Tensor] = []
        self._families: Families | None = None

    def place(self, rows: Sequence[int], prefilled: Prefilled) -> None:
        """Let each given row continue the prompt, sharing the states of rows that already do."""
        same = (p for p in self._prompts if p is not None and p.ids == prefilled.ids)
        prompt = next(same, None)
        if prompt is None:
            pages = to_pages(torch.stack(prefilled.keys), torch.stack(prefilled.values))
            prompt = PromptPages(prefilled.ids, pages)
        for row in rows:
            self._prompts[row] = prompt
        self._families = None

    def begin_step(self, positions_R: torch.Tensor) -> None:
        """Set where the next token of each row goes. A row within its prompt is idle: it leaves the
        prompt, and is not computed until it is placed again.
        """
        families = self._families or group_rows(self._prompts)
        idle = (positions_R < families.lengths_R).nonzero()[:, 0].tolist()
        for row in idle:
            self._prompts[row] = None
        self._families = group_rows(self._prompts) if idle else families
        self._ensure_capacity(int((positions_R - self._families.lengths_R).max()) + 1)

    def layer(self, number: int) -> LayerStates:
        """Return a layer's states in this step."""
        families = self._families
        assert families is not None, "a layer is asked for before begin_step"
        return LayerStates(families.rows_R, families.table_F4, self._own[number], number)

    def keep(self, rows: Sequence[int]) -> None:
        """Compact the batch: the given rows, in this order, become rows 0, 1, ..."""
        self._prompts = [self._prompts[row] for row in rows]
        self._families = None
        index = torch.as_tensor(rows)
        for number, layer in enumerate(self._own):
            self._own[number] = layer[index]

    def _ensure_capacity(self, length: int) -> None:
        capacity = self._own[0].shape[2] * LANES if self._own else 0
        if length <= capacity:
            return
        wanted = min(self._max_length, max(length + 31, capacity * 3 // 2))
        num_pages = -(-wanted // LANES)
        like = next(p.pages for p in self._prompts if p is not None)
        for layer in range(len(like)):
            shape = (len(self._prompts), like.shape[1], num_pages, *like.shape[3:])
            fresh = like.new_empty(shape)
            if capacity:
                fresh[:, :, : capacity // LANES] = self._own[layer]
                self._own[layer] = fresh
            else:
                self._own.append(fresh)


def group_rows(prompts: Sequence[PromptPages | None]) -> Families:
    """Return the families of rows whose prompts are given; rows without one belong to none."""
    members: dict[PromptPages, list[int]] = {}
    for row, prompt in enumerate(prompts):
        if prompt is not None:
            members.setdefault(prompt, []).append(row)
    rows: list[int] = []
    table = []
    for prompt, own in members.items():
        for begin in range(0, len(own), FAMILY_ROWS):
            family = own[begin : begin + FAMILY_ROWS]
            table.append([len(rows), len(family), prompt.pages.data_ptr(), len(prompt.ids)])
            rows += family
    lengths = [0 if prompt is None else len(prompt.ids) for prompt in prompts]
    return Families(torch.tensor(rows), torch.tensor(table), torch.tensor(lengths))


def to_pages(keys: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    """Return states [.., T, K] as pages [.., T / LANES rounded up, 2, LANES K], filled with zeros.

    In bfloat16, numbers that are summed over are in pairs: keys are [K / 2, LANES, 2], values
    [LANES / 2, K, 2]; in float32 [K, LANES] and [LANES, K].
    """
    pair = 2 if keys.dtype == torch.bfloat16 else 1
    *outer, length, width = keys.shape
    fill = -length % LANES
    num_pages = (length + fill) // LANES
    keys, values = (F.pad(states, (0, 0, 0, fill)) for states in (keys, values))
    keys = keys.reshape(*outer, num_pages, LANES, width // pair, pair).transpose(-3, -2)
    values = values.reshape(*outer, num_pages, LANES // pair, pair, width).transpose(-2, -1)
    return torch.stack([keys.flatten(-3), values.flatten(-3)], dim=-2)
