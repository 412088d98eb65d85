"""The parent's end of the verifiers' processes: the fork server and the workers that it forks.

The server is one fresh interpreter that loads verifiers and forks workers (`worker.py`); a worker
is sent jobs, gives verdicts, and is killed.
"""

import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from rloop.tasks import worker
from rloop.tasks.verifiers import registry
from rloop.types import Problem

LEAST_PRIORITY = 19
LOAD_LIMIT_S = 60.0
"""Wall-clock limit on starting an interpreter and importing what a verifier needs."""
MEMORY_BYTES = 4 * 1024**3
"""Address space of one process."""
_COMMAND = """
import sys
sys.path[:] = {path!r}
from rloop.tasks.worker import main
main({fd}, {pid}, {memory})
"""
_ONE_THREAD = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
_OUT_OF_MEMORY = f"the verifier needed more than {MEMORY_BYTES / 1024**3:g} GiB of memory"
_DIED = "the verifier's process died with"


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


class ForkServer:
    """Gives workers that have loaded what they need; several threads may ask.

    The interpreter is started when it is first needed, by the thread that needs it, and again when
    it died. It ends with that thread.
    """

    def __init__(self) -> None:
        """Start nothing yet."""
        self._lock = threading.Lock()
        self._interpreter: _Interpreter | None = None
        self._loaded: dict[str, str | bool] = {}
        self._is_closed = False
        self.generation = 0
        """Rises when more has been loaded: workers of a lower one lack it."""

    def load(self, problem: Problem) -> str | bool:
        """Make sure that workers forked from now on can judge such problems.

        Return whether the verifier is `async def`, or why it cannot be loaded.
        """
        key = registry.load_key(problem)
        with self._lock:
            if key not in self._loaded:
                self._loaded[key] = self._ask("load", worker.problem_fields(problem))
                self.generation += 1
            return self._loaded[key]

    def fork(self, *, is_async: bool = False) -> WorkerProcess | str:
        """Return a new worker, with an event loop for async verifiers, or why there is none."""
        ours, theirs = socket.socketpair()
        with self._lock, theirs:
            pid = self._ask("fork", is_async, theirs)
            generation = self.generation
        if isinstance(pid, str):
            ours.close()
            return pid
        return WorkerProcess(pid, ours, generation)

    def end(self, process: WorkerProcess) -> str:
        """Close a worker that is dead or is to be; return how it died."""
        process.close()
        with self._lock:
            status = self._ask("end", process.pid)
        if status == worker.OUT_OF_MEMORY:
            return _OUT_OF_MEMORY
        return status if isinstance(status, str) else f"{_DIED} exit status {status}"

    def close(self) -> None:
        """Kill the interpreter, even while it loads something; there is no other from now on."""
        self._is_closed = True
        if self._interpreter is not None:
            self._interpreter.kill()
        with self._lock:
            self._drop()

    def _ask(self, kind: str, value: object, descriptor: socket.socket | None = None) -> Any:  # noqa: ANN401 (JSON)
        """Return the answer to a request, or the sentence that says why there is none."""
        if self._is_closed:
            return "the verifiers' interpreter was closed"
        if self._interpreter is None:
            self._interpreter = _Interpreter()
            # What the one before had loaded is gone with it.
            self._loaded = {}
        answer, trouble = self._interpreter.ask([kind, value], descriptor)
        if trouble:
            self._drop()
        return trouble or answer

    def _drop(self) -> None:
        if self._interpreter is not None:
            self._interpreter.close()
        self._interpreter = None


class _Interpreter:
    """A fresh interpreter that runs `worker.main`, in a session of its own.

    Ctrl-C does not reach it; it ends with its control socket, with the thread that started it, or
    by `close`.
    """

    def __init__(self) -> None:
        """Start the interpreter and return at once."""
        self._control, theirs = socket.socketpair()
        command = _COMMAND.format(
            path=[*sys.path, os.getcwd()], fd=theirs.fileno(), pid=os.getpid(), memory=MEMORY_BYTES
        )
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-c", command],
                stdin=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                start_new_session=True,
                env={**os.environ, **dict.fromkeys(_ONE_THREAD, "1")},
            )
        self._is_started = False

    def ask(self, request: object, descriptor: socket.socket | None) -> tuple[Any, str]:
        """Return the answer, or nothing and the reason why there is none."""
        deadline = time.monotonic() + LOAD_LIMIT_S
        try:
            if not self._is_started:
                self._line(deadline)
                self._is_started = True
            data = json.dumps(request).encode() + b"\n"
            fds = [] if descriptor is None else [descriptor.fileno()]
            sent = socket.send_fds(self._control, [data], fds)
            self._control.sendall(data[sent:])
            return json.loads(self._line(deadline)), ""
        except TimeoutError:
            return None, f"no verifier loaded within {LOAD_LIMIT_S:g} s"
        except (EOFError, ConnectionError):
            status = self._process.wait()
            is_full = status == worker.OUT_OF_MEMORY
            return None, _OUT_OF_MEMORY if is_full else f"{_DIED} exit status {status}"

    def kill(self) -> None:
        """Kill the process; any thread may."""
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)

    def close(self) -> None:
        """Kill the process and wait until it is gone."""
        self.kill()
        self._process.wait()
        self._control.close()

    def _line(self, deadline: float) -> bytes:
        text = b""
        while not text.endswith(b"\n"):
            self._control.settimeout(max(0.001, deadline - time.monotonic()))
            data = self._control.recv(1 << 16)
            if not data:
                raise EOFError
            text += data
        self._control.settimeout(None)
        return text
