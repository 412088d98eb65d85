"""The parent's end of the verifiers' processes: the fork server and the workers that it forks.

The server is one fresh interpreter that loads verifiers and forks workers (`worker.py`); a worker
is sent jobs, gives verdicts, and is killed. All of it belongs to the event loop of one thread.
"""

import asyncio
import itertools
import json
import os
import signal
import socket
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

from rloop.tasks import worker
from rloop.tasks.verifiers import registry
from rloop.types import Problem, Verdict

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


class WorkerProcess:
    """A forked worker, in a process group of its own, and what it was asked."""

    def __init__(
        self, pid: int, generation: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        """Talk to the process through the streams."""
        self.pid = pid
        self.generation = generation
        self.is_dead = False
        self.asked: dict[int, asyncio.Future[Verdict | None]] = {}
        """What is not answered yet."""
        self._keys = itertools.count()
        self._reader, self._writer = reader, writer
        self._listener = asyncio.create_task(self._listen())

    def ask(self, fields: str, limit_s: float) -> "asyncio.Future[Verdict | None]":
        """Send a job; its verdict comes in the future, None from a worker that dies."""
        future: asyncio.Future[Verdict | None] = asyncio.get_running_loop().create_future()
        if self.is_dead:
            future.set_result(None)
            return future
        key = next(self._keys)
        self.asked[key] = future
        self._writer.write(f"[{key},{limit_s!r},{fields}]\n".encode())
        return future

    async def _listen(self) -> None:
        """Hand out verdicts until the process hangs up."""
        with suppress(ConnectionError):
            while line := await self._reader.readline():
                key, fields = json.loads(line)
                self.asked.pop(key).set_result(worker.decode(fields))
        self.is_dead = True
        for future in self.asked.values():
            future.set_result(None)
        self.asked.clear()

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
        """Kill the process and whatever it started, and hang up."""
        try:
            os.killpg(self.pid, signal.SIGKILL)
        except ProcessLookupError:
            # Forked so shortly before that it has no group of its own yet, or gone.
            with suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)
        self._writer.close()


class ForkServer:
    """Gives workers that have loaded what they need.

    The interpreter is started when it is first needed, in a session of its own, and again when it
    died. Ctrl-C does not reach it; it ends with its control socket, with the thread that started
    it, or by `close`.
    """

    def __init__(self) -> None:
        """Start nothing yet."""
        self._lock = asyncio.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._loaded: dict[str, str | bool] = {}
        self._workers: set[WorkerProcess] = set()
        self.generation = 0
        """Rises when more has been loaded: workers of a lower one lack it."""

    async def load(self, problem: Problem) -> str | bool:
        """Make sure that workers forked from now on can judge such problems.

        Return whether the verifier is `async def`, or why it cannot be loaded.
        """
        key = registry.load_key(problem)
        if key not in self._loaded:
            self._loaded[key] = await self._ask("load", worker.problem_fields(problem))
            self.generation += 1
        return self._loaded[key]

    async def fork(self, *, is_async: bool = False) -> WorkerProcess | str:
        """Return a new worker, with an event loop for async verifiers, or why there is none."""
        ours, theirs = socket.socketpair()
        generation = self.generation
        with theirs:
            pid = await self._ask("fork", is_async, theirs)
        if isinstance(pid, str):
            ours.close()
            return pid
        streams = await asyncio.open_connection(sock=ours, limit=worker.MAX_LINE)
        process = WorkerProcess(pid, generation, *streams)
        self._workers.add(process)
        return process

    async def end(self, process: WorkerProcess) -> str:
        """Close a worker that is dead or is to be; return how it died."""
        process.close()
        self._workers.discard(process)
        status = await self._ask("end", process.pid)
        return status if isinstance(status, str) else _death(status)

    def close(self) -> None:
        """Kill the interpreter, even while it loads something, and all workers."""
        for process in self._workers:
            process.close()
        if self._process is not None:
            self._drop(self._process)

    async def _ask(self, kind: str, value: object, sent: socket.socket | None = None) -> Any:  # noqa: ANN401 (JSON)
        """Return the answer to a request, or the sentence that says why there is none."""
        async with self._lock:
            try:
                async with asyncio.timeout(LOAD_LIMIT_S):
                    if self._process is None:
                        await self._start()
                    if sent is not None:  # a short request, which goes at once
                        socket.send_fds(self._control, [_line([kind, value])], [sent.fileno()])
                    else:
                        self._writer.write(_line([kind, value]))
                    return json.loads(await self._reader.readuntil())
            except TimeoutError:
                self._drop(self._process)
                return f"no verifier loaded within {LOAD_LIMIT_S:g} s"
            except (EOFError, ConnectionError):
                return _death(self._drop(self._process))
            except OSError as error:
                return f"no process for a verifier could be started: {error}"

    async def _start(self) -> None:
        """Start an interpreter that runs `worker.main`; what the last one had loaded is gone."""
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
        self._loaded = {}
        streams = await asyncio.open_connection(sock=self._control, limit=worker.MAX_LINE)
        self._reader, self._writer = streams
        await self._reader.readuntil()

    def _drop(self, process: subprocess.Popen[bytes] | None) -> int:
        """Kill the interpreter unless it is dead, hang up, and return its exit status."""
        assert process is not None, "it was started before it was asked"
        self._process = None
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        self._writer.close()
        return process.wait()


def _line(message: object) -> bytes:
    return json.dumps(message).encode() + b"\n"


def _death(status: int) -> str:
    if status == worker.OUT_OF_MEMORY:
        return f"the verifier needed more than {MEMORY_BYTES / 1024**3:g} GiB of memory"
    return f"the verifier's process died with exit status {status}"
