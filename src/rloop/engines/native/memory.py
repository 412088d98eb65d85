"""Running out of memory: halve a budget once and try again; the second time, tell the user.

Works for all devices: PyTorch's own error on a GPU, and errors of its allocator and of Python on a
CPU.
"""

import ctypes
import gc
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import torch

from rloop.errors import EngineError

Result = TypeVar("Result")
WORDS = ("can't allocate memory", "out of memory", "not enough memory", "ALLOC_FAILED")
"""Texts in RuntimeErrors of PyTorch's CPU allocator, of the CUDA runtime and of its libraries."""

_log = logging.getLogger(__name__)


class Budget:
    """A setting that limits how much memory is used at once; it is halved at most once.

    Example: Budget("engine.max_batch", 64, "completions at a time, which say the same")
    """

    def __init__(self, setting: str, value: int, effect: str, *, hint: str = "") -> None:
        """Start with the recipe's value of the setting.

        `effect` follows the new value in the warning about halving, `hint` the value to try in the
        error.
        """
        self.value = self.given = value
        self._setting = setting
        self._effect = effect
        self._hint = hint

    def within(self, attempt: Callable[[int], Result]) -> Result:
        """Return attempt(value); if memory runs out, halve the value once and try again."""
        try:
            return attempt(self.value)
        except (RuntimeError, MemoryError) as error:
            self.halve(error)
        free()  # outside the handler: the error's traceback held the tensors
        return self.within(attempt)

    def halve(self, error: Exception) -> None:
        """Halve the value and warn; the second time raise EngineError; re-raise any other error."""
        if not is_out_of_memory(error):
            raise error
        half = max(1, self.value // 2)
        if self.value < self.given or self.value == 1:
            tried = f" after it was halved from {self.given}" if self.value < self.given else ""
            raise EngineError(
                f"Out of memory with {self._setting}={self.value}{tried}. Add --set "
                f"{self._setting}={half}{self._hint}."
            ) from error
        _log.warning(
            "Out of memory with %s=%d: continuing with %d %s.",
            self._setting,
            self.value,
            half,
            self._effect,
        )
        self.value = half


@contextmanager
def explained(what: str, remedy: str) -> Iterator[None]:
    """If memory runs out in the block, raise an EngineError with what to set."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise EngineError(f"Out of memory: {what} does not fit. {remedy}") from error


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error means that memory ran out, on any device."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(word in str(error) for word in WORDS)


def return_freed() -> None:
    """Return memory to the system that this process has freed but its C library still holds.

    A forward and backward pass leaves many freed pieces, none of which fits an optimizer's state:
    0.4 GB of SmolLM2's peak. Takes 30 to 60 ms; does nothing without glibc.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def free_bytes(device: torch.device) -> int | None:
    """Return a CUDA GPU's free bytes, including PyTorch's unused cache; None elsewhere."""
    if device.type != "cuda":
        return None
    free, _ = torch.cuda.mem_get_info(device)
    return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)


def free() -> None:
    """Release unreferenced memory for a second try."""
    gc.collect()
    return_freed()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    elif torch.backends.mps.is_available():
        torch.mps.empty_cache()
