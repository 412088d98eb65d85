"""A whole run on TRL as its user starts it: two processes, rloop killed, and what is kept."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from doubles_runs import trajectories
from doubles_workers import wait_for_step, worker

pytest.importorskip("trl", reason="needs TRL (extra trl)")

from rloop.engines.trl.launch import free_port

ROOT = Path(__file__).parents[2]
SETS = (
    "policy.path=random:llama-1x64",
    "iterations=1",
    "coldstart.epochs=8",
    "tasks.evaluate.0.size=8",
    "explore.steps=16",
    "explore.checkpoint_every=5",
    "engine.dtype=float32",
    "engine.name=trl",
    "engine.trl.launch.processes=2",
)
NOTICED_S = 30.0
"""Workers end in this time after rloop has (docs/decisions/0008)."""


def rloop(*arguments: str) -> "subprocess.Popen[str]":
    command = [str(Path(sys.executable).with_name("rloop")), *arguments]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        command, env=environment, text=True, stdout=-1, stderr=subprocess.STDOUT
    )


def wait_for_end(pids: list[int]) -> None:
    deadline = time.monotonic() + NOTICED_S
    while [pid for pid in pids if is_alive(pid)]:
        assert time.monotonic() < deadline, "processes outlive the run that started them"
        time.sleep(0.1)


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="finds the workers in /proc")
def test_a_run_that_is_killed_leaves_no_workers_behind_and_resume_finishes_it(tmp_path: Path):
    run_dir = tmp_path / "run"
    sets = [word for value in SETS for word in ("--set", value)]
    process = rloop("run", str(ROOT / "recipes" / "tiny.yaml"), *sets, "--out", str(run_dir))
    wait_for_step(process, run_dir, 7)
    workers = [worker(process, rank) for rank in (0, 1)]
    launcher = psutil.Process(workers[0]).ppid()
    process.kill()
    process.communicate()
    wait_for_end([*workers, launcher])
    resumed = rloop("resume", str(run_dir))
    output, _ = resumed.communicate(timeout=200)
    assert resumed.returncode == 0, output
    assert (run_dir / "report.html").stat().st_size > 0
    counts = trajectories(
        run_dir,
        "select step, count(*) as rows, count(distinct problem_id || '/' || member) as different "
        "from trajectories where phase = 'explore' group by step order by step",
    )
    assert [row["step"] for row in counts] == list(range(1, 17))
    assert {(row["rows"], row["different"]) for row in counts} == {(64, 64)}


@pytest.fixture
def address() -> str:
    """An address of this machine that is not of the loop: nothing is sent to find it."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))
        except OSError:
            pytest.skip("needs a network address of its own")
        return str(probe.getsockname()[0])


@pytest.fixture
def waits(tmp_path: Path, address: str) -> "Iterator[tuple[subprocess.Popen[str], int, int]]":
    """A run whose second machine never comes, its launcher, and the port where that waits."""
    port = free_port()
    launch = {"processes": 2, "machines": 2, "address": address, "port": port}
    sets = ["engine.name=trl", *(f"engine.trl.launch.{name}={launch[name]}" for name in launch)]
    words = [word for value in sets for word in ("--set", value)]
    process = rloop(
        "run", str(ROOT / "recipes" / "tiny.yaml"), *words, "--out", str(tmp_path / "run")
    )
    deadline = time.monotonic() + 120
    while not listens(address, port):
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.2)
    [launcher] = (
        child.pid
        for child in psutil.Process(process.pid).children()
        if "rloop.engines.trl.launcher" in child.cmdline()
    )
    yield process, launcher, port
    for pid in (process.pid, launcher):
        if is_alive(pid):
            os.kill(pid, signal.SIGKILL)
    process.communicate()


def listens(address: str, port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex((address, port)) == 0


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="finds the launcher in /proc")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_one_ctrl_c_while_the_other_machines_are_awaited_ends_all(
    waits: "tuple[subprocess.Popen[str], int, int]", address: str, number: signal.Signals
):
    process, launcher, port = waits
    process.send_signal(number)
    output, _ = process.communicate(timeout=10)
    assert process.returncode == 130, output
    assert "machine 0 of 2: the others are awaited" in output
    assert "Interrupted" in output
    assert "press Ctrl-C again" not in output
    assert not is_alive(launcher)
    assert not listens(address, port)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="finds the launcher in /proc")
def test_a_run_killed_while_the_other_machines_are_awaited_leaves_no_launcher(
    waits: "tuple[subprocess.Popen[str], int, int]", address: str
):
    process, launcher, port = waits
    process.kill()
    process.wait()
    deadline = time.monotonic() + 10
    # A process that ends is a zombie for a moment before its port is closed.
    while (is_alive(launcher) or listens(address, port)) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not is_alive(launcher)
    assert not listens(address, port)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="finds the launcher in /proc")
def test_one_ctrl_c_ends_a_machine_that_waits_for_machine_0(tmp_path: Path):
    launch = {"processes": 2, "machines": 2, "machine_rank": 1, "port": free_port()}
    # Kept for documentation (RFC 5737): nobody answers there.
    sets = ["engine.trl.launch.address=203.0.113.7", "engine.name=trl"]
    sets += [f"engine.trl.launch.{name}={launch[name]}" for name in launch]
    words = [word for value in sets for word in ("--set", value)]
    process = rloop(
        "run", str(ROOT / "recipes" / "tiny.yaml"), *words, "--out", str(tmp_path / "run")
    )
    while not (children := psutil.Process(process.pid).children()):
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.2)
    time.sleep(5)  # as it takes the launcher to begin to ask for machine 0
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=10)
    assert process.returncode == 130, output
    assert "machine 1 of 2: the others are awaited at 203.0.113.7" in output
    assert not [child for child in children if is_alive(child.pid)]
