"""The parent's end of one worker process: start it, send jobs, read verdicts, kill it."""

import json
import os
import select
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from typing import IO, Any, cast

from rloop.tasks import worker

LOAD_LIMIT_S = 60.0
"""Wall-clock limit on starting an interpreter and importing what a verifier needs."""
MEMORY_BYTES = 4 * 1024**3
"""Address space of one worker."""
_COMMAND = """
import sys
sys.path[:] = {path!r}
from rloop.tasks.worker import main
main({pid}, {memory})
"""
_ONE_THREAD = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


class WorkerProcess:
    """A fresh interpreter that runs `worker.main`, in a session of its own.

    Ctrl-C does not reach it; it ends with its input, with its parent, or by `kill`.
    """

    def __init__(self) -> None:
        """Start the interpreter and return at once."""
        path = [*sys.path, os.getcwd()]
        command = _COMMAND.format(path=path, pid=os.getpid(), memory=MEMORY_BYTES)
        self._process = subprocess.Popen(
            [sys.executable, "-c", command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
            start_new_session=True,
            env={**os.environ, **dict.fromkeys(_ONE_THREAD, "1")},
        )
        self._inbox, self._outbox = (
            cast(IO[bytes], self._process.stdin),
            cast(IO[bytes], self._process.stdout),
        )
        self._poll = select.poll()
        self._poll.register(self._outbox, select.POLLIN)
        self._lines: deque[bytes] = deque()
        self._tail = b""
        self._is_loading = True

    @property
    def is_dead(self) -> bool:
        """Whether the process has ended."""
        return self._process.poll() is not None

    def send(self, jobs: Sequence[str]) -> None:
        """Hand over a batch, each job a JSON text; one that is dead shows so when it is read."""
        batch = memoryview(f"[{','.join(jobs)}]\n".encode())
        with suppress(BrokenPipeError):
            while batch:
                batch = batch[self._inbox.write(batch) or 0 :]

    def next_verdict(self, timeout_s: float) -> tuple[Sequence[Any], str]:
        """Return the next verdict's fields, or nothing and the reason why there is none."""
        while True:
            limit_s = LOAD_LIMIT_S if self._is_loading else timeout_s
            message, trouble = self._next_message(limit_s)
            if message == worker.LOADING or message == worker.LOADED:
                self._is_loading = message == worker.LOADING
            else:
                return message, trouble

    def kill(self) -> None:
        """Kill the process and whatever it started, and wait until it is gone."""
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def close(self) -> None:
        """Kill the process and close our end; only the thread that reads from it may do so."""
        self.kill()
        self._inbox.close()
        self._outbox.close()

    def _next_message(self, limit_s: float) -> tuple[Any, str]:
        deadline = time.monotonic() + limit_s
        while not self._lines:
            left_s = deadline - time.monotonic()
            if left_s <= 0 or not self._poll.poll(left_s * 1000):
                what = "verifier loaded" if self._is_loading else "verdict"
                return (), f"no {what} within {limit_s:g} s"
            data = os.read(self._outbox.fileno(), 1 << 16)
            if not data:
                return (), self._death()
            *lines, self._tail = (self._tail + data).split(b"\n")
            self._lines.extend(lines)
        return json.loads(self._lines.popleft()), ""

    def _death(self) -> str:
        status = self._process.wait()
        if status == worker.OUT_OF_MEMORY:
            return f"the verifier needed more than {MEMORY_BYTES / 1024**3:g} GiB of memory"
        return f"the verifier's process died with exit status {status}"
