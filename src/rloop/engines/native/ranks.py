"""The processes that a launcher started, one per device: `torchrun --nproc-per-node 2 -m rloop
...`.

Rank 0 runs the loop. The other ranks repeat every call to its engine (`parallel.py`), each with its
share of the sequences; gradients and metrics are summed in float32.
"""

import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist

from rloop.algo.schedule import split_evenly
from rloop.errors import EngineError

Item = TypeVar("Item")
Result = TypeVar("Result")
PATIENCE = timedelta(days=7)
"""How long a process waits for a live one, because rank 0 may verify and select for hours. A
process that dies closes its connections, which is noticed at once."""


class Ranks:
    """The group of all processes."""

    def __init__(self) -> None:
        """Connect to the others; EngineError if they do not come."""
        self.rank, self.size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
        self.local_rank = int(os.environ.get("LOCAL_RANK", "0"))
        backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
        with self._reached():
            dist.init_process_group(backend, timeout=PATIENCE)

    def share(self, items: Sequence[Item]) -> Sequence[Item]:
        """Return this process's part, a contiguous one, of a list that all have."""
        parts = split_evenly(items, self.size)
        return parts[self.rank] if self.rank < len(parts) else ()

    def tell(self, command: tuple[Any, ...]) -> None:
        """Send a command from rank 0 to all others."""
        with self._reached():
            dist.broadcast_object_list([command], src=0)

    def hear(self) -> tuple[Any, ...]:
        """Wait for the next command of rank 0."""
        command: list[Any] = [None]
        with self._reached():
            dist.broadcast_object_list(command, src=0)
        found: tuple[Any, ...] = command[0]
        return found

    def gather(self, found: object) -> list[Any]:
        """Return the results of all processes by rank, on rank 0 only."""
        everything: list[Any] | None = [None] * self.size if self.rank == 0 else None
        with self._reached():
            dist.gather_object(found, everything, dst=0)
        return everything or []

    def agree(self, attempt: Callable[[], Result]) -> Result:
        """Return the attempt's result in this process, once it has succeeded in all.

        An error in any process is raised in all, so that none waits for the others.
        """
        result, error = None, None
        try:
            result = attempt()
        except EngineError as found:
            error = found
        errors: list[Any] = [None] * self.size
        with self._reached():
            dist.all_gather_object(errors, error)
        failed = next((one for one in errors if one is not None), None)
        if failed is not None:
            raise failed
        return result  # type: ignore[return-value]  # there is no error, so there is a result

    def add(self, tensors: Sequence[torch.Tensor]) -> None:
        """Sum tensors over the processes, in place."""
        self._reduce(tensors, dist.ReduceOp.SUM)

    def maximum(self, tensors: Sequence[torch.Tensor]) -> None:
        """Take the largest over the processes, in place."""
        self._reduce(tensors, dist.ReduceOp.MAX)

    def spread(self, tensors: Sequence[tuple[torch.Tensor, int]]) -> None:
        """Send each tensor from the process whose number is beside it to all others."""
        with self._reached():
            works = [dist.broadcast(tensor, owner, async_op=True) for tensor, owner in tensors]
            for work in works:
                work.wait()

    def fetch(self, tensors: Mapping[str, torch.Tensor], owner: int) -> dict[str, torch.Tensor]:
        """Return the owner's tensors on rank 0, in CPU memory; nothing on the others."""
        kinds: list[Any] = [{key: (t.shape, t.dtype, t.device.type) for key, t in tensors.items()}]
        found = {}
        with self._reached():
            dist.broadcast_object_list(kinds, src=owner)
            for key, (shape, dtype, device) in kinds[0].items():
                if self.rank == owner == 0:
                    found[key] = tensors[key].cpu()
                elif self.rank == owner:
                    dist.send(tensors[key].contiguous(), dst=0)
                elif self.rank == 0:
                    received = torch.empty(shape, dtype=dtype, device=device)
                    dist.recv(received, src=owner)
                    found[key] = received.cpu()
        return found

    def leave(self) -> None:
        """Leave the group."""
        if dist.is_initialized():
            dist.destroy_process_group()

    def _reduce(self, tensors: Sequence[torch.Tensor], operation: Any) -> None:  # noqa: ANN401
        with self._reached():
            works = [dist.all_reduce(tensor, operation, async_op=True) for tensor in tensors]
            for work in works:
                work.wait()

    @contextmanager
    def _reached(self) -> Iterator[None]:
        """Raise an EngineError if another process is gone."""
        try:
            yield
        except RuntimeError as error:  # DistBackendError too
            reason = re.sub(r"^\[[^]]*\]\s*|\. .*", "", str(error), flags=re.DOTALL)
            raise EngineError(
                f"Process {self.rank} of {self.size} lost the others ({reason:.100}): one of them "
                f"has ended; see its output above."
            ) from error
