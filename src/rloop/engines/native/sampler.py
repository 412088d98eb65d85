"""The sampler: prompts in, completions with their log-probabilities out, by continuous batching.

A prompt is prefilled once for all its completions. Rows that finish are refilled from the queue,
or the batch shrinks. The sampler knows token ids and random streams, but no problems, verdicts or
rewards.
"""

import logging
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache

import numpy as np
import torch

from rloop.engines.base import Sampled, SampleRequest
from rloop.engines.native.cpu.decode import FusedStep
from rloop.engines.native.cpu.kernels import KernelsUnavailable
from rloop.engines.native.decode import PlainStep, PrefillCache, Prefilled, fitting_rows
from rloop.engines.native.device import sum_dtype
from rloop.engines.native.memory import Budget, free
from rloop.policies.checkpoint import LoadedPolicy
from rloop.policies.stop_texts import StopTexts
from rloop.policies.vocabulary import mask_unknown, unknown_ids
from rloop.recipe.config import SamplingConfig
from rloop.types import FinishReason

STREAM_CHUNK = 64
FULL_PASS = 1024
"""Tokens of a prefill above which more rows no longer speed up its products."""
SHORTEST = 0.85
"""A prompt shorter than this fraction of the longest waits for a narrower pass."""


log = logging.getLogger(__name__)


class Stream:
    """The uniform numbers of one trajectory, a function of its seed alone (Philox 4x64)."""

    def __init__(self, seed: int) -> None:
        """Start the stream."""
        self._generator = np.random.Generator(np.random.Philox(key=seed))
        self._numbers: list[float] = []

    def number(self, position: int) -> float:
        """Return the number for the completion token at `position`; positions come in order."""
        if position >= len(self._numbers):
            self._numbers.extend(self._generator.random(STREAM_CHUNK).tolist())
        return self._numbers[position]


@dataclass(slots=True)
class Row:
    """A completion in progress."""

    index: int
    prompt_ids: tuple[int, ...]
    stream: Stream
    token_ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)

    @property
    def next_position(self) -> int:
        """Where the newest token goes in the cache."""
        return len(self.prompt_ids) + len(self.token_ids) - 1


class Sampler:
    """Samples from one loaded policy; keeps no state between calls except the budget of rows."""

    def __init__(
        self,
        policy: LoadedPolicy,
        *,
        max_batch: int | Budget,
        prefill_tokens: int,
        is_fused: bool = True,
    ) -> None:
        """Decode at most `max_batch` rows at once; prefill at most `prefill_tokens`, padded.

        A budget outlives the sampler; if memory runs out it is halved, and `prefill_tokens` too.
        `is_fused` decodes with C kernels if they are available.
        """
        self._policy = policy
        self._is_fused = is_fused
        self._rows = row_budget(max_batch) if isinstance(max_batch, int) else max_batch
        self._prefill_tokens = prefill_tokens

    def sample(
        self, requests: Sequence[SampleRequest], settings: SamplingConfig
    ) -> Iterator[tuple[int, Sampled]]:
        """Yield (index of the request, completion) in the order in which they finish.

        Requests that share a prompt should be adjacent: the prompt is then prefilled once.
        """
        waiting = dict(enumerate(requests))
        while waiting:
            batch = self._begin(waiting, settings)
            while batch.is_open:
                try:
                    finished = batch.step()
                except (RuntimeError, MemoryError) as error:
                    self._rows.halve(error)
                    break  # unfinished completions start over, with the same random streams
                for index, completion in finished:
                    del waiting[index]
                    yield index, completion
            del batch
            if waiting:
                free()

    def _begin(self, waiting: Mapping[int, SampleRequest], settings: SamplingConfig) -> "Batch":
        rows = self._rows
        prefill_tokens = self._prefill_tokens * rows.value // rows.given
        step = choose_step(self._policy, is_fused=self._is_fused)
        longest = max(len(request.prompt_ids) for request in waiting.values())
        length = longest + settings.max_completion_tokens
        num_rows = min(rows.value, len(waiting))
        fitting = fitting_rows(self._policy.model, length)
        if fitting is not None and fitting < num_rows:
            num_rows = fitting
            warn_once(
                f"The GPU's free memory does not hold engine.max_batch={rows.value} completions: "
                "fewer are decoded at a time, with the same results up to rounding."
            )
        return Batch(self._policy, step, waiting, settings, num_rows, prefill_tokens)


def choose_step(policy: LoadedPolicy, *, is_fused: bool) -> PlainStep | FusedStep:
    """Return the fused step on a CPU if model and machine support it; else the plain one, with a
    warning that says why.
    """
    if is_fused and policy.model.device.type == "cpu":
        try:
            return FusedStep(policy.model)
        except KernelsUnavailable as error:
            warn_once(f"Sampling is slower than it could be, without fused kernels: {error}.")
    return PlainStep(policy)


@cache
def warn_once(message: str) -> None:
    """Warn once per run."""
    log.warning(message)


def row_budget(max_batch: int) -> Budget:
    """Return the budget of completions decoded at the same time."""
    return Budget(
        "engine.max_batch", max_batch, "completions at a time, with the same results up to rounding"
    )


class Batch:
    """The rows that decode together and the queue behind them."""

    def __init__(
        self,
        policy: LoadedPolicy,
        decode_step: PlainStep | FusedStep,
        requests: Mapping[int, SampleRequest],
        settings: SamplingConfig,
        num_rows: int,
        prefill_tokens: int,
    ) -> None:
        """Queue the requests, by index; nothing is computed yet."""
        self._policy = policy
        self._decode_step = decode_step
        self._settings = settings
        self._stops = StopTexts(policy.renderer.decode, settings.stop)
        self._prefill_tokens = prefill_tokens
        self._unknown = unknown_ids(policy.model)
        self._queue = deque(requests.items())
        self._prefilled: dict[tuple[int, ...], Prefilled] = {}
        longest = max(len(request.prompt_ids) for request in requests.values())
        self._cache = decode_step.open_cache(num_rows, longest, settings.max_completion_tokens)
        self._rows: list[Row | None] = [None] * num_rows

    @property
    def is_open(self) -> bool:
        """Whether completions are still in progress or queued."""
        return bool(self._queue) or any(row is not None for row in self._rows)

    @torch.inference_mode()
    def step(self) -> list[tuple[int, Sampled]]:
        """Refill or shrink the batch, decode one token of each row; return what finished."""
        finished = self._refill()
        self._close_gaps()
        rows = self._rows
        if not any(row is not None for row in rows):
            return finished
        logits = self._decode(rows)
        return finished + self._append(list(enumerate(rows)), logits)

    def _refill(self) -> list[tuple[int, Sampled]]:
        """Refill the batch from the queue once an eighth of it is free; return completions that end
        at once."""
        free = [number for number, row in enumerate(self._rows) if row is None]
        if not self._queue or len(free) < max(1, len(self._rows) // 8):
            return []
        entering: list[tuple[int, Row]] = []
        for number in free[: len(self._queue)]:
            index, request = self._queue.popleft()
            entering.append((number, Row(index, request.prompt_ids, Stream(request.seed))))
        self._prefill([row.prompt_ids for _, row in entering])
        by_prompt: dict[tuple[int, ...], list[int]] = {}
        for number, row in entering:
            by_prompt.setdefault(row.prompt_ids, []).append(number)
            self._rows[number] = row
        for ids, numbers in by_prompt.items():
            self._cache.place(numbers, self._prefilled[ids])
        logits = torch.stack([self._prefilled[row.prompt_ids].logits for _, row in entering])
        # The queue is ordered by prompt, so only the next prompt's states can be needed again.
        waiting = self._queue[0][1].prompt_ids if self._queue else None
        self._prefilled = {k: v for k, v in self._prefilled.items() if k == waiting}
        return self._append(entering, logits)

    def _prefill(self, prompts: Sequence[tuple[int, ...]]) -> None:
        """Run the new prompts through the model, longest first, with a bounded number of tokens per
        pass; a pass that is large enough takes no prompt that would be mostly padding.
        """
        wanted = {ids for ids in prompts if ids not in self._prefilled}
        todo = sorted(wanted, key=lambda ids: (len(ids), ids))
        while todo:
            width = len(todo[-1])
            enough = max(1, min(self._prefill_tokens, FULL_PASS) // width)
            begin = max(0, len(todo) - max(1, self._prefill_tokens // width))
            while len(todo) - begin > enough and len(todo[begin]) < SHORTEST * width:
                begin += 1
            self._prefill_pass(todo[begin:], width)
            del todo[begin:]

    def _prefill_pass(self, batch: Sequence[tuple[int, ...]], width: int) -> None:
        device = self._policy.model.device
        padded = [ids + (self._policy.pad_id,) * (width - len(ids)) for ids in batch]
        cache = PrefillCache()
        last = torch.tensor([len(ids) - 1 for ids in batch], device=device)
        hidden = self._policy.decoder(
            input_ids=torch.tensor(padded, device=device),
            position_ids=torch.arange(width, device=device).expand(len(batch), -1),
            past_key_values=cache,
            use_cache=True,
        ).last_hidden_state
        logits = self._policy.head(hidden[torch.arange(len(batch), device=device), last])
        for number, ids in enumerate(batch):
            keys, values = cache.row(number, len(ids))
            self._prefilled[ids] = Prefilled(ids, keys, values, logits[number].clone())

    def _close_gaps(self) -> None:
        """Shrink the batch if the queue is empty and an eighth of its rows is idle."""
        kept = [number for number, row in enumerate(self._rows) if row is not None]
        num_idle = len(self._rows) - len(kept)
        if kept and not self._queue and num_idle >= max(1, len(self._rows) // 8):
            self._cache.keep(kept)
            self._rows = [self._rows[number] for number in kept]

    def _decode(self, rows: Sequence[Row | None]) -> torch.Tensor:
        """Return the logits [R, V] after the newest token of each row; idle rows give noise."""
        device = self._policy.model.device
        tokens = [row.token_ids[-1] if row else self._policy.pad_id for row in rows]
        positions = [row.next_position if row else 0 for row in rows]
        reach = max(positions) + 1
        positions_R = torch.tensor(positions, device=device)
        tokens_R = torch.tensor(tokens, device=device)
        return self._decode_step.logits(tokens_R, positions_R, reach)

    def _append(
        self, rows: Sequence[tuple[int, Row | None]], logits: torch.Tensor
    ) -> list[tuple[int, Sampled]]:
        """Sample the next token of each row; free the rows that end with it."""
        uniforms = [row.stream.number(len(row.token_ids)) if row else 0.0 for _, row in rows]
        uniforms_R = torch.tensor(uniforms, dtype=sum_dtype(logits.device), device=logits.device)
        logits = mask_unknown(logits, self._unknown)
        tokens, logprobs = self._decode_step.draw(logits, uniforms_R, self._settings)
        finished = []
        for (number, row), token, logprob in zip(
            rows, tokens.tolist(), logprobs.tolist(), strict=True
        ):
            if row is None:
                continue
            row.token_ids.append(token)
            row.logprobs.append(logprob)
            is_stop = token in self._policy.stop_ids or self._is_stopped(row)
            if is_stop or len(row.token_ids) >= self._settings.max_completion_tokens:
                self._rows[number] = None
                reason: FinishReason = "stop" if is_stop else "length"
                sampled = Sampled(tuple(row.token_ids), tuple(row.logprobs), reason)
                finished.append((row.index, sampled))
        return finished

    def _is_stopped(self, row: Row) -> bool:
        """Whether the row's newest token completes a stop text."""
        return self._stops.end(row.token_ids, len(row.token_ids) - 1) is not None
