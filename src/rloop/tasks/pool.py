"""Worker processes that judge completions and can be killed.

One thread looks after each worker: it sends a batch of jobs, reads verdicts one by one, and kills
the worker when one takes too long. The job in hand becomes an `error` verdict, the rest of the
batch goes back to the queue, and a new worker takes the place.
"""

import json
import threading
from collections import deque
from collections.abc import Iterable
from concurrent.futures import Future
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from rloop.tasks import worker
from rloop.tasks.verifiers.registry import version_of
from rloop.tasks.worker_process import WorkerProcess
from rloop.types import Problem, Verdict

MAX_BATCH = 32
CLOSED = "the verifier pool was closed first"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Job:
    """A problem and a completion as JSON, and where the verdict goes."""

    line: str
    verifier: str
    future: "Future[Verdict]"

    def fail(self, reason: str) -> None:
        """Answer with an error verdict."""
        version = version_of(self.verifier)
        verdict = Verdict(kind="error", reason=reason, verifier_version=version)
        self.future.set_result(verdict)


class VerifierPool:
    """Judges completions in worker processes, each verdict within a wall-clock limit.

    Example:
        with VerifierPool(num_workers=2, timeout_s=5.0) as pool:
            verdicts = pool.verify([(problem, "The answer is 4."), (problem, "5")])
    """

    def __init__(self, num_workers: int = 1, timeout_s: float = 5.0) -> None:
        """Start the workers; they import what a verifier needs when it is first used."""
        self._timeout_s = timeout_s
        self._jobs: deque[_Job] = deque()
        self._has_changed = threading.Condition()
        self._is_closed = False
        self._workers: dict[int, WorkerProcess] = {}
        self._threads = [
            threading.Thread(target=self._look_after, args=(i,), name=f"verifier-{i}", daemon=True)
            for i in range(num_workers)
        ]
        for thread in self._threads:
            thread.start()

    def submit(self, problem: Problem, completion_text: str) -> "Future[Verdict]":
        """Start judging; the future's result is a verdict whatever the completion says."""
        future: Future[Verdict] = Future()
        future.set_running_or_notify_cancel()  # from here on nobody can cancel it
        try:
            line = json.dumps([worker.problem_fields(problem), completion_text])
        except (TypeError, ValueError) as error:
            job = _Job(line="", verifier=problem.verifier, future=future)
            job.fail(f"problem {problem.problem_id} has metadata that JSON cannot hold: {error}")
            return future
        with self._has_changed:
            if self._is_closed:
                raise RuntimeError("the verifier pool is closed")
            self._jobs.append(_Job(line=line, verifier=problem.verifier, future=future))
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
            for process in self._workers.values():
                process.kill()
        for thread in self._threads:
            thread.join()
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

    def _look_after(self, index: int) -> None:
        """Run one worker for the life of the pool, replacing it when it dies."""
        process = self._start(index)
        while process is not None and (batch := self._take()):
            if process.is_dead:
                process.close()
                process = self._start(index)
            left = batch if process is None else self._run(process, batch)
            with self._has_changed:
                self._jobs.extendleft(reversed(left))
                self._has_changed.notify_all()
        if process is not None:
            process.close()

    def _start(self, index: int) -> WorkerProcess | None:
        """Start a worker unless the pool is closed, so that `close` knows every worker."""
        with self._has_changed:
            if self._is_closed:
                return None
            self._workers[index] = process = WorkerProcess()
            return process

    def _take(self) -> list[_Job]:
        """Wait for jobs and return a fair share of them; none once the pool is closed."""
        with self._has_changed:
            self._has_changed.wait_for(lambda: self._jobs or self._is_closed)
            if self._is_closed:
                return []
            share = min(MAX_BATCH, -(-len(self._jobs) // len(self._threads)))
            return [self._jobs.popleft() for _ in range(share)]

    def _run(self, process: WorkerProcess, batch: list[_Job]) -> list[_Job]:
        """Judge a batch; return the jobs left over when the worker had to be killed."""
        process.send([job.line for job in batch])
        for position, job in enumerate(batch):
            fields, trouble = process.next_verdict(self._timeout_s)
            if trouble:
                process.kill()
                job.fail(CLOSED if self._is_closed else trouble)
                return batch[position + 1 :]
            job.future.set_result(worker.decode(fields))
        return []
