"""The key-value cache: rows of different lengths in preallocated tensors.

Shape letters: R rows, G key-value heads, C capacity in positions, K head width. Row r holds
positions 0 .. length_r - 1; what lies behind is masked by the reader and must stay finite, hence
zeros.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from transformers.cache_utils import Cache


class PrefillCache(Cache):
    """Keeps what one forward pass over prompts computed; [B, G, T, K] for each layer."""

    def __init__(self) -> None:
        """Start empty; layers arrive with the forward pass."""
        super().__init__(layers=[])
        self.keys: list[torch.Tensor] = []
        self.values: list[torch.Tensor] = []

    def update(
        self,
        key_states: torch.Tensor,
        value_states: torch.Tensor,
        layer_idx: int,
        *_: object,
        **__: object,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Keep the layer's states and attend to them as they are."""
        assert layer_idx == len(self.keys), f"layer {layer_idx} after {len(self.keys)} layers"
        self.keys.append(key_states)
        self.values.append(value_states)
        return key_states, value_states

    def row(self, index: int, length: int) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
        """Return copies of one prompt's keys and values, [G, length, K] for each layer."""
        keys = [layer[index, :, :length].clone() for layer in self.keys]
        values = [layer[index, :, :length].clone() for layer in self.values]
        return keys, values


@dataclass(frozen=True, slots=True)
class Prefilled:
    """A prompt's states, [G, T, K] for each layer, and the logits after it, [V]."""

    ids: tuple[int, ...]
    keys: list[torch.Tensor]
    values: list[torch.Tensor]
    logits: torch.Tensor


class RowCache(Cache):
    """Rows that decode together; a decode step writes one position of each row.

    Keys and values are [R, G, C, K].
    """

    def __init__(self, num_rows: int, max_length: int) -> None:
        """Reserve room for `num_rows`; memory is taken when the first prompt arrives."""
        super().__init__(layers=[])
        self._num_rows = num_rows
        self._max_length = max_length
        self._keys: list[torch.Tensor] = []
        self._values: list[torch.Tensor] = []
        self._rows = torch.zeros(0, dtype=torch.long)
        self._positions = torch.zeros(0, dtype=torch.long)
        self._reach = 0

    def place(self, rows: Sequence[int], prefilled: Prefilled) -> None:
        """Copy the prompt's states to the start of each given row."""
        length = len(prefilled.ids)
        self._ensure_capacity(length, prefilled.keys, prefilled.values)
        index = torch.as_tensor(rows, device=prefilled.logits.device)
        for targets, sources in (
            (self._keys, prefilled.keys),
            (self._values, prefilled.values),
        ):
            for target, source in zip(targets, sources, strict=True):
                target[index, :, :length] = source

    def begin_step(self, positions_R: torch.Tensor, reach: int) -> None:
        """Say where the next token of each row goes, and how far the longest row reaches with
        it.
        """
        self._positions = positions_R
        self._rows = torch.arange(len(positions_R), device=positions_R.device)
        self._reach = reach
        self._ensure_capacity(reach, self._keys, self._values)

    def update(
        self,
        key_states: torch.Tensor,
        value_states: torch.Tensor,
        layer_idx: int,
        *_: object,
        **__: object,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Write [R, G, 1, K] states at each row's position; return all rows up to the reach."""
        keys, values = self._keys[layer_idx], self._values[layer_idx]
        keys[self._rows, :, self._positions] = key_states[:, :, 0]
        values[self._rows, :, self._positions] = value_states[:, :, 0]
        num_rows = len(self._rows)
        return keys[:num_rows, :, : self._reach], values[:num_rows, :, : self._reach]

    def keep(self, rows: Sequence[int]) -> None:
        """Close the gaps: the given rows, in this order, become rows 0, 1, ..."""
        for layers in (self._keys, self._values):
            index = torch.as_tensor(rows, device=layers[0].device)
            for number, layer in enumerate(layers):
                layers[number] = layer[index]

    def get_seq_length(self, *_: object) -> int:
        """Return the positions that the longest row reaches (transformers asks for it)."""
        return self._reach

    def _ensure_capacity(
        self, length: int, like_keys: Sequence[torch.Tensor], like_values: Sequence[torch.Tensor]
    ) -> None:
        capacity = self._values[0].shape[2] if self._values else 0
        if length <= capacity:
            return
        wanted = min(self._max_length, max(length + 32, capacity * 3 // 2))
        self._keys = self._grown(self._keys, like_keys, wanted)
        self._values = self._grown(self._values, like_values, wanted)

    def _grown(
        self, layers: Sequence[torch.Tensor], like: Sequence[torch.Tensor], capacity: int
    ) -> list[torch.Tensor]:
        """Return the layers with room for more positions; new ones like [.., G, T, K] at first."""
        grown = []
        for number, source in enumerate(layers or like):
            num_rows = len(source) if layers else self._num_rows
            fresh = source.new_zeros(num_rows, source.shape[-3], capacity, source.shape[-1])
            if layers:
                fresh[:, :, : source.shape[2]] = layers[number]
            grown.append(fresh)
        return grown
