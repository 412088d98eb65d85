"""The parent's end of one worker: send jobs, read verdicts, kill it."""

import json
import os
import select
import signal
import socket
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

LEAST_PRIORITY = 19


class WorkerDied(Exception):
    """The worker hung up."""


class WorkerProcess:
    """A forked worker, in a process group of its own."""

    def __init__(self, pid: int, ours: socket.socket, generation: int) -> None:
        """Talk to the process through the socket."""
        self.pid = pid
        self.generation = generation
        self._socket = ours
        self._poll = select.poll()
        self._poll.register(ours, select.POLLIN)
        self._lines: deque[bytes] = deque()
        self._tail = b""

    @property
    def is_dead(self) -> bool:
        """Whether the process hung up while it had nothing to do."""
        return bool(self._poll.poll(0)) and not self._socket.recv(1, socket.MSG_PEEK)

    def send(self, jobs: Sequence[str]) -> None:
        """Hand over a batch, each job a JSON text; one that is dead shows so when it is read."""
        with suppress(BrokenPipeError, ConnectionResetError):
            self._socket.sendall(f"[{','.join(jobs)}]\n".encode())

    def fileno(self) -> int:
        """Return the descriptor to wait for."""
        return self._socket.fileno()

    def send_some(self, data: bytes) -> bytes:
        """Send as much as goes without waiting; return the rest."""
        with suppress(BlockingIOError, BrokenPipeError, ConnectionResetError):
            while data:
                data = data[self._socket.send(data, socket.MSG_DONTWAIT) :]
        return data

    def answers(self) -> Iterator[Sequence[Any]]:
        """Yield the answers that are here by now; WorkerDied when there will be none."""
        with suppress(BlockingIOError):
            self._receive(socket.MSG_DONTWAIT)
        while self._lines:
            yield json.loads(self._lines.popleft())

    def next_verdict(self, limit_s: float) -> Sequence[Any] | None:
        """Return the next verdict's fields, None when there is none in time.

        Raises WorkerDied when there will be none.
        """
        deadline = time.monotonic() + limit_s
        while not self._lines:
            left_s = deadline - time.monotonic()
            if left_s <= 0 or not self._poll.poll(left_s * 1000):
                return None
            self._receive()
        fields: Sequence[Any] = json.loads(self._lines.popleft())
        return fields

    def _receive(self, flags: int = 0) -> None:
        """Read once from the socket; WorkerDied at its end."""
        try:
            data = self._socket.recv(1 << 16, flags)
        except ConnectionResetError:
            data = b""
        if not data:
            raise WorkerDied
        *lines, self._tail = (self._tail + data).split(b"\n")
        self._lines.extend(lines)

    def kill(self) -> None:
        """Kill the process and whatever it started; any thread may."""
        try:
            os.killpg(self.pid, signal.SIGKILL)
        except ProcessLookupError:
            # Forked so shortly before that it has no group of its own yet, or gone.
            with suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)

    @property
    def is_busy(self) -> bool:
        """Whether it uses the processor, as far as the system tells (Linux), else yes."""
        try:
            status = Path(f"/proc/{self.pid}/stat").read_text()
        except OSError:
            return True
        return status.rpartition(")")[2].split()[0] == "R"

    def make_way(self) -> None:
        """Let others have the processor first."""
        with suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, self.pid, LEAST_PRIORITY)

    def close(self) -> None:
        """Kill the process and close our end; only the thread that reads from it may do so."""
        self.kill()
        self._socket.close()
