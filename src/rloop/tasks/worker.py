"""Inside the verifiers' interpreter: a fork server that imports verifiers once, and its workers.

A worker judges one completion after another, or, for verifiers that are `async def`, runs an event
loop in which many wait at once.

It is a plain interpreter started for this alone: no torch, no fork of the parent, no `__main__` of
the user's script. The server loads what verifiers need (seconds) and forks a worker (milliseconds)
when it is asked; a worker reads problems and completions, writes verdicts, and may be killed at any
time. Messages are lines of JSON on sockets; whatever a verifier prints goes to standard error.
"""

import array
import asyncio
import ctypes
import gc
import json
import os
import resource
import signal
import socket
import sys
import time
import warnings
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from rloop.tasks.verifiers import python, registry
from rloop.types import Problem, Verdict

OUT_OF_MEMORY = 70
"""Exit status of a process that reached its memory limit: it makes room by ending."""
_DEATH_LIMIT_S = 1.0
_PR_SET_PDEATHSIG = 1


def main(control_fd: int, parent_id: int, memory_bytes: int) -> None:
    """Be the fork server: answer each request of the parent until it is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _end_with_parent(parent_id)
    with suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))
    warnings.simplefilter("ignore")
    _turn_over_standard_streams()
    control = socket.socket(fileno=control_fd)
    _send(control, None)
    while request := _receive(control):
        (kind, value), fds = request
        if kind == "fork":
            _send(control, _fork(control, fds[0], is_async=value))
        elif kind == "load":
            _send(control, _load(value))
        else:
            _send(control, _end(value))


def _fork(control: socket.socket, inbox_fd: int, *, is_async: bool) -> int:
    """Return the process number of a new worker that talks through the descriptor."""
    gc.freeze()
    server = os.getpid()
    child = os.fork()
    if child:
        os.close(inbox_fd)
        return child
    # A group, so that what it starts can be killed with it; not a session, which Linux would give
    # a share of the processor of its own whatever its priority.
    os.setpgid(0, 0)
    _end_with_parent(server)
    control.close()
    status = 1
    try:
        with socket.socket(fileno=inbox_fd) as ours:
            if is_async:
                asyncio.run(serve_async(ours))
            else:
                serve(ours)
        status = 0
    finally:
        os._exit(status)


def serve(ours: socket.socket) -> None:
    """Answer each line of jobs with one line per verdict, in order, until the parent hangs up."""
    with ours.makefile("rb") as inbox:
        for line in inbox:
            for fields, text in json.loads(line):
                problem = Problem(**fields)
                _send(ours, encode(judge(problem, text), problem.verifier))


async def serve_async(ours: socket.socket) -> None:
    """Start each line's job at once, until the parent hangs up; how many wait is the parent's.

    A job is [key, limit_s, fields, text]. Two lines answer it: [key] when it starts, and
    [key, verdict] when it ends, in any order.
    """
    inbox, outbox = await asyncio.open_connection(sock=ours, limit=1 << 40)

    async def run(key: int, limit_s: float, fields: dict[str, Any], text: str) -> None:
        outbox.write(_line([key]))
        problem = Problem(**fields)
        verdict = await judge_async(problem, text, limit_s)
        outbox.write(_line([key, encode(verdict, problem.verifier)]))

    running = set[asyncio.Task[None]]()
    while line := await inbox.readline():
        task = asyncio.create_task(run(*json.loads(line)))
        running.add(task)
        task.add_done_callback(running.discard)


def judge(problem: Problem, text: str) -> Verdict:
    """Judge one completion; what the verifier raises becomes an error verdict."""
    try:
        return registry.judge(problem, text)
    except MemoryError:
        os._exit(OUT_OF_MEMORY)
    except Exception as error:  # noqa: BLE001 -- foreign code: the user's, sympy, reasoning-gym
        return _raised(error, problem, text)


async def judge_async(problem: Problem, text: str, limit_s: float) -> Verdict:
    """Judge one completion by an asynchronous verifier, which is cancelled at the limit."""
    limit = asyncio.timeout(limit_s)
    try:
        async with limit:
            return await registry.judge_async(problem, text)
    except MemoryError:
        os._exit(OUT_OF_MEMORY)
    except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001 -- the user's code
        if limit.expired():
            return Verdict(kind="error", reason=late(limit_s))
        return _raised(error, problem, text)


def late(limit_s: float) -> str:
    """Return the reason of a verdict that did not come in time."""
    return f"no verdict within {limit_s:g} s"


def _raised(error: BaseException, problem: Problem, text: str) -> Verdict:
    reason = f"the verifier raised {_sentence(error)}"
    if problem.verifier.startswith(python.PREFIX):
        one_line = " ".join(reason.split()).rstrip(".")
        reason = f"{one_line} {python.explained(error, problem, text)}"
    return Verdict(kind="error", reason=reason)


def problem_fields(problem: Problem) -> dict[str, Any]:
    """Return what a worker needs of a problem, for JSON."""
    return {
        "problem_id": problem.problem_id,
        "task": problem.task,
        "question": problem.question,
        "answer": problem.answer,
        "verifier": problem.verifier,
        "solution": problem.solution,
        "metadata": dict(problem.metadata),
    }


def encode(verdict: Verdict, verifier: str) -> Sequence[Any]:
    """Return a verdict as the JSON list that `decode` reads."""
    version = verdict.verifier_version or registry.version_of(verifier)
    return [verdict.kind, verdict.score, verdict.reason, verdict.answer, version]


def decode(fields: Sequence[Any]) -> Verdict:
    """Return the verdict that `encode` wrote."""
    kind, score, reason, answer, version = fields
    return Verdict(kind=kind, score=score, reason=reason, answer=answer, verifier_version=version)


def _load(fields: dict[str, Any]) -> str | bool:
    """Load what judging such a problem needs; return whether it is async, or why that failed."""
    problem = Problem(**fields)
    try:
        return registry.load(problem)
    except MemoryError:
        os._exit(OUT_OF_MEMORY)
    except Exception as error:  # noqa: BLE001 -- foreign code: the user's, sympy, reasoning-gym
        return f"verifier {problem.verifier} cannot be loaded: {_sentence(error)}"


def _end(process_id: int) -> int:
    """Return the exit status of a worker that is dead or is to be."""
    deadline = time.monotonic() + _DEATH_LIMIT_S
    while True:
        try:
            found, status = os.waitpid(process_id, os.WNOHANG)
        except ChildProcessError:
            return -signal.SIGKILL  # a worker of the server before this one, gone with it
        if found:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() > deadline:
            os.killpg(process_id, signal.SIGKILL)
        time.sleep(0.001)


def _sentence(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"[:300]


def _line(message: object) -> bytes:
    return json.dumps(message).encode() + b"\n"


def _send(pipe: socket.socket, message: object) -> None:
    pipe.sendall(_line(message))


def _receive(control: socket.socket) -> tuple[Any, list[int]] | None:
    """Return the next request with the descriptors that came along; None when the parent is gone.

    One request is on its way at a time, so a line end is the end of what has been sent.
    """
    text, fds = b"", array.array("i")
    while not text.endswith(b"\n"):
        data, found, _, _ = socket.recv_fds(control, 1 << 16, 1)
        if not data:
            return None
        text += data
        fds.extend(found)
    return json.loads(text), list(fds)


def _turn_over_standard_streams() -> None:
    """Give verifiers nothing to read, and let what they print go to standard error."""
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.dup2(2, 1)


def _end_with_parent(parent_id: int) -> None:
    """Ask the kernel (Linux) to kill this process when its parent dies, even in mid-verdict."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent_id:
        os._exit(0)
