"""A worker process: reads problems and completions, writes verdicts, may be killed at any time.

It is a plain interpreter started for this alone: no torch, no fork of the parent, no `__main__` of
the user's script. Lines of JSON go in and out; whatever a verifier prints goes to standard error.
"""

import ctypes
import json
import os
import resource
import signal
import sys
import warnings
from collections.abc import Sequence
from contextlib import suppress
from typing import IO, Any

from rloop.tasks.verifiers import registry
from rloop.types import Problem, Verdict

OUT_OF_MEMORY = 70
"""Exit status of a worker that reached its memory limit: it makes room by ending."""
LOADING = "loading"
LOADED = "loaded"
_PR_SET_PDEATHSIG = 1


def main(parent_id: int, memory_bytes: int) -> None:
    """Judge batches from standard input until it closes or the parent is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _end_with_parent(parent_id)
    with suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))
    warnings.simplefilter("ignore")
    inbox, outbox = _private_pipes()
    serve(inbox, outbox)


def serve(inbox: IO[bytes], outbox: IO[bytes]) -> None:
    """Answer each line of jobs with one line per verdict, in order.

    A line that says "loading" goes before anything that may take long once, "loaded" after it, so
    that the parent's limit per verdict does not count imports.
    """
    _send(outbox, LOADED)
    loaded: dict[str, Verdict | None] = {}
    for line in inbox:
        for fields, text in json.loads(line):
            problem = Problem(**fields)
            key = registry.load_key(problem)
            if key not in loaded:
                _send(outbox, LOADING)
                loaded[key] = _load(problem)
                _send(outbox, LOADED)
            verdict = loaded[key] or judge(problem, text)
            _send(outbox, encode(verdict, problem.verifier))


def judge(problem: Problem, text: str) -> Verdict:
    """Judge one completion; what the verifier raises becomes an error verdict."""
    try:
        return registry.judge(problem, text)
    except MemoryError:
        os._exit(OUT_OF_MEMORY)
    except Exception as error:  # noqa: BLE001 -- foreign code: the user's, sympy, reasoning-gym
        return Verdict(kind="error", reason=f"the verifier raised {_sentence(error)}")


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
    return [verdict.kind, verdict.reason, verdict.answer, version]


def decode(fields: Sequence[Any]) -> Verdict:
    """Return the verdict that `encode` wrote."""
    kind, reason, answer, version = fields
    return Verdict(kind=kind, reason=reason, answer=answer, verifier_version=version)


def _load(problem: Problem) -> Verdict | None:
    """Load what judging needs; return the error verdict of every such problem if that fails."""
    try:
        registry.load(problem)
    except MemoryError:
        os._exit(OUT_OF_MEMORY)
    except Exception as error:  # noqa: BLE001 -- foreign code: the user's, sympy, reasoning-gym
        reason = f"verifier {problem.verifier} cannot be loaded: {_sentence(error)}"
        return Verdict(kind="error", reason=reason)
    return None


def _sentence(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"[:300]


def _send(outbox: IO[bytes], message: object) -> None:
    outbox.write(json.dumps(message).encode() + b"\n")


def _private_pipes() -> tuple[IO[bytes], IO[bytes]]:
    """Return our two pipes and turn the standard ones over to whatever verifiers do."""
    inbox = os.fdopen(os.dup(0), "rb")
    outbox = os.fdopen(os.dup(1), "wb", buffering=0)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.dup2(2, 1)
    return inbox, outbox


def _end_with_parent(parent_id: int) -> None:
    """Ask the kernel (Linux) to kill this process when its parent dies, even in mid-verdict."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent_id:
        sys.exit(0)
