"""Workers hear of each other: each counts up in the store where they met, by threads of its own.

A worker that dies closes its connections, and the others notice at once. One that hangs, or whose
machine or network is gone, is silent: without this they would wait for it for half an hour.
"""

import os
import socket
import threading
from collections.abc import Callable
from datetime import timedelta

from torch.distributed import TCPStore  # type: ignore[attr-defined]  # public, not in __all__

TICKS = 10
"""So many beats make the time after which a silent worker is lost."""


class Silence(Exception):
    """A worker is not heard of any more."""


class Watch:
    """One worker's beats, and its ear for the others': the first hears all, they hear the first.

    Silence is counted in own ticks, not by the clock: who was stopped together wakes up together.
    """

    def __init__(
        self, rank: int, size: int, silence_s: float, on_lost: Callable[[str], None]
    ) -> None:
        """Begin; `on_lost` is told in a sentence who is silent, once, by another thread."""
        self._rank = rank
        self._others = range(1, size) if rank == 0 else range(1)
        self._silence_s = silence_s
        self._on_lost = on_lost
        self._beats = dict.fromkeys([rank, *self._others], 0)
        self._hosts: dict[int, str] = {}
        self._over = threading.Event()
        for work in (self._beat, self._listen):
            threading.Thread(target=work, name="trl-watch", daemon=True).start()

    def close(self) -> None:
        """Listen no more."""
        self._over.set()

    def _beat(self) -> None:
        """Count up and read the others' counts; a store that is out of reach may block it here."""
        address, port = store_address()
        try:
            store = TCPStore(address, port, timeout=timedelta(seconds=self._silence_s))
            store.set(f"rloop/host/{self._rank}", socket.gethostname())
            while not self._over.is_set():
                for rank in self._others:
                    self._beats[rank] = store.add(_key(rank), 0)
                    if rank not in self._hosts and self._beats[rank]:
                        self._hosts[rank] = store.get(f"rloop/host/{rank}").decode()
                self._beats[self._rank] = store.add(_key(self._rank), 1)
                self._over.wait(self._silence_s / TICKS)
        except RuntimeError:
            return  # the first machine is gone: no beat from now on

    def _listen(self) -> None:
        quiet, heard = dict.fromkeys(self._beats, 0), dict(self._beats)
        while not self._over.wait(self._silence_s / TICKS):
            beats = dict(self._beats)
            # Without an answer to its own beat a worker hears nobody, and cannot say who is silent.
            is_answered = beats[self._rank] != heard[self._rank]
            for rank in beats if is_answered else [self._rank]:
                quiet[rank] = 0 if beats[rank] != heard[rank] else quiet[rank] + 1
                heard[rank] = beats[rank]
                if quiet[rank] > TICKS:
                    return self._on_lost(self._sentence(rank))
        return None

    def _sentence(self, rank: int) -> str:
        if rank == self._rank:
            who = "the machine of worker rank 0 ({}:{})".format(*store_address())
            return f"{who} has not answered for {self._silence_s:g} s: it or the network is gone"
        who = f"worker rank {rank} on {self._hosts.get(rank, 'an unknown machine')}"
        return (
            f"{who} has not been heard of for {self._silence_s:g} s: it hangs, or its machine or "
            "network is gone"
        )


def store_address() -> tuple[str, int]:
    """Return where the launcher's store is, as every launcher says it in the environment."""
    return os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])


def _key(rank: int) -> str:
    return f"rloop/beat/{rank}"
