"""Who is silent: the machine that does not answer, or a worker that does not count any more."""

import os
import queue
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import timedelta

import pytest

pytest.importorskip("trl", reason="needs TRL (extra trl)")

from torch.distributed import TCPStore  # type: ignore[attr-defined]  # public, not in __all__

from rloop.engines.trl.watch import Watch

SILENCE_S = 0.5
FIRST = """
import time
from torch.distributed import TCPStore
store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
store.set("rloop/host/0", "first")
print(store.port, flush=True)
while True:
    store.add("rloop/beat/0", 1)
    time.sleep(0.12)  # under load a count may be late
"""


@pytest.fixture
def first(monkeypatch: pytest.MonkeyPatch) -> "Iterator[subprocess.Popen[str]]":
    """The first machine: it has the store and counts, in a process that can be stopped."""
    process = subprocess.Popen([sys.executable, "-c", FIRST], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    monkeypatch.setenv("MASTER_PORT", process.stdout.readline().strip())
    with process:
        yield process
        process.kill()


def test_a_machine_that_does_not_answer_is_not_taken_for_a_silent_worker(
    first: "subprocess.Popen[str]",
):
    said: queue.Queue[str] = queue.Queue()
    watches = []
    for _ in range(16):  # so that the machine is lost at any time since its last count
        watches.append(Watch(1, 2, SILENCE_S, said.put))
        time.sleep(0.02)
    time.sleep(2 * SILENCE_S)
    first.send_signal(signal.SIGSTOP)
    sentences = {said.get(timeout=10) for _ in watches}
    port = os.environ["MASTER_PORT"]
    assert sentences == {
        f"the machine of worker rank 0 (127.0.0.1:{port}) has not answered for 0.5 s: it or the "
        "network is gone"
    }


def test_a_worker_that_counts_no_more_is_named_with_its_machine(first: "subprocess.Popen[str]"):
    said: queue.Queue[str] = queue.Queue()
    store = TCPStore("127.0.0.1", int(os.environ["MASTER_PORT"]), timeout=timedelta(seconds=5))
    store.set("rloop/host/1", "second")
    watch = Watch(0, 2, SILENCE_S, said.put)
    for _ in range(10):
        store.add("rloop/beat/1", 1)
        time.sleep(SILENCE_S / 10)
    assert said.empty()
    assert said.get(timeout=10).startswith(
        "worker rank 1 on second has not been heard of for 0.5 s"
    )
    watch.close()
