"""`accelerate launch`, with a note of which worker ended first: `... PARENT NOTE OPTIONS`.

It ends with its parent, the process PARENT, even while it waits for other machines.
"""

import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
from accelerate.commands.launch import launch_command, launch_command_parser
from torch.distributed.elastic.multiprocessing.api import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure

from rloop.engines.trl.board import Place, agree

CONSEQUENCES = ("closed by peer", "reset by peer", "Connection refused", "Broken pipe")
"""In the error of a worker that another one's end has ended."""
STOP_S = 60.0
"""After its parent is gone the launcher has so long to end its workers; then all are killed."""


def main(note: Path, arguments: list[str]) -> int:
    """Return 0 when all workers ended well; else write the note and return 1."""
    foreign: Any = launch_command_parser()
    try:
        options = foreign.parse_args(arguments)
        launch_command(options)
    except ChildFailedError as error:
        rank, failure = first_failure(error.failures)
        said = f"worker rank {rank} on {socket.gethostname()} {reason(failure)}"
        said, is_cause = silence(failure) or said, not is_consequence(failure)
    except SignalException as error:
        said, is_cause = f"{socket.gethostname()} was told to stop ({error.sigval.name})", True
    except Exception as error:
        note.write_text(f"accelerate launch failed ({type(error).__name__}: {error})")
        raise
    else:
        return 0
    if (options.num_machines or 1) > 1:
        said = agree(place_of(options), said, is_cause=is_cause)
    note.write_text(said)
    return 1


def end_with(parent_id: int) -> None:
    """Wait for the parent's end, then end this process: for a thread, as the main one waits.

    While machines meet, SIGTERM ends the process at once. Later it is torch's to handle: that ends
    the workers, and the other machines are told.
    """
    while os.getppid() == parent_id:
        time.sleep(1.0)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(STOP_S)
    for worker in psutil.Process().children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            worker.kill()
    os._exit(1)


def place_of(options: Any) -> Place:  # noqa: ANN401
    """Return where this launcher stands, from parsed options of `accelerate launch`."""
    return Place(
        address=options.main_process_ip,
        port=options.main_process_port,
        machines=options.num_machines,
        rank=options.machine_rank,
    )


def first_failure(failures: Mapping[int, ProcessFailure]) -> tuple[int, ProcessFailure]:
    """Return the rank and failure that the others follow from: their times are whole seconds."""

    def follows(rank: int) -> tuple[bool, bool, int]:
        failure = failures[rank]
        return failure.exitcode == -signal.SIGTERM, is_consequence(failure), failure.timestamp

    rank = min(failures, key=follows)
    return rank, failures[rank]


def is_consequence(failure: ProcessFailure) -> bool:
    """Whether the worker ended because another one had."""
    return any(words in str(failure.message) for words in CONSEQUENCES)


def silence(failure: ProcessFailure) -> str:
    """Return what a worker said of another one that is not heard of any more; else nothing."""
    name, _, said = message_of(failure).partition(": ")
    return said if name == "Silence" else ""


def reason(failure: ProcessFailure) -> str:
    """Return what ended a worker: a signal, or an error of its own."""
    if failure.exitcode < 0:
        number = -failure.exitcode
        hint = " (often: out of memory)" if number == signal.SIGKILL else ""
        return f"was ended by {signal.Signals(number).name}{hint}"
    return f"failed with exit code {failure.exitcode} ({message_of(failure)})"


def message_of(failure: ProcessFailure) -> str:
    """Return the first line of the worker's last words."""
    message: Any = failure.message
    if isinstance(message, dict):
        message = message.get("message", message)
    return str(message).splitlines()[0]


if __name__ == "__main__":
    threading.Thread(target=end_with, args=(int(sys.argv[1]),), daemon=True).start()
    sys.exit(main(Path(sys.argv[2]), sys.argv[3:]))
