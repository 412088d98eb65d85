"""Function calls in parallel, each in its own process with a log, a share of the cores and a
result.

Ctrl-C and SIGTERM reach only the parent, which passes them on once and waits until all have saved.
If the parent is killed, its calls save and end too.
"""

import multiprocessing
import os
import signal
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from threading import Thread
from typing import Any

from rloop.threads import allowed_cores


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """A module-level function with its arguments, all of which can be pickled.

    Example: Call(name="rl-seed-0", log=Path("rl-seed-0.log"), function=f, arguments=(1,))
    """

    name: str
    log: Path
    function: Callable[..., Any]
    arguments: tuple[Any, ...]


def run_side_by_side(
    calls: Sequence[Call],
    jobs: int,
    *,
    on_start: Callable[[Call], None],
    on_stop: Callable[[], None],
) -> Iterator[tuple[Call, object]]:
    """Run `jobs` calls at a time, started in order; yield each with its result when it ends.

    Each has cores / jobs threads and appends its output to its log. If a process dies, its result
    is a sentence that says so. If the user asks to stop, `on_stop` is called at once, and
    KeyboardInterrupt is raised after all calls have ended.
    """
    context = multiprocessing.get_context("spawn")
    waiting = list(calls)
    running: dict[Connection, tuple[Call, BaseProcess]] = {}
    threads = {"OMP_NUM_THREADS": str(max(1, allowed_cores() // jobs))}
    # SIGINT too: a shell starts background jobs with SIGINT ignored.
    previous = {
        number: signal.signal(number, signal.default_int_handler)
        for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        while waiting or running:
            while waiting and len(running) < jobs:
                call = waiting.pop(0)
                on_start(call)
                result, end = context.Pipe(duplex=False)
                process = context.Process(target=_work, args=(call, end), name=call.name)
                _start_with(process, threads)
                end.close()
                running[result] = (call, process)
            ready = set(wait(list(running)))
            for result in [result for result in running if result in ready]:
                call, started = running.pop(result)
                yield call, _received(call, result, started)
    finally:
        if running:
            on_stop()
            _stop([process for _, process in running.values()])
        for number, handler in previous.items():
            signal.signal(number, handler)


def _start_with(process: BaseProcess, variables: Mapping[str, str]) -> None:
    """Start a process with this environment, because libraries count their threads at import."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        process.start()
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _work(call: Call, end: Connection) -> None:
    """Run in the new process."""
    os.setpgrp()  # a terminal's Ctrl-C goes to the parent, which passes it on
    call.log.parent.mkdir(parents=True, exist_ok=True)
    sys.stdout = sys.stderr = call.log.open("a", buffering=1)
    for number in (1, 2):
        os.dup2(sys.stdout.fileno(), number)
    Thread(target=_end_with_parent, daemon=True).start()
    end.send(call.function(*call.arguments))


def _end_with_parent() -> None:
    """Save and end as after Ctrl-C if the parent was killed and cannot pass one on."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os.kill(os.getpid(), signal.SIGINT)


def _received(call: Call, result: Connection, process: BaseProcess) -> object:
    try:
        value: object = result.recv()
    except EOFError:
        value = None
    process.join()
    if value is None:
        cause = process.exitcode or 0
        how = (
            f"was killed by {signal.Signals(-cause).name}" if cause < 0 else f"exited with {cause}"
        )
        return f"its process {how}; {call.log} has its output"
    return value


def _stop(processes: Sequence[BaseProcess]) -> None:
    """Ask the processes to save and end, and wait; a second Ctrl-C stops them at once."""
    for process in processes:
        _signal(process)
    try:
        for process in processes:
            process.join()
    except KeyboardInterrupt:
        for process in processes:
            _signal(process)
        for process in processes:
            process.join()


def _signal(process: BaseProcess) -> None:
    if process.pid is not None and process.is_alive():
        os.kill(process.pid, signal.SIGINT)
