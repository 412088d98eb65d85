"""Where several machines meet: checked before they wait for each other, and told while they do."""

import errno
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rloop.config_trl import LaunchConfig
from rloop.errors import ConfigError, EngineError

MEET_S = 900
"""Machines wait so long for each other (seconds); `accelerate launch` is told it."""
TELL_S = 30.0
"""So often a machine that waits says so (seconds)."""


def check_meeting(launch: LaunchConfig) -> None:
    """Raise where several machines cannot meet: ConfigError for the address, EngineError the port.

    Without this the launcher would try in silence until MEET_S have passed.
    """
    if launch.machines == 1:
        return
    found = resolve(launch.address)
    if launch.machine_rank > 0:
        return
    own = [family for family, address in found if is_own(family, address)]
    if not own:
        raise ConfigError(
            f"engine.trl.launch.address={launch.address} is no address of this machine "
            f"({socket.gethostname()}), which is machine 0: give one of its own that the other "
            "machines reach, or this machine's number with --set engine.trl.launch.machine_rank=..."
        )
    check_port(own[0], launch.port)


def resolve(address: str) -> list[tuple[socket.AddressFamily, str]]:
    """Return the families and numbers that a name stands for; ConfigError for none."""
    try:
        found = socket.getaddrinfo(address, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:  # a name may also be no name at all: "a..b"
        reason = getattr(error, "strerror", None) or error
        raise ConfigError(
            f"engine.trl.launch.address={address} cannot be resolved on this machine ({reason}): "
            "give the address of machine 0 as the others see it."
        ) from error
    return [(family, str(place[0])) for family, _, _, _, place in found]


def is_own(family: socket.AddressFamily, address: str) -> bool:
    """Whether this machine has the address: others cannot be bound."""
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        try:
            probe.bind((address, 0))
        except OSError:
            return False
    return True


def check_port(family: socket.AddressFamily, port: int) -> None:
    """Raise EngineError unless the port is free at every address: torch's store listens at all."""
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        # As torch does: what is left of connections that were closed is no hindrance.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("", port))
        except (OSError, OverflowError) as error:
            is_taken = isinstance(error, OSError) and error.errno == errno.EADDRINUSE
            reason = "is in use" if is_taken else f"cannot be opened ({error})"
            raise EngineError(
                f"port {port} {reason} on this machine; set another with --set "
                "engine.trl.launch.port=..., the same on every machine."
            ) from error


class Waiting:
    """What a machine says while it waits for the others: at once, then every TELL_S."""

    def __init__(self, launch: LaunchConfig, log: Path) -> None:
        """Begin to wait; one machine alone says nothing."""
        self._is_silent = launch.machines == 1
        self._who = f"machine {launch.machine_rank} of {launch.machines}"
        self._where = f"{launch.address}:{launch.port}"
        self._log = log
        self._begin = time.time()
        self._told = time.monotonic()
        self._say(f"the others are awaited at {self._where} until {self._clock(MEET_S)}")

    def tell(self) -> None:
        """Say since when and until when, where it is time to."""
        if time.monotonic() - self._told < TELL_S:
            return
        self._told = time.monotonic()
        self._say(
            f"the others have been awaited at {self._where} since {self._clock(0)}, and will be "
            f"until {self._clock(MEET_S)}; the log is {self._log}"
        )

    def _clock(self, after_s: float) -> str:
        return time.strftime("%H:%M:%S", time.localtime(self._begin + after_s))

    def _say(self, words: str) -> None:
        if not self._is_silent:
            sys.stderr.write(f"{self._who}: {words}\n")
            sys.stderr.flush()


@contextmanager
def prompt_interrupt() -> Iterator[None]:
    """Let the first Ctrl-C or SIGTERM raise KeyboardInterrupt: no step is under way to be saved."""
    if threading.current_thread() is not threading.main_thread():
        yield  # signals are the main thread's
        return
    previous = {
        number: signal.signal(number, signal.default_int_handler) or signal.SIG_DFL
        for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
