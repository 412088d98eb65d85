"""The workers among themselves: what rloop says is heard by all, what they find goes to the first.

Messages are JSON in byte tensors over a gloo group of their own, whatever carries the gradients.
"""

from collections.abc import Sequence
from datetime import timedelta
from typing import Any, TypeVar

import torch
from torch import distributed

from rloop.engines.trl.channel import Channel
from rloop.engines.trl.messages import Idle, Message, from_json, list_adapter, to_json

IDLE_S = 60.0
"""The first worker says this often that there is nothing to do (seconds)."""
TIMEOUT = timedelta(minutes=30)
"""An exchange may take so long: who is lost is noticed sooner, by `watch.py`."""

Record = TypeVar("Record")


class Crew:
    """One worker's view: its rank, how many there are, and the way to rloop for the first."""

    def __init__(self, channel: Channel | None) -> None:
        """Join the others, once torch.distributed is up where there are any."""
        is_group = distributed.is_initialized()
        self.rank = distributed.get_rank() if is_group else 0
        self.size = distributed.get_world_size() if is_group else 1
        self._channel = channel
        self._again: Message | None = None
        self._group: Any = None
        if self.size > 1:
            self._group = distributed.new_group(backend="gloo", timeout=TIMEOUT)

    def receive(self) -> Message:
        """Return rloop's next command, the same in every worker."""
        if self._again is not None:
            message, self._again = self._again, None
            return message
        while isinstance(message := self._next(), Idle):
            pass
        return message

    def put_back(self, message: Message) -> None:
        """Have the command again from the next `receive`."""
        self._again = message

    def send(self, message: Message) -> None:
        """Answer rloop; the other workers keep silent."""
        if self._channel is not None:
            self._channel.send(message)

    def gather(self, own: Sequence[Record], kind: Any) -> list[list[Record]]:  # noqa: ANN401
        """Return every worker's records by rank, in the first worker; nothing in the others."""
        if self.size == 1:
            return [list(own)]
        adapter = list_adapter(kind)
        data = adapter.dump_json(list(own))
        if self.rank:
            self._send_bytes(data)
            return []
        others = [self._receive_bytes(rank) for rank in range(1, self.size)]
        return [list(own), *(adapter.validate_json(data) for data in others)]

    def wait(self) -> None:
        """Return when all workers are here."""
        if self.size > 1:
            distributed.barrier(group=self._group)

    def lost_ranks(self) -> list[int]:
        """Return the other workers whose connection is closed."""
        lost = []
        for rank in range(self.size):
            try:
                if rank != self.rank:
                    distributed.send(torch.zeros(1), dst=rank, group=self._group)
            except RuntimeError:
                lost.append(rank)
        return lost

    def _next(self) -> Message:
        message = None
        if self._channel is not None:
            message = self._channel.receive(IDLE_S) or Idle()
        if self.size == 1:
            assert message is not None, "a worker alone has its own way to rloop"
            return message
        data = to_json(message) if message is not None else b""
        length = torch.tensor([len(data)])
        distributed.broadcast(length, 0, group=self._group)
        buffer = _to_tensor(data) if self.rank == 0 else torch.empty(int(length), dtype=torch.uint8)
        distributed.broadcast(buffer, 0, group=self._group)
        return message or from_json(_to_bytes(buffer))

    def _send_bytes(self, data: bytes) -> None:
        distributed.send(torch.tensor([len(data)]), dst=0, group=self._group)
        distributed.send(_to_tensor(data), dst=0, group=self._group)

    def _receive_bytes(self, rank: int) -> bytes:
        length = torch.zeros(1, dtype=torch.int64)
        distributed.recv(length, src=rank, group=self._group)
        buffer = torch.empty(int(length), dtype=torch.uint8)
        distributed.recv(buffer, src=rank, group=self._group)
        return _to_bytes(buffer)


def _to_tensor(data: bytes) -> torch.Tensor:
    return torch.frombuffer(bytearray(data), dtype=torch.uint8)


def _to_bytes(tensor: torch.Tensor) -> bytes:
    return tensor.numpy().tobytes()
