"""Time on a device: CUDA events on a GPU, the performance counter elsewhere."""

import time

import torch


class Clock:
    """Marks in time and the seconds between them.

    On a GPU a mark passes when all that was queued before it is done; nothing waits for that until
    `seconds` asks.
    """

    def __init__(self, device: str) -> None:
        """No mark yet, on `cpu` or `cuda`."""
        self._on_gpu = device.startswith("cuda")
        self._events: list[torch.cuda.Event] = []
        self._times: list[float] = []

    def mark(self) -> None:
        """Set a mark."""
        if self._on_gpu:
            self._events.append(torch.cuda.Event(enable_timing=True))  # type: ignore[no-untyped-call]
            self._events[-1].record()
        else:
            self._times.append(time.perf_counter())

    def seconds(self, first: int = 0, last: int = -1) -> float:
        """Return the seconds between two marks."""
        if not self._on_gpu:
            return self._times[last] - self._times[first]
        self._events[last].synchronize()
        milliseconds: float = self._events[first].elapsed_time(self._events[last])
        return milliseconds / 1000
