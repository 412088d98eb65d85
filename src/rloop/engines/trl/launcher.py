"""`accelerate launch`, with a note of which worker ended first: `python -m ... NOTE OPTIONS`."""

import signal
import socket
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from accelerate.commands.launch import launch_command, launch_command_parser
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure

CONSEQUENCES = ("closed by peer", "reset by peer", "Connection refused", "Broken pipe")
"""In the error of a worker that another one's end has ended."""


def main(note: Path, arguments: list[str]) -> int:
    """Return 0 when all workers ended well; else write the note and return 1."""
    foreign: Any = launch_command_parser()
    try:
        launch_command(foreign.parse_args(arguments))
    except ChildFailedError as error:
        rank, failure = first_failure(error.failures)
        note.write_text(f"worker rank {rank} on {socket.gethostname()} {reason(failure)}")
        return 1
    except Exception as error:
        note.write_text(f"accelerate launch failed ({type(error).__name__}: {error})")
        raise
    return 0


def first_failure(failures: Mapping[int, ProcessFailure]) -> tuple[int, ProcessFailure]:
    """Return the rank and failure that the others follow from: their times are whole seconds."""

    def follows(rank: int) -> tuple[bool, bool, int]:
        failure = failures[rank]
        is_consequence = any(words in str(failure.message) for words in CONSEQUENCES)
        return failure.exitcode == -signal.SIGTERM, is_consequence, failure.timestamp

    rank = min(failures, key=follows)
    return rank, failures[rank]


def reason(failure: ProcessFailure) -> str:
    """Return what ended a worker: a signal, or an error of its own."""
    if failure.exitcode < 0:
        number = -failure.exitcode
        hint = " (often: out of memory)" if number == signal.SIGKILL else ""
        return f"was ended by {signal.Signals(number).name}{hint}"
    message: Any = failure.message
    if isinstance(message, dict):
        message = message.get("message", message)
    return f"failed with exit code {failure.exitcode} ({str(message).splitlines()[0]})"


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2:]))
