"""Worker processes that judge completions and can be killed.

One thread looks after each lane: it sends a worker a batch of jobs and reads verdicts one by one. A
verdict that is slow does not hold up the others: its worker is left alone with it until the limit,
the rest of the batch goes back to the queue, and the lane goes on with a fresh worker. A job that
reaches the limit becomes an `error` verdict and its worker is killed. Jobs of verifiers that are
`async def` go to lanes of their own (`async_lane.py`), where many wait in one worker.

What has been asked before (same problem, reference, verifier and text) is answered from memory.
"""

import hashlib
import json
import os
import threading
from collections import OrderedDict, deque
from collections.abc import Iterable
from concurrent.futures import Future
from functools import partial
from types import TracebackType
from typing import Self

from rloop.tasks import worker
from rloop.tasks.async_lane import AsyncLane, Job
from rloop.tasks.worker_process import ForkServer, WorkerDied, WorkerProcess
from rloop.types import Problem, Verdict

MAX_BATCH = 32
MAX_REMEMBERED = 100_000
"""Verdicts, of about 1 kB each."""
PATIENCE_S = 0.02
"""How long a lane waits for one verdict: a verdict takes about 0.0005 s, a hang the whole limit."""
MAX_ALONE = 32
"""Workers left alone with slow verdicts at the same time."""
STORM = 4
"""So many slow verdicts in a row that never came are a storm of hangs: what is slow from then on
gets little of the processor, until one of them comes after all."""
CLOSED = "the verifier pool was closed first"


class VerifierPool:
    """Judges completions in worker processes, each verdict within a wall-clock limit.

    Example:
        with VerifierPool(num_workers=2, timeout_s=5.0) as pool:
            verdicts = pool.verify([(problem, "The answer is 4."), (problem, "5")])
    """

    def __init__(
        self, num_workers: int = 1, timeout_s: float = 5.0, *, patience_s: float = PATIENCE_S
    ) -> None:
        """Start the lanes; what a verifier needs is imported when it is first used.

        `timeout_s` (seconds) is for problems that name no limit of their own.
        """
        self._timeout_s = timeout_s
        self._patience_s = patience_s
        self._jobs: deque[Job] = deque()
        self._asked: OrderedDict[bytes, Future[Verdict]] = OrderedDict()
        self._has_changed = threading.Condition()
        self._is_closed = False
        self._server = ForkServer()
        self._workers: set[WorkerProcess] = set()
        self._alone: dict[threading.Thread, WorkerProcess] = {}
        self._hangs_in_a_row = 0
        self._async_lanes: list[AsyncLane] = []
        self._lanes = [
            threading.Thread(target=self._look_after, name=f"verifier-{i}", daemon=True)
            for i in range(num_workers)
        ]
        for lane in self._lanes:
            lane.start()

    def submit(self, problem: Problem, completion_text: str) -> "Future[Verdict]":
        """Start judging; the future's result is a verdict whatever the completion says.

        The same question again gives the same future.
        """
        future: Future[Verdict] = Future()
        future.set_running_or_notify_cancel()  # from here on nobody can cancel it
        try:
            fields = json.dumps(worker.problem_fields(problem))
            text = json.dumps(completion_text)
        except (TypeError, ValueError) as error:
            job = Job(fields="", problem=problem, limit_s=0.0, future=future)
            job.fail(
                f"problem {problem.problem_id} has metadata that JSON cannot represent: {error}"
            )
            return future
        limit_s = problem.verifier_timeout_s or self._timeout_s
        job = Job(fields=f"{fields},{text}", problem=problem, limit_s=limit_s, future=future)
        key = hashlib.blake2b(job.fields.encode(), digest_size=16).digest()
        with self._has_changed:
            if self._is_closed:
                raise RuntimeError("the verifier pool is closed")
            if key in self._asked:
                self._asked.move_to_end(key)
                return self._asked[key]
            self._asked[key] = future
            if len(self._asked) > MAX_REMEMBERED:
                self._asked.popitem(last=False)
            self._jobs.append(job)
            self._has_changed.notify()
        return future

    def verify(self, pairs: Iterable[tuple[Problem, str]]) -> list[Verdict]:
        """Judge (problem, completion text) pairs and return their verdicts in the same order."""
        futures = [self.submit(problem, text) for problem, text in pairs]
        return [future.result() for future in futures]

    def close(self) -> None:
        """Kill the workers and answer what still waits with error verdicts."""
        with self._has_changed:
            self._is_closed = True
            self._has_changed.notify_all()
            for process in self._workers:
                process.kill()
            alone = list(self._alone)
        self._server.close()
        for thread in (*self._lanes, *alone):
            thread.join()
        for lane in self._async_lanes:
            lane.close()
        for job in self._jobs:
            job.fail(CLOSED)
        self._jobs.clear()

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

    def _look_after(self) -> None:
        """Run one lane for the life of the pool."""
        process: WorkerProcess | None = None
        while batch := self._take():
            batch = [job for job in batch if self._is_ours(job)]
            if not batch:
                continue
            found = self._ready(process)
            if isinstance(found, str):
                for job in batch:
                    self._fail(job, found)
                process = None
                continue
            process, left = self._run(found, batch)
            self._give_back(left)
        if process is not None:
            self._end(process)

    def _take(self) -> list[Job]:
        """Wait for jobs and return a fair share of them; none once the pool is closed."""
        with self._has_changed:
            self._has_changed.wait_for(lambda: self._jobs or self._is_closed)
            if self._is_closed:
                return []
            share = min(MAX_BATCH, -(-len(self._jobs) // len(self._lanes)))
            return [self._jobs.popleft() for _ in range(share)]

    def _give_back(self, jobs: list[Job]) -> None:
        with self._has_changed:
            self._jobs.extendleft(reversed(jobs))
            self._has_changed.notify_all()

    def _is_ours(self, job: Job) -> bool:
        """Whether the lane is to judge the job.

        It is answered when no worker can, and handed on when its verifier is async.
        """
        found = self._server.load(job.problem)
        if isinstance(found, str):
            self._fail(job, found)
        elif found:
            self._async_lane().submit(job)
        return found is False

    def _async_lane(self) -> AsyncLane:
        """Return the async lane with the fewest jobs; they start when the first one is needed."""
        with self._has_changed:
            if not self._async_lanes:
                ready = partial(self._ready, is_async=True)
                self._async_lanes = [AsyncLane(ready, self._end, self._fail) for _ in self._lanes]
        return min(self._async_lanes, key=lambda lane: lane.num_jobs)

    def _ready(
        self, process: WorkerProcess | None, *, is_async: bool = False
    ) -> WorkerProcess | str:
        """Return a worker that lives and has loaded all there is, or why there is none."""
        if process is not None:
            if not process.is_dead and process.generation == self._server.generation:
                return process
            self._end(process)
        found = self._server.fork(is_async=is_async)
        if isinstance(found, WorkerProcess):
            with self._has_changed:
                self._workers.add(found)
                if self._is_closed:
                    found.kill()
        return found

    def _run(
        self, process: WorkerProcess, batch: list[Job]
    ) -> tuple[WorkerProcess | None, list[Job]]:
        """Judge a batch; return the worker, None when it is spent, and the jobs left over."""
        process.send([f"[{job.fields}]" for job in batch])
        for position, job in enumerate(batch):
            try:
                fields = process.next_verdict(min(self._patience_s, job.limit_s))
            except WorkerDied:
                self._fail(job, self._end(process))
                return None, batch[position + 1 :]
            if fields is None:
                self._leave_alone(process, job)
                return None, batch[position + 1 :]
            job.future.set_result(worker.decode(fields))
        return process, []

    def _leave_alone(self, process: WorkerProcess, job: Job) -> None:
        """Let the worker finish a slow verdict beside the lane, or in it when many are at work.

        Verdicts that take honest work would starve each other beyond a few per core; workers that
        wait for something, and hangs in a storm, cost nothing.
        """
        with self._has_changed:
            self._alone = {t: p for t, p in self._alone.items() if t.is_alive()}
            num_busy = sum(other.is_busy for other in self._alone.values())
            is_storm = self._hangs_in_a_row >= STORM
            has_room = is_storm or not process.is_busy or num_busy < 2 * (os.cpu_count() or 1)
            is_alone = has_room and len(self._alone) < MAX_ALONE and not self._is_closed
            if is_alone:
                thread = threading.Thread(target=self._wait, args=(process, job), daemon=True)
                self._alone[thread] = process
                thread.start()
        if is_storm:
            process.make_way()
        if not is_alone:
            self._wait(process, job)

    def _wait(self, process: WorkerProcess, job: Job) -> None:
        """Read one slow verdict, at the limit an error, and end the worker."""
        try:
            fields = process.next_verdict(max(0.0, job.limit_s - self._patience_s))
        except WorkerDied:
            self._fail(job, self._end(process))
            return
        self._end(process)
        if fields is None:
            self._hangs_in_a_row += 1
            self._fail(job, worker.late(job.limit_s))
        else:
            self._hangs_in_a_row = 0
            job.future.set_result(worker.decode(fields))

    def _end(self, process: WorkerProcess) -> str:
        """Kill a worker unless it is dead; return how it died."""
        with self._has_changed:
            self._workers.discard(process)
        return self._server.end(process)

    def _fail(self, job: Job, reason: str) -> None:
        job.fail(CLOSED if self._is_closed else reason)
