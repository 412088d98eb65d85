"""Worker processes that judge completions and can be killed.

One thread runs an event loop; judging a completion is a coroutine in it. A worker has one job at a
time, or many that wait where the verifier is `async def`. A verdict that is slow does not hold up
the others: it gives its slot to a fresh worker and is waited for beside them. A job that reaches
the limit becomes an `error` verdict and its worker is killed.

What has been asked before (same problem, reference, verifier and text) is answered from memory.
"""

import asyncio
import hashlib
import json
import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Coroutine, Iterable
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from types import TracebackType
from typing import Any, Self

from rloop.tasks import worker
from rloop.tasks.verifiers.registry import version_of
from rloop.tasks.worker_process import ForkServer, WorkerProcess
from rloop.types import Problem, Verdict

MAX_REMEMBERED = 100_000
"""Verdicts, of about 1 kB each."""
PATIENCE_S = 0.02
"""How long a verdict keeps its slot: it takes about 0.0005 s, a hang the whole limit."""
MAX_BESIDE = 32
"""Slow verdicts that are waited for beside the slots."""
STORM = 4
"""So many slow verdicts in a row that never came are a storm of hangs: what is slow from then on
gets little of the processor, until one of them comes after all."""
MAX_IN_FLIGHT = 64
"""Jobs that wait in one worker of `async def` verifiers."""
GRACE_S = 1.0
"""How much longer than a job's limit such a worker, which cancels it, may be silent about it."""
CLOSED = "the verifier pool was closed first"


@dataclass(slots=True, kw_only=True, eq=False)
class Job:
    """A problem and a completion, as JSON too, and where the verdict goes."""

    fields: str
    """The problem's fields and the completion, as the two entries of a JSON list."""
    problem: Problem
    limit_s: float
    future: "Future[Verdict]"

    def answer(self, found: Verdict | str) -> None:
        """Give the verdict, or an error verdict with a reason."""
        if isinstance(found, str):
            version = version_of(self.problem.verifier)
            found = Verdict(kind="error", reason=found, verifier_version=version)
        self.future.set_result(found)


class VerifierPool:
    """Judges completions in worker processes, each verdict within a wall-clock limit.

    Example:
        with VerifierPool(num_workers=2, timeout_s=5.0) as pool:
            verdicts = pool.verify([(problem, "The answer is 4."), (problem, "5")])
    """

    def __init__(
        self, num_workers: int = 1, timeout_s: float = 5.0, *, patience_s: float = PATIENCE_S
    ) -> None:
        """Start the thread; what a verifier needs is imported when it is first used.

        `timeout_s` (seconds) is for problems that name no limit of their own.
        """
        self._timeout_s = timeout_s
        self._patience_s = patience_s
        self._num_workers = num_workers
        self._asked: OrderedDict[bytes, Future[Verdict]] = OrderedDict()
        self._lock = threading.Lock()
        self._is_closed = False
        self._open: set[Job] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._server = ForkServer()
        self._idle: list[WorkerProcess] = []
        self._shared: list[WorkerProcess] = []
        self._hangs_in_a_row = 0
        self._choosing = asyncio.Lock()
        self._beside: set[WorkerProcess] = set()
        self._alone = asyncio.Semaphore(MAX_BESIDE)
        self._new: asyncio.Queue[Job] = asyncio.Queue()
        self._closing = asyncio.Event()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="verifiers", daemon=True)
        self._thread.start()

    def submit(self, problem: Problem, completion_text: str) -> "Future[Verdict]":
        """Start judging; the future's result is a verdict whatever the completion says.

        The same question again gives the same future.
        """
        future: Future[Verdict] = Future()
        future.set_running_or_notify_cancel()  # from here on nobody can cancel it
        job = Job(fields="", problem=problem, limit_s=0.0, future=future)
        try:
            fields = json.dumps(worker.problem_fields(problem))
            text = json.dumps(completion_text)
        except (TypeError, ValueError) as error:
            job.answer(
                f"problem {problem.problem_id} has metadata that JSON cannot represent: {error}"
            )
            return future
        job.limit_s, job.fields = problem.verifier_timeout_s or self._timeout_s, f"{fields},{text}"
        key = hashlib.blake2b(job.fields.encode(), digest_size=16).digest()
        with self._lock:
            if self._is_closed:
                raise RuntimeError("the verifier pool is closed")
            if key in self._asked:
                self._asked.move_to_end(key)
                return self._asked[key]
            self._asked[key] = future
            if len(self._asked) > MAX_REMEMBERED:
                self._asked.popitem(last=False)
            self._loop.call_soon_threadsafe(self._new.put_nowait, job)
        return future

    def verify(self, pairs: Iterable[tuple[Problem, str]]) -> list[Verdict]:
        """Judge (problem, completion text) pairs and return their verdicts in the same order."""
        futures = [self.submit(problem, text) for problem, text in pairs]
        return [future.result() for future in futures]

    def close(self) -> None:
        """Kill the workers and answer what still waits with error verdicts."""
        with self._lock:
            if not self._is_closed:
                self._is_closed = True
                self._loop.call_soon_threadsafe(self._closing.set)
        self._thread.join()

    def __enter__(self) -> Self:
        """Return the pool itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close the pool."""
        self.close()

    def _run(self) -> None:
        """Run the event loop for the life of the pool."""
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_until_complete(self._serve())
        finally:
            self._loop.close()
            for job in list(self._open):
                job.answer(CLOSED)

    async def _serve(self) -> None:
        plain, judges = asyncio.Queue[Job](), asyncio.Queue[Job]()
        slots = asyncio.Semaphore(self._num_workers)
        flights = asyncio.Semaphore(self._num_workers * MAX_IN_FLIGHT)
        self._start(self._sort(plain, judges))
        self._start(self._feed(plain, slots, self._judge))
        self._start(self._feed(judges, flights, self._judge_beside_others))
        await self._closing.wait()
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        while not self._new.empty():
            self._open.add(self._new.get_nowait())

    def _start(self, coroutine: Coroutine[Any, Any, None]) -> None:
        task = self._loop.create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _sort(self, plain: "asyncio.Queue[Job]", judges: "asyncio.Queue[Job]") -> None:
        """Load what new jobs need and part those whose verifier is `async def` from the others."""
        while True:
            job = await self._new.get()
            self._open.add(job)
            job.future.add_done_callback(partial(self._forget, job))
            is_async = await self._server.load(job.problem)
            if isinstance(is_async, str):
                job.answer(is_async)
            else:
                (judges if is_async else plain).put_nowait(job)

    def _forget(self, job: Job, _: "Future[Verdict]") -> None:
        self._open.discard(job)

    async def _feed(
        self,
        queue: "asyncio.Queue[Job]",
        slots: asyncio.Semaphore,
        judge: "Callable[[Job, asyncio.Semaphore], Coroutine[Any, Any, None]]",
    ) -> None:
        """Judge each job of a queue as soon as there is a slot for it."""
        while True:
            await slots.acquire()
            self._start(judge(await queue.get(), slots))

    async def _judge(self, job: Job, slots: asyncio.Semaphore) -> None:
        """Judge a job in a worker of its own; a slow one gives its slot away."""
        has_slot = True
        try:
            process = await self._idle_worker()
            if isinstance(process, str):
                job.answer(process)
                return
            asked, deadline = process.ask(job.fields, job.limit_s), self._loop.time() + job.limit_s
            await asyncio.wait({asked}, timeout=min(self._patience_s, job.limit_s))
            if not asked.done():
                if self._has_room_for(process):
                    slots.release()
                    has_slot = False
                    self._beside.add(process)
                await asyncio.wait({asked}, timeout=max(0.0, deadline - self._loop.time()))
                self._beside.discard(process)
            found = asked.result() if asked.done() else None
            if found is not None and has_slot:
                self._idle.append(process)
                job.answer(found)
                return
            is_late = not asked.done()
            self._hangs_in_a_row = self._hangs_in_a_row + 1 if is_late else 0
            reason = await self._server.end(process)
            job.answer(found or (worker.late(job.limit_s) if is_late else reason))
        finally:
            if has_slot:
                slots.release()

    def _has_room_for(self, process: WorkerProcess) -> bool:
        """Whether a slow worker may go on beside the slots.

        Verdicts that take honest work would starve each other beyond a few per core; workers that
        wait for something, and hangs in a storm, cost nothing.
        """
        if is_storm := self._hangs_in_a_row >= STORM:
            process.make_way()
        num_busy = sum(other.is_busy for other in self._beside)
        is_cheap = is_storm or not process.is_busy or num_busy < 2 * (os.cpu_count() or 1)
        return is_cheap and len(self._beside) < MAX_BESIDE

    async def _idle_worker(self) -> WorkerProcess | str:
        """Return a worker that lives and has loaded all there is, or why there is none."""
        while self._idle:
            process = self._idle.pop()
            if not process.is_dead and process.generation == self._server.generation:
                return process
            await self._server.end(process)
        return await self._server.fork()

    async def _judge_beside_others(self, job: Job, flights: asyncio.Semaphore) -> None:
        """Judge a job by an `async def` function, in a worker where others wait too.

        Where such a worker hangs or dies it is not known by which job: each is judged again, in a
        worker of its own, so that an error falls on nobody but the job that caused it.
        """
        try:
            process = await self._shared_worker()
            if isinstance(process, str):
                job.answer(process)
                return
            found = await self._ask_async(process, job)
            if found is None and process in self._shared:
                self._shared.remove(process)
                await self._server.end(process)
            job.answer(found or await self._judge_alone(job))
        finally:
            flights.release()

    async def _shared_worker(self) -> WorkerProcess | str:
        """Return the one of a few workers with the fewest jobs, or why there is none."""
        async with self._choosing:
            if len(self._shared) < self._num_workers:
                process = await self._server.fork(is_async=True)
                if isinstance(process, str):
                    return process
                self._shared.append(process)
            return min(self._shared, key=lambda process: len(process.asked))

    async def _ask_async(self, process: WorkerProcess, job: Job) -> Verdict | None:
        """Return the verdict; None from a worker that hangs or has died."""
        asked = process.ask(job.fields, job.limit_s)
        await asyncio.wait({asked}, timeout=job.limit_s + GRACE_S)
        return asked.result() if asked.done() else None

    async def _judge_alone(self, job: Job) -> Verdict | str:
        async with self._alone:
            process = await self._server.fork(is_async=True)
            if isinstance(process, str):
                return process
            found = await self._ask_async(process, job)
            is_dead, reason = process.is_dead, await self._server.end(process)
            return found or (reason if is_dead else worker.late(job.limit_s))
