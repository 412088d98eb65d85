"""The decode step of any model that transformers can run, on any device, and its key-value cache:
rows of different lengths in preallocated tensors.

Shape letters: R rows, V vocabulary, G key-value heads, C capacity in positions, K head width. Row r
has positions 0 .. length_r - 1. Positions after that are masked by the reader and must stay finite,
so they are zeros.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from transformers import PreTrainedModel
from transformers.cache_utils import Cache

from rloop.engines.native.draw import draw_tokens
from rloop.engines.native.memory import free_bytes
from rloop.policies.checkpoint import LoadedPolicy
from rloop.recipe.config import SamplingConfig

CACHE_SHARE = 0.8
"""Fraction of a GPU's free memory; the rest is for prefill and logits."""


class PrefillCache(Cache):
    """Keeps the states of one forward pass over prompts; [B, G, T, K] for each layer."""

    def __init__(self) -> None:
        """Start empty; the forward pass adds layers."""
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
        """Keep the layer's states and return them unchanged."""
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

    Keys and values are [R, G, C, K], allocated once at full length. Positions are zeroed when the
    first row reaches them, so that a CPU uses no memory for positions that no row reaches.
    """

    def __init__(self, num_rows: int, max_length: int) -> None:
        """Reserve `num_rows` rows; memory is allocated when the first prompt arrives."""
        super().__init__(layers=[])
        self._num_rows = num_rows
        self._max_length = max_length
        self._keys: list[torch.Tensor] = []
        self._values: list[torch.Tensor] = []
        self._rows = torch.zeros(0, dtype=torch.long)
        self._positions = torch.zeros(0, dtype=torch.long)
        self._reach = 0
        self._num_cleared = 0

    def place(self, rows: Sequence[int], prefilled: Prefilled) -> None:
        """Copy the prompt's states to the start of each given row."""
        length = len(prefilled.ids)
        if not self._keys:
            self._keys = [self._room_like(states) for states in prefilled.keys]
            self._values = [self._room_like(states) for states in prefilled.values]
        self._clear(length)
        index = torch.as_tensor(rows, device=prefilled.logits.device)
        for targets, sources in (
            (self._keys, prefilled.keys),
            (self._values, prefilled.values),
        ):
            for target, source in zip(targets, sources, strict=True):
                target[index, :, :length] = source

    def begin_step(self, positions_R: torch.Tensor, reach: int) -> None:
        """Set where the next token of each row goes, and how far the longest row then reaches."""
        self._positions = positions_R
        self._rows = torch.arange(len(positions_R), device=positions_R.device)
        self._reach = reach
        self._clear(reach)

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
        """Compact the batch: the given rows, in this order, become rows 0, 1, ..."""
        index = torch.as_tensor(rows, device=self._keys[0].device)
        for layer in (*self._keys, *self._values):
            layer[: len(rows), :, : self._num_cleared] = layer[index, :, : self._num_cleared]

    def get_seq_length(self, *_: object) -> int:
        """Return the positions that the longest row reaches (transformers asks for it)."""
        return self._reach

    def _room_like(self, states: torch.Tensor) -> torch.Tensor:
        """Return a tensor for all rows of one layer, for states like [G, T, K]."""
        num_heads, _, width = states.shape
        return states.new_empty(self._num_rows, num_heads, self._max_length, width)

    def _clear(self, length: int) -> None:
        """Write zeros where no row has been yet, up to the length and a bit beyond."""
        if length <= self._num_cleared:
            return
        wanted = min(self._max_length, max(length + 32, self._num_cleared * 3 // 2))
        for layer in (*self._keys, *self._values):
            layer[:, :, self._num_cleared : wanted] = 0.0
        self._num_cleared = wanted


def token_bytes(model: PreTrainedModel) -> int:
    """Return the bytes of one token's keys and values in all layers."""
    config = model.config.get_text_config()
    num_heads = config.num_attention_heads
    head_width = getattr(config, "head_dim", None) or config.hidden_size // num_heads
    num_kv_heads = getattr(config, "num_key_value_heads", None) or num_heads
    return int(2 * config.num_hidden_layers * num_kv_heads * head_width * model.dtype.itemsize)


def fitting_rows(model: PreTrainedModel, max_length: int) -> int | None:
    """Return the number of full-length rows that fit into a GPU's free memory; None on a CPU."""
    free = free_bytes(model.device)
    if free is None:
        return None
    return max(1, int(CACHE_SHARE * free) // (max_length * token_bytes(model)))


class PlainStep:
    """Decodes one token of each row by the model's own forward pass."""

    def __init__(self, policy: LoadedPolicy) -> None:
        """Decode with the policy's weights at the time of each call."""
        self._policy = policy

    def open_cache(self, num_rows: int, longest_prompt: int, max_tokens: int) -> RowCache:
        """Return the cache of a new batch, which `logits` reads and writes from now on."""
        self._cache = RowCache(num_rows, longest_prompt + max_tokens)
        return self._cache

    def logits(self, tokens_R: torch.Tensor, positions_R: torch.Tensor, reach: int) -> torch.Tensor:
        """Return the logits [R, V] after each row's token, which enters the cache at its position,
        below the reach.
        """
        self._cache.begin_step(positions_R, reach)
        mask_RS = torch.arange(reach, device=positions_R.device) <= positions_R[:, None]
        hidden = self._policy.decoder(
            input_ids=tokens_R[:, None],
            attention_mask=mask_RS[:, None, None, :],
            position_ids=positions_R[:, None],
            past_key_values=self._cache,
            use_cache=True,
        ).last_hidden_state
        logits: torch.Tensor = self._policy.head(hidden[:, 0])
        return logits

    def draw(
        self, logits_RV: torch.Tensor, uniforms_R: torch.Tensor, settings: SamplingConfig
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return (tokens_R, logprobs_R) for float64 uniforms; see `draw.draw_tokens`."""
        return draw_tokens(logits_RV, uniforms_R, settings)
