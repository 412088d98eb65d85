"""The parent's end of a worker for `async def` verifiers: many jobs wait in it at once.

The worker cancels what reaches its limit. Where it does not (the user's code blocks the event loop,
or refuses to be cancelled), or where it dies, it is killed, and what had started in it is judged
again, one at a time, so that an error falls on nobody but the job that caused it.
"""

import itertools
import select
import socket
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass

from rloop.tasks import worker
from rloop.tasks.verifiers.registry import version_of
from rloop.tasks.worker_process import WorkerDied, WorkerProcess
from rloop.types import Problem, Verdict

MAX_IN_FLIGHT = 64
"""Jobs of one worker at a time."""
GRACE_S = 1.0
"""How much longer than a job's limit its worker may stay silent about it."""


@dataclass(slots=True, kw_only=True)
class Job:
    """A problem and a completion, as JSON too, and where the verdict goes."""

    fields: str
    """The problem's fields and the completion, as the two entries of a JSON list."""
    problem: Problem
    limit_s: float
    future: "Future[Verdict]"
    has_failed: bool = False
    """Whether its worker died or hung while it and others were at work there."""

    def fail(self, reason: str) -> None:
        """Answer with an error verdict."""
        version = version_of(self.problem.verifier)
        self.future.set_result(Verdict(kind="error", reason=reason, verifier_version=version))


@dataclass(slots=True)
class _Flight:
    """A job at the worker, and by when it must be answered; None until it has started."""

    job: Job
    deadline: float | None = None


class AsyncLane:
    """One thread, and one worker at a time."""

    def __init__(
        self,
        ready: Callable[[WorkerProcess | None], WorkerProcess | str],
        end: Callable[[WorkerProcess], str],
        fail: Callable[[Job, str], None],
    ) -> None:
        """Look after jobs until closed.

        `ready` returns a worker that has loaded all there is, the given one where it has, or why
        there is none; `end` kills one and says how it died; `fail` answers a job with an error.
        """
        self._ready = ready
        self._end = end
        self._fail = fail
        self._lock = threading.Lock()
        self._waiting: deque[Job] = deque()
        self._flights: dict[int, _Flight] = {}
        self._keys = itertools.count()
        self._unsent = b""
        self._process: WorkerProcess | None = None
        self._is_closed = False
        self._bell, self._ringer = socket.socketpair()
        self._ringer.settimeout(0.0)
        self._thread = threading.Thread(target=self._look_after, name="async-verifier", daemon=True)
        self._thread.start()

    @property
    def num_jobs(self) -> int:
        """Return how many jobs wait or are at work."""
        return len(self._waiting) + len(self._flights)

    def submit(self, job: Job) -> None:
        """Judge it as soon as there is room."""
        with self._lock:
            if not self._is_closed:
                self._waiting.append(job)
                self._ring()
                return
        self._fail(job, "")

    def close(self) -> None:
        """Kill the worker and answer what is not judged with error verdicts."""
        with self._lock:
            self._is_closed = True
            self._ring()
        self._thread.join()
        self._bell.close()
        self._ringer.close()

    def _ring(self) -> None:
        with suppress(BlockingIOError):  # so many rings wait that one more says nothing new
            self._ringer.send(b"!")

    def _look_after(self) -> None:
        """Run the lane until it is closed."""
        while not self._is_closed:
            self._start()
            self._listen()
            self._check_time()
        if self._process is not None:
            self._end(self._process)
        for job in (*(flight.job for flight in self._flights.values()), *self._waiting):
            self._fail(job, "")

    def _start(self) -> None:
        """Send waiting jobs to the worker while there is room; suspects go alone."""
        if not self._flights and self._waiting:
            found = self._ready(self._process)
            self._process = None if isinstance(found, str) else found
            self._unsent = b""
            while isinstance(found, str) and self._waiting:
                self._fail(self._next_job(), found)
        while (job := self._may_start()) is not None:
            key = next(self._keys)
            self._flights[key] = _Flight(job)
            self._unsent += f"[{key},{job.limit_s!r},{job.fields}]\n".encode()

    def _may_start(self) -> Job | None:
        """Return the next job that may start now, no longer waiting; None without one.

        A job that was in a worker when it died or hung is alone in the next one.
        """
        if not self._waiting or len(self._flights) == MAX_IN_FLIGHT:
            return None
        is_suspect = self._waiting[0].has_failed
        is_alone_now = any(flight.job.has_failed for flight in self._flights.values())
        if is_alone_now or (is_suspect and self._flights):
            return None
        return self._next_job()

    def _next_job(self) -> Job:
        with self._lock:
            return self._waiting.popleft()

    def _listen(self) -> None:
        """Wait for a new job, room to send, an answer or a deadline; read what is there."""
        poll = select.poll()
        poll.register(self._bell, select.POLLIN)
        if self._process is not None:
            wanted = select.POLLIN | (select.POLLOUT if self._unsent else 0)
            poll.register(self._process, wanted)
        deadlines = [f.deadline for f in self._flights.values() if f.deadline is not None]
        wait_s = min(deadlines) - time.monotonic() if deadlines else None
        heard = dict(poll.poll(None if wait_s is None else max(0.0, wait_s * 1000 + 1)))
        if self._bell.fileno() in heard:
            self._bell.recv(1 << 16)
        process = self._process
        if process is None or process.fileno() not in heard:
            return
        try:
            self._unsent = process.send_some(self._unsent)
            for key, *verdict in process.answers():
                self._hear(key, *verdict)
        except WorkerDied:
            self._process = None
            self._give_back(self._end(process))

    def _hear(self, key: int, verdict: list[object] | None = None) -> None:
        flight = self._flights[key]
        if verdict is None:
            flight.deadline = time.monotonic() + flight.job.limit_s + GRACE_S
        else:
            del self._flights[key]
            flight.job.future.set_result(worker.decode(verdict))

    def _check_time(self) -> None:
        """Kill a worker that is silent about a job for too long."""
        late = [
            flight.job
            for flight in self._flights.values()
            if flight.deadline is not None and flight.deadline < time.monotonic()
        ]
        if late and self._process is not None:
            process, self._process = self._process, None
            self._end(process)
            self._give_back(worker.late(late[0].limit_s))

    def _give_back(self, reason: str) -> None:
        """Take the jobs of a worker that is gone back; the one that is to blame has failed.

        Where several had started it is not known which, so they go alone the next time.
        """
        flights, self._flights = list(self._flights.values()), {}
        started = [flight.job for flight in flights if flight.deadline is not None]
        started = started or [flight.job for flight in flights[:1]]
        if len(started) == 1:
            self._fail(started.pop(), reason)
        for job in started:
            job.has_failed = True
        others = [flight.job for flight in flights if not flight.job.future.done()]
        others = [job for job in others if not job.has_failed]
        with self._lock:
            self._waiting.extendleft(reversed(others))
            self._waiting.extend(started)
