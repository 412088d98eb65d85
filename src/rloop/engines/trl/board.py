"""Where the launchers of several machines tell each other why the workers ended.

It is the store of the first machine at which they meet, kept open for those who still ask.
"""

import time
from dataclasses import dataclass
from datetime import timedelta

from torch.distributed import TCPStore  # type: ignore[attr-defined]  # public, not in __all__

AGREE_S = 10.0
"""A launcher waits so long for another one's word (seconds)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a launcher stands. Example: Place(address="10.0.0.1", port=1, machines=2, rank=1)."""

    address: str
    port: int
    machines: int
    rank: int


CAUSE, READERS, HERE = "rloop/cause", "rloop/readers", "rloop/here"


def agree(place: Place, said: str, *, is_cause: bool) -> str:
    """Return the cause that was found first, on any machine; `said` where none is known."""
    deadline = time.monotonic() + AGREE_S
    while True:
        try:
            return _exchange(place, said, is_cause=is_cause)
        except RuntimeError:
            # Out of reach, or nobody knows; or the workers' store has just given way to this one.
            if place.rank == 0 or time.monotonic() > deadline:
                return said


def _exchange(place: Place, said: str, *, is_cause: bool) -> str:
    store = open_store(place)
    if place.rank == 0:
        store.set(HERE, "")
    store.wait([HERE])
    if is_cause:
        store.compare_set(CAUSE, "", said)
    said = store.get(CAUSE).decode()
    num_readers = store.add(READERS, 1)
    deadline = time.monotonic() + AGREE_S
    while place.rank == 0 and num_readers < place.machines and time.monotonic() < deadline:
        time.sleep(0.1)
        num_readers = store.add(READERS, 0)
    return said


def open_store(place: Place) -> TCPStore:
    """Return the machines' store: on the first one that of its launcher (`multi_tenant`)."""
    return TCPStore(
        place.address,
        place.port,
        is_master=place.rank == 0,
        timeout=timedelta(seconds=AGREE_S),
        wait_for_workers=False,
        multi_tenant=True,
    )
